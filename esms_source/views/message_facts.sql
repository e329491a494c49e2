-- The view messages without its labels, for adding up: one row per RefId of completed
-- loads. Where a RefId has several callback rows, equal ones count once, counts are
-- added, the price is the largest, as each row repeats that of the order, and all else
-- is of one row, the worst: failed before partial, pending and delivered, one with an
-- error code first. Carried columns stand last.
--
-- oa_id: Official Account that sent the message
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
-- type_id: Message type
-- telco_id: Receiver's telco
-- zns_temp_id: ZNS template; null where no row came
-- request_id: Sender's own id of the request
-- partner_ids: Zalo's id of the message
-- error_code: Code in ErrorInfo: below 0 Zalo's, above 0 eSMS's own
-- error_message: Message in ErrorInfo
-- load_id: dlt's load package that last wrote the ledger's row
WITH several AS NOT MATERIALIZED (
    SELECT answers.ref_id
    FROM {callbacks} AS answers
    GROUP BY answers.ref_id
    HAVING count(*) > 1
),

-- Few RefIds have several rows: only those are compared, ranked and added up.
different AS (
    SELECT
        answers.oa_id,
        answers.ref_id,
        answers.load_id,
        answers.delivery,
        answers.phone_number,
        answers.send_status,
        answers.send_success,
        answers.send_failed,
        answers.total_price,
        answers.total_receiver,
        answers.total_sent,
        answers.request_id,
        answers.type_id,
        answers.telco_id,
        answers.partner_ids,
        answers.zns_temp_id,
        answers.error_code,
        answers.error_message,
        count(*) AS times
    FROM {callbacks} AS answers
    INNER JOIN several ON several.ref_id = answers.ref_id
    GROUP BY
        answers.oa_id,
        answers.ref_id,
        answers.load_id,
        answers.delivery,
        answers.phone_number,
        answers.send_status,
        answers.send_success,
        answers.send_failed,
        answers.total_price,
        answers.total_receiver,
        answers.total_sent,
        answers.request_id,
        answers.type_id,
        answers.telco_id,
        answers.partner_ids,
        answers.zns_temp_id,
        answers.error_code,
        answers.error_message,
        answers.callback_url,
        answers.error_info,
        answers.error_at,
        CAST(answers.extra AS TEXT)
),

ranked AS (
    SELECT
        oa_id,
        ref_id,
        sum(times) OVER message AS callback_rows,
        row_number() OVER (
            PARTITION BY oa_id, ref_id
            ORDER BY
                CASE delivery
                    WHEN 'failed' THEN 1 WHEN 'partial' THEN 2 WHEN 'pending' THEN 3
                    ELSE 4
                END,
                coalesce(error_code, 0) = 0,
                error_code,
                error_message,
                phone_number,
                partner_ids,
                request_id,
                -- By its table: MariaDB would take the column below of that name.
                different.total_price,
                telco_id,
                type_id,
                zns_temp_id,
                send_status
        ) AS place,
        sum(CASE WHEN delivery = 'pending' THEN 1 ELSE 0 END) OVER message AS pending,
        sum(CASE WHEN delivery IN ('failed', 'partial') THEN 1 ELSE 0 END)
            OVER message AS not_reached,
        sum(CASE WHEN delivery IN ('delivered', 'partial') THEN 1 ELSE 0 END)
            OVER message AS reached,
        sum(send_success) OVER message AS send_success,
        sum(send_failed) OVER message AS send_failed,
        max(total_price) OVER message AS total_price,
        sum(total_receiver) OVER message AS total_receiver,
        sum(total_sent) OVER message AS total_sent,
        phone_number,
        send_status,
        type_id,
        telco_id,
        zns_temp_id,
        request_id,
        partner_ids,
        error_code,
        error_message
    FROM different
    WHERE load_id IN (SELECT load_id FROM {_dlt_loads} WHERE status = 0)
    WINDOW message AS (PARTITION BY oa_id, ref_id)
),

folded AS (
    SELECT
        answers.oa_id,
        answers.ref_id,
        1 AS callback_rows,
        answers.delivery,
        -- Wider than a bigint, as sums of them are.
        CAST(answers.send_success AS DECIMAL(38, 0)) AS send_success,
        CAST(answers.send_failed AS DECIMAL(38, 0)) AS send_failed,
        answers.total_price,
        CAST(answers.total_receiver AS DECIMAL(38, 0)) AS total_receiver,
        CAST(answers.total_sent AS DECIMAL(38, 0)) AS total_sent,
        answers.phone_number,
        answers.send_status,
        answers.type_id,
        answers.telco_id,
        answers.zns_temp_id,
        answers.request_id,
        answers.partner_ids,
        answers.error_code,
        answers.error_message
    FROM {callbacks} AS answers
    LEFT JOIN several ON several.ref_id = answers.ref_id
    WHERE
        several.ref_id IS NULL
        AND answers.load_id IN (SELECT load_id FROM {_dlt_loads} WHERE status = 0)
    UNION ALL
    SELECT
        oa_id,
        ref_id,
        CAST(callback_rows AS BIGINT) AS callback_rows,
        CASE
            WHEN pending > 0 THEN 'pending'
            WHEN not_reached = 0 THEN 'delivered'
            WHEN reached = 0 THEN 'failed'
            ELSE 'partial'
        END AS delivery,
        CAST(send_success AS DECIMAL(38, 0)) AS send_success,
        CAST(send_failed AS DECIMAL(38, 0)) AS send_failed,
        total_price,
        CAST(total_receiver AS DECIMAL(38, 0)) AS total_receiver,
        CAST(total_sent AS DECIMAL(38, 0)) AS total_sent,
        phone_number,
        send_status,
        type_id,
        telco_id,
        zns_temp_id,
        request_id,
        partner_ids,
        error_code,
        error_message
    FROM ranked
    WHERE place = 1
)

SELECT
    ledger.oa_id,
    ledger.ref_id,
    ledger.sent_at,
    CAST(
        coalesce(ledger.sent_at, ledger.first_polled_at) AT TIME ZONE {timezone} AS DATE
    ) AS sent_day,
    ledger.state,
    CASE
        WHEN ledger.state = 'failed' THEN 'unanswered'
        WHEN ledger.state <> 'final' THEN ledger.state
        -- The load of its rows may not have completed.
        WHEN folded.delivery IN ('delivered', 'partial', 'failed') THEN folded.delivery
        ELSE 'pending'
    END AS outcome,
    coalesce(folded.delivery, 'unknown') AS delivery,
    ledger.attempts,
    ledger.first_polled_at,
    ledger.last_polled_at,
    CASE
        WHEN ledger.state = 'final' THEN coalesce(ledger.final_at, ledger.last_polled_at)
    END AS final_at,
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
    ledger.load_id{carried_from_ledger}
FROM {ref_ids} AS ledger
LEFT JOIN folded ON folded.oa_id = ledger.oa_id AND folded.ref_id = ledger.ref_id
WHERE ledger.load_id IN (SELECT load_id FROM {_dlt_loads} WHERE status = 0)
