-- made by tools/generate.py; change esms_source/views/message_facts.sql instead
WITH folded AS (
    SELECT
        oa_id,
        ref_id,
        count(*) AS callback_rows,
        CASE max(CASE delivery
            WHEN 'failed' THEN 4 WHEN 'partial' THEN 3 WHEN 'pending' THEN 2 ELSE 1
        END)
            WHEN 4 THEN 'failed' WHEN 3 THEN 'partial' WHEN 2 THEN 'pending'
            ELSE 'delivered'
        END AS delivery,
        CAST(sum(send_success) AS BIGINT) AS send_success,
        CAST(sum(send_failed) AS BIGINT) AS send_failed,
        sum(total_price) AS total_price,
        CAST(sum(total_receiver) AS BIGINT) AS total_receiver,
        CAST(sum(total_sent) AS BIGINT) AS total_sent,
        max(phone_number) AS phone_number,
        max(send_status) AS send_status,
        max(type_id) AS type_id,
        max(telco_id) AS telco_id,
        max(zns_temp_id) AS zns_temp_id,
        max(request_id) AS request_id,
        max(partner_ids) AS partner_ids,
        coalesce(
            min(error_code) FILTER (WHERE error_code <> 0), max(error_code)
        ) AS error_code,
        coalesce(
            (
                array_agg(error_message ORDER BY error_code, error_message)
                FILTER (WHERE error_code <> 0)
            )[1],
            max(error_message)
        ) AS error_message
    FROM {{ source('esms', 'callbacks') }}
    GROUP BY oa_id, ref_id
)

SELECT
    ledger.oa_id,
    ledger.ref_id,
    ledger.sent_at,
    CAST(
        coalesce(ledger.sent_at, ledger.first_polled_at) AT TIME ZONE '{{ var('esms_timezone') }}' AS DATE
    ) AS sent_day,
    ledger.state,
    CASE
        WHEN ledger.state = 'failed' THEN 'unanswered'
        WHEN ledger.state <> 'final' THEN ledger.state
        -- A load that was cut short may have written the ledger alone.
        WHEN folded.delivery IN ('delivered', 'partial', 'failed') THEN folded.delivery
        ELSE 'pending'
    END AS outcome,
    coalesce(folded.delivery, 'unknown') AS delivery,
    ledger.attempts,
    ledger.first_polled_at,
    ledger.last_polled_at,
    ledger.next_poll_at,
    ledger.last_error,
    coalesce(folded.callback_rows, 0) AS callback_rows,
    folded.send_success,
    folded.send_failed,
    folded.total_price,
    folded.total_receiver,
    folded.total_sent,
    folded.phone_number,
    folded.send_status,
    folded.type_id,
    folded.telco_id,
    folded.zns_temp_id,
    folded.request_id,
    folded.partner_ids,
    folded.error_code,
    folded.error_message,
    ledger.load_id{{ esms_carried_from_ledger() }}
FROM {{ source('esms', 'ref_ids') }} AS ledger
LEFT JOIN folded ON folded.oa_id = ledger.oa_id AND folded.ref_id = ledger.ref_id
