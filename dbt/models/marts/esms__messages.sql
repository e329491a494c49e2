-- made by tools/generate.py; change esms_source/views/messages.sql instead
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
    facts.load_id{{ esms_carried_from_facts() }}
FROM {{ ref('esms__message_facts') }} AS facts
LEFT JOIN {{ ref('stg_esms__oas') }} AS oas ON oas.oa_id = facts.oa_id
LEFT JOIN {{ ref('stg_esms__templates') }} AS templates
    ON templates.oa_id = facts.oa_id AND templates.zns_temp_id = facts.zns_temp_id
LEFT JOIN {{ ref('stg_esms__send_statuses') }} AS statuses ON statuses.id = facts.send_status
LEFT JOIN {{ ref('stg_esms__message_types') }} AS types ON types.id = facts.type_id
LEFT JOIN {{ ref('stg_esms__telcos') }} AS telcos ON telcos.id = facts.telco_id
LEFT JOIN {{ ref('stg_esms__error_codes') }} AS codes
    ON codes.code = facts.error_code
    AND codes.source = CASE WHEN facts.error_code > 0 THEN 'esms' ELSE 'zalo' END
