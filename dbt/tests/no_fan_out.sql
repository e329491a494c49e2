-- Every RefId and every price counts once, in messages and in delivery_daily.
WITH expected AS (
    SELECT
        (SELECT count(*) FROM {{ source('esms', 'ref_ids') }}) AS ref_ids,
        (SELECT coalesce(sum(total_price), 0) FROM {{ source('esms', 'callbacks') }}) AS price
),

actual AS (
    SELECT count(*) AS ref_ids, coalesce(sum(total_price), 0) AS price
    FROM {{ ref('messages') }}
    UNION ALL
    SELECT coalesce(sum(sent), 0) AS ref_ids, coalesce(sum(cost), 0) AS price
    FROM {{ ref('delivery_daily') }}
)

SELECT actual.*
FROM actual
CROSS JOIN expected
WHERE actual.ref_ids <> expected.ref_ids OR actual.price <> expected.price
