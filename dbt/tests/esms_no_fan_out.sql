-- Every RefId of a completed load and every order's price counts once, in messages and in
-- delivery_daily. Several rows of one message repeat the price of its order.
WITH completed AS (
    SELECT load_id FROM {{ ref('stg_esms__loads') }} WHERE status = 0
),

ledger AS (
    SELECT oa_id, ref_id FROM {{ ref('stg_esms__ref_ids') }}
    WHERE load_id IN (SELECT load_id FROM completed)
),

orders AS (
    SELECT rows.oa_id, rows.ref_id, max(rows.total_price) AS price
    FROM {{ ref('stg_esms__callbacks') }} AS rows
    INNER JOIN ledger ON ledger.oa_id = rows.oa_id AND ledger.ref_id = rows.ref_id
    WHERE rows.load_id IN (SELECT load_id FROM completed)
    GROUP BY rows.oa_id, rows.ref_id
),

expected AS (
    SELECT
        (SELECT count(*) FROM ledger) AS ref_ids,
        (SELECT coalesce(sum(price), 0) FROM orders) AS price
),

actual AS (
    SELECT count(*) AS ref_ids, coalesce(sum(total_price), 0) AS price
    FROM {{ ref('esms__messages') }}
    UNION ALL
    SELECT coalesce(sum(sent), 0) AS ref_ids, coalesce(sum(cost), 0) AS price
    FROM {{ ref('esms__delivery_daily') }}
)

SELECT actual.*
FROM actual
CROSS JOIN expected
WHERE actual.ref_ids <> expected.ref_ids OR actual.price <> expected.price
