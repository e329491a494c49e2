-- In delivery_daily every RefId is in exactly one column.
SELECT *
FROM {{ ref('esms__delivery_daily') }}
WHERE
    sent <> final + pending + missing + unanswered + expired
    OR final <> delivered + partial + failed
