-- One row per RefId of completed loads: the ledger with its callbacks, folded and
-- labelled. Where a RefId has several callback rows, equal ones count once, counts are
-- added, the price is the largest, as each row repeats that of the order, and all else
-- is of one row, the worst: failed before partial, pending and delivered, one with an
-- error code first. Carried columns stand last.
--
-- oa_id: Official Account that sent the message
-- oa_name: Its name; null where none is known
-- ref_id: eSMS's id of the message, as the warehouse has it
-- sent_at: When it was sent, by the warehouse
-- sent_day: Day of sent_at in the configured time zone; without a sent_at, of the
--     first poll
-- state: The ledger's state: final, pending, missing, failed or expired
-- outcome: What became of it: delivered, partial, failed, pending, missing (no row),
--     unanswered (its request failed) or expired (given up)
-- delivery: What its rows say together: pending while any of them is, else failed,
--     delivered, or partial where some receivers were reached and some not; unknown
--     where it has none
-- attempts: How many times it was asked
-- first_polled_at: When it was first asked
-- last_polled_at: When it was last asked
-- final_at: When it became final; of a ledger of version 0.1, when it was last asked
-- next_poll_at: When to ask again; null when settled
-- last_error: Why the last request had no usable answer
-- callback_rows: Rows that it has in callbacks, equal ones too
-- send_success: Receivers that were reached
-- send_failed: Receivers that were not reached
-- total_price: Price in VND of the whole order, as eSMS had it then; not the invoice,
--     as credits come later
-- total_receiver: Receivers
-- total_sent: Messages sent; the API isn't reliable here
-- phone_number: Receiver: phone, Zalo user id or hash
-- send_status: How far sending got
-- send_status_en: The same in English
-- send_status_vi: The same in Vietnamese
-- type_id: Message type
-- message_type_en: The same in English
-- message_type_vi: The same in Vietnamese
-- telco_id: Receiver's telco
-- telco_en: Its name in English
-- telco_vi: Its name in Vietnamese
-- zns_temp_id: ZNS template; null where no row came
-- template_name: Its name; null where none is known
-- request_id: Sender's own id of the request
-- partner_ids: Zalo's id of the message
-- error_code: Code in ErrorInfo: below 0 Zalo's, above 0 eSMS's own
-- error_message: Message in ErrorInfo
-- error_meaning_en: What the code means, in English; "no code" where there is none; code 0
--     of a message that did not arrive is not called a success
-- error_meaning_vi: What the code means, in Vietnamese
-- error_category: What the error is about, such as recipient or quota
-- error_retryable: Whether sending again can help; null where that isn't known
-- error_who_can_fix: Who can do something about it
-- load_id: dlt's load package that last wrote the ledger's row
SELECT
    facts.oa_id,
    oas.name AS oa_name,
    facts.ref_id,
    facts.sent_at,
    facts.sent_day,
    facts.state,
    facts.outcome,
    facts.delivery,
    facts.attempts,
    facts.first_polled_at,
    facts.last_polled_at,
    facts.final_at,
    facts.next_poll_at,
    facts.last_error,
    facts.callback_rows,
    facts.send_success,
    facts.send_failed,
    facts.total_price,
    facts.total_receiver,
    facts.total_sent,
    facts.phone_number,
    facts.send_status,
    coalesce(statuses.name_en, 'unknown') AS send_status_en,
    coalesce(statuses.name_vi, 'không rõ') AS send_status_vi,
    facts.type_id,
    coalesce(types.name_en, 'unknown') AS message_type_en,
    coalesce(types.name_vi, 'không rõ') AS message_type_vi,
    facts.telco_id,
    coalesce(telcos.name_en, 'unknown') AS telco_en,
    coalesce(telcos.name_vi, 'không rõ') AS telco_vi,
    facts.zns_temp_id,
    templates.name AS template_name,
    facts.request_id,
    facts.partner_ids,
    facts.error_code,
    facts.error_message,
    CASE
        WHEN facts.error_code IS NULL THEN 'no code'
        WHEN facts.error_code = 0 AND facts.delivery <> 'delivered'
            THEN 'Taken by Zalo, but not delivered'
        ELSE coalesce(codes.meaning_en, 'unknown')
    END AS error_meaning_en,
    CASE
        WHEN facts.error_code IS NULL THEN 'không có mã'
        WHEN facts.error_code = 0 AND facts.delivery <> 'delivered'
            THEN 'Zalo đã nhận nhưng tin không tới người nhận'
        ELSE coalesce(codes.meaning_vi, 'không rõ')
    END AS error_meaning_vi,
    CASE
        WHEN facts.error_code = 0 AND facts.delivery <> 'delivered' THEN 'undelivered'
        ELSE coalesce(codes.category, 'unknown')
    END AS error_category,
    CASE WHEN NOT (facts.error_code = 0 AND facts.delivery <> 'delivered') THEN codes.retryable END
        AS error_retryable,
    CASE
        WHEN facts.error_code = 0 AND facts.delivery <> 'delivered' THEN 'unknown'
        ELSE coalesce(codes.who_can_fix, 'unknown')
    END AS error_who_can_fix,
    facts.load_id{carried_from_facts}
FROM {message_facts} AS facts
LEFT JOIN {oas} AS oas ON oas.oa_id = facts.oa_id
LEFT JOIN {templates} AS templates
    ON templates.oa_id = facts.oa_id AND templates.zns_temp_id = facts.zns_temp_id
LEFT JOIN {send_statuses} AS statuses ON statuses.id = facts.send_status
LEFT JOIN {message_types} AS types ON types.id = facts.type_id
LEFT JOIN {telcos} AS telcos ON telcos.id = facts.telco_id
LEFT JOIN {error_codes} AS codes
    ON codes.code = facts.error_code
    AND codes.source = CASE WHEN facts.error_code > 0 THEN 'esms' ELSE 'zalo' END
