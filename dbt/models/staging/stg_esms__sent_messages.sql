-- made by tools/generate.py; change esms_source/tables.py instead
SELECT * FROM {{ source('esms', 'sent_messages') }}
