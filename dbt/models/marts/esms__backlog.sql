-- made by tools/generate.py; change esms_source/views/backlog.sql instead
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
                OR next_poll_at > CURRENT_TIMESTAMP + INTERVAL '{{ var('esms_repoll_max') + 1 }} seconds'
            )
        )
        OR load_id NOT IN (SELECT load_id FROM {{ ref('stg_esms__loads') }} WHERE status = 0) AS is_due
    FROM {{ ref('stg_esms__ref_ids') }}
    WHERE
        state NOT IN ('final', 'expired')
        OR load_id NOT IN (SELECT load_id FROM {{ ref('stg_esms__loads') }} WHERE status = 0)
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
            CAST(count(*) FILTER (WHERE is_due) AS DOUBLE PRECISION) / {{ var('esms_batch_size') }}
        ) AS BIGINT
    ) AS requests,
    ceil(CAST(count(*) FILTER (WHERE is_due) AS DOUBLE PRECISION) / {{ var('esms_batch_size') }})
    / {{ var('esms_requests_per_second') }} / 3600 AS api_hours
FROM unsettled
GROUP BY oa_id
