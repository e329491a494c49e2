-- How fast results become final, per day sent. As polling saw it: a RefId that was
-- asked late is final late, and asking it again changes nothing. Shares count only
-- RefIds that are old enough by now.
--
-- sent_day: Day sent, in the configured time zone
-- sent: RefIds with a sent_at
-- final: Those in the state final
-- share_final_1h: Share that was final 1 hour after sending, from 0 to 1; null while
--     none is that old
-- share_final_6h: The same after 6 hours
-- share_final_24h: The same after 24 hours
-- share_final_72h: The same after 72 hours
-- hours_to_final_p50: Median of the hours from sending to the final answer
-- hours_to_final_p95: Hours in which 95 % of the final answers came
WITH aged AS (
    SELECT
        CAST(sent_at AT TIME ZONE {timezone} AS DATE) AS sent_day,
        state,
        -- Differences of epochs: DuckDB takes ten times longer for those of times.
        CAST(
            extract(EPOCH FROM CURRENT_TIMESTAMP) - extract(EPOCH FROM sent_at)
            AS DOUBLE PRECISION
        ) / 3600 AS age,
        CASE
            WHEN state = 'final'
                THEN CAST(
                    extract(EPOCH FROM coalesce(final_at, last_polled_at))
                    - extract(EPOCH FROM sent_at)
                    AS DOUBLE PRECISION
                ) / 3600
        END AS hours_to_final
    FROM {ref_ids}
    WHERE
        sent_at IS NOT NULL
        AND load_id IN (SELECT load_id FROM {_dlt_loads} WHERE status = 0)
)

SELECT
    sent_day,
    count(*) AS sent,
    count(*) FILTER (WHERE state = 'final') AS final,
    CAST(count(*) FILTER (WHERE age >= 1 AND hours_to_final <= 1) AS DOUBLE PRECISION)
    / nullif(count(*) FILTER (WHERE age >= 1), 0) AS share_final_1h,
    CAST(count(*) FILTER (WHERE age >= 6 AND hours_to_final <= 6) AS DOUBLE PRECISION)
    / nullif(count(*) FILTER (WHERE age >= 6), 0) AS share_final_6h,
    CAST(count(*) FILTER (WHERE age >= 24 AND hours_to_final <= 24) AS DOUBLE PRECISION)
    / nullif(count(*) FILTER (WHERE age >= 24), 0) AS share_final_24h,
    CAST(count(*) FILTER (WHERE age >= 72 AND hours_to_final <= 72) AS DOUBLE PRECISION)
    / nullif(count(*) FILTER (WHERE age >= 72), 0) AS share_final_72h,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY hours_to_final) AS hours_to_final_p50,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY hours_to_final) AS hours_to_final_p95
FROM aged
GROUP BY sent_day
