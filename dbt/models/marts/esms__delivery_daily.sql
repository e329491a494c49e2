-- made by tools/generate.py; change esms_source/views/delivery_daily.sql instead
WITH counted AS (
    SELECT
        sent_day,
        oa_id,
        zns_temp_id,
        type_id,
        telco_id,
        count(*) AS sent,
        count(*) FILTER (WHERE outcome IN ('delivered', 'partial', 'failed')) AS final,
        count(*) FILTER (WHERE outcome = 'delivered') AS delivered,
        count(*) FILTER (WHERE outcome = 'partial') AS partial,
        count(*) FILTER (WHERE outcome = 'failed') AS failed,
        count(*) FILTER (WHERE outcome = 'pending') AS pending,
        count(*) FILTER (WHERE outcome = 'missing') AS missing,
        count(*) FILTER (WHERE outcome = 'unanswered') AS unanswered,
        count(*) FILTER (WHERE outcome = 'expired') AS expired,
        coalesce(sum(total_price), 0) AS cost,
        coalesce(sum(total_price) FILTER (WHERE outcome IN ('delivered', 'partial')), 0)
            AS cost_delivered,
        coalesce(sum(total_price) FILTER (WHERE outcome = 'failed'), 0) AS cost_failed,
        count(*) - count(total_price) AS unpriced
    FROM {{ ref('esms__message_facts') }}
    GROUP BY sent_day, oa_id, zns_temp_id, type_id, telco_id
)

SELECT
    counted.sent_day,
    counted.oa_id,
    oas.name AS oa_name,
    counted.zns_temp_id,
    templates.name AS template_name,
    counted.type_id,
    coalesce(types.name_en, 'unknown') AS message_type_en,
    coalesce(types.name_vi, 'không rõ') AS message_type_vi,
    counted.telco_id,
    coalesce(telcos.name_en, 'unknown') AS telco_en,
    coalesce(telcos.name_vi, 'không rõ') AS telco_vi,
    counted.sent,
    counted.final,
    counted.delivered,
    counted.partial,
    counted.failed,
    counted.pending,
    counted.missing,
    counted.unanswered,
    counted.expired,
    CAST(counted.delivered AS DOUBLE PRECISION)
    / nullif(counted.final, 0) AS delivery_rate_final,
    CAST(counted.delivered AS DOUBLE PRECISION) / counted.sent AS delivery_rate_sent,
    counted.cost,
    counted.cost_delivered,
    counted.cost_failed,
    counted.unpriced,
    CAST(counted.cost AS DOUBLE PRECISION)
    / nullif(counted.delivered, 0) AS cost_per_delivered
FROM counted
LEFT JOIN {{ ref('stg_esms__oas') }} AS oas ON oas.oa_id = counted.oa_id
LEFT JOIN {{ ref('stg_esms__templates') }} AS templates
    ON templates.oa_id = counted.oa_id AND templates.zns_temp_id = counted.zns_temp_id
LEFT JOIN {{ ref('stg_esms__message_types') }} AS types ON types.id = counted.type_id
LEFT JOIN {{ ref('stg_esms__telcos') }} AS telcos ON telcos.id = counted.telco_id
