-- What of the ledger is still to be asked, per OA, as of now. New RefIds of the
-- warehouse aren't known here: see the command plan.
--
-- oa_id: Official Account to be asked for
-- due: RefIds that the next run would ask
-- waiting: RefIds that aren't settled and whose time hasn't come
-- oldest_due_at: Since when the oldest due one could have been asked
-- oldest_sent_at: When the oldest due one was sent
-- next_due_at: When the first waiting one becomes due
-- requests: Requests that the due ones take
-- api_hours: Hours that those take at the configured rate
WITH unsettled AS (
    SELECT
        oa_id,
        sent_at,
        coalesce(next_poll_at, last_polled_at) AS due_at,
        -- The same rule as the run's: see due_condition in ledger.py.
        (
            state NOT IN ('final', 'expired')
            AND (
                next_poll_at IS NULL
                OR next_poll_at <= CURRENT_TIMESTAMP
                OR next_poll_at > CURRENT_TIMESTAMP + INTERVAL {longest_wait}
            )
        )
        OR load_id NOT IN (SELECT load_id FROM {_dlt_loads} WHERE status = 0) AS is_due
    FROM {ref_ids}
    WHERE
        state NOT IN ('final', 'expired')
        OR load_id NOT IN (SELECT load_id FROM {_dlt_loads} WHERE status = 0)
)

SELECT
    oa_id,
    count(*) FILTER (WHERE is_due) AS due,
    count(*) FILTER (WHERE NOT is_due) AS waiting,
    min(due_at) FILTER (WHERE is_due) AS oldest_due_at,
    min(sent_at) FILTER (WHERE is_due) AS oldest_sent_at,
    min(due_at) FILTER (WHERE NOT is_due) AS next_due_at,
    CAST(
        ceil(
            CAST(count(*) FILTER (WHERE is_due) AS DOUBLE PRECISION) / {batch_size}
        ) AS BIGINT
    ) AS requests,
    ceil(CAST(count(*) FILTER (WHERE is_due) AS DOUBLE PRECISION) / {batch_size})
    / {requests_per_second} / 3600 AS api_hours
FROM unsettled
GROUP BY oa_id
