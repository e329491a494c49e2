-- Delivery and cost per day sent, OA, template, message type and telco. Each RefId
-- counts once: sent = final + pending + missing + unanswered + expired, and
-- final = delivered + partial + failed. Messages without a row have no template, type
-- and telco: they stand under null, so a rate of sent is right over all of them only.
--
-- sent_day: Day sent, in the configured time zone
-- oa_id: Official Account that sent the messages
-- oa_name: Its name; null where none is known
-- zns_temp_id: ZNS template; null where none is known
-- template_name: Its name; null where none is known
-- type_id: Message type; null where none is known
-- message_type_en: The same in English
-- message_type_vi: The same in Vietnamese
-- telco_id: Receiver's telco; null where none is known
-- telco_en: Its name in English
-- telco_vi: Its name in Vietnamese
-- sent: RefIds
-- final: Those with a final outcome
-- delivered: Those that reached every receiver
-- partial: Those that reached some receivers
-- failed: Those that reached no receiver
-- pending: Those whose rows aren't all final yet
-- missing: Those for which the API has no row yet
-- unanswered: Those whose last request failed
-- expired: Those that were given up
-- delivery_rate_final: delivered / final, from 0 to 1: of those with a final outcome
-- delivery_rate_sent: delivered / sent, from 0 to 1: of all RefIds of the row, which
--     under a template are only those with a callback row
-- cost: Price in VND of the orders, as eSMS had it then; not the invoice, as credits
--     come later. More than cost_delivered + cost_failed by what isn't final
-- cost_delivered: That of those that reached some or every receiver
-- cost_failed: That of those that reached nobody: eSMS should charge nothing for them
-- unpriced: RefIds without a price, so not in cost
-- cost_per_delivered: cost / delivered, in VND
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
    FROM {message_facts}
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
LEFT JOIN {oas} AS oas ON oas.oa_id = counted.oa_id
LEFT JOIN {templates} AS templates
    ON templates.oa_id = counted.oa_id AND templates.zns_temp_id = counted.zns_temp_id
LEFT JOIN {message_types} AS types ON types.id = counted.type_id
LEFT JOIN {telcos} AS telcos ON telcos.id = counted.telco_id
