-- made by tools/generate.py; change esms_source/views/reconciliation.sql instead
WITH covered AS (
    SELECT min(sent_at) AS first_at, max(sent_at) AS last_at
    FROM {{ ref('stg_esms__sent_messages') }}
    WHERE sms_type IN (24, 25)
),

zns AS (
    SELECT * FROM {{ ref('stg_esms__sent_messages') }} WHERE sms_type IN (24, 25)
),

compared AS (
    SELECT
        facts.oa_id,
        facts.ref_id,
        coalesce(facts.sent_at, zns.sent_at) AS sent_at,
        coalesce(CAST(facts.phone_number AS VARCHAR), zns.phone_number) AS phone_number,
        zns.campaign,
        facts.total_price,
        zns.price AS esms_price,
        facts.outcome,
        zns.ref_id IS NOT NULL AS is_at_esms
    FROM {{ ref('esms__message_facts') }} AS facts
    LEFT JOIN zns ON zns.ref_id = facts.ref_id
)

SELECT
    'not in the warehouse' AS difference,
    CAST(NULL AS VARCHAR) AS oa_id,
    zns.ref_id,
    zns.sent_at,
    zns.phone_number,
    zns.campaign,
    CAST(NULL AS DECIMAL(18, 4)) AS total_price,
    zns.price AS esms_price,
    CAST(NULL AS VARCHAR) AS sms_ref_id
FROM zns
WHERE NOT EXISTS (SELECT 1 FROM {{ ref('stg_esms__ref_ids') }} AS ledger WHERE ledger.ref_id = zns.ref_id)

UNION ALL

SELECT
    'not at eSMS', compared.oa_id, compared.ref_id, compared.sent_at, compared.phone_number,
    compared.campaign, compared.total_price, compared.esms_price, NULL
FROM compared
INNER JOIN covered ON compared.sent_at BETWEEN covered.first_at AND covered.last_at
WHERE NOT compared.is_at_esms

UNION ALL

SELECT
    'price differs', oa_id, ref_id, sent_at, phone_number, campaign, total_price, esms_price,
    NULL
FROM compared
WHERE total_price <> esms_price

UNION ALL

SELECT
    'sms after failed zns', compared.oa_id, compared.ref_id, compared.sent_at,
    compared.phone_number, sms.campaign, compared.total_price, sms.price, sms.ref_id
FROM compared
INNER JOIN {{ ref('stg_esms__sent_messages') }} AS sms
    ON sms.sms_type = 2
    -- Written with 0 or with 84 in front.
    AND right(sms.phone_number, 9) = right(compared.phone_number, 9)
    AND sms.sent_at >= compared.sent_at
    AND sms.sent_at <= compared.sent_at + INTERVAL '1 hour'
WHERE compared.outcome = 'failed'
