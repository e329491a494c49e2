-- One row per completed load of GetCallback's answers; a run may consist of several.
-- Requests that were split count as requests, their RefIds only where they were asked
-- at last: asked = answered + missing + failed.
--
-- load_id: dlt's load package
-- loaded_at: When the load was complete
-- started_at: When its first request was sent
-- seconds: From then to the end of its last request
-- requests: Requests, split ones too
-- attempts: How often requests were sent
-- retries: Attempts beyond the first
-- requests_per_second: Attempts per second, over at least one second
-- rate_used: The same as a share of the configured rate
-- asked: RefIds asked
-- answered: RefIds with at least one row
-- missing: RefIds without a row
-- failed: RefIds without a usable answer
-- rows: Callback rows that came
-- rejected: Rows that couldn't be placed
-- split: Requests that were split in two
-- refused: Requests that were refused because of key or OA
-- unknown_codes: Callback rows of this load, not replaced since, whose error_code
--     isn't in error_codes
WITH loads AS (
    SELECT load_id, min(inserted_at) AS loaded_at
    FROM {_dlt_loads}
    WHERE status = 0
    GROUP BY load_id
),

unknown AS (
    SELECT callbacks.load_id, count(*) AS unknown_codes
    FROM {callbacks} AS callbacks
    LEFT JOIN {error_codes} AS codes
        ON codes.code = callbacks.error_code
        AND codes.source = CASE WHEN callbacks.error_code > 0 THEN 'esms' ELSE 'zalo' END
    WHERE callbacks.error_code IS NOT NULL AND codes.code IS NULL
    GROUP BY callbacks.load_id
),

asking AS (
    SELECT
        load_id,
        min(started_at) AS started_at,
        CAST(
            max(extract(EPOCH FROM started_at) + (waited_ms + latency_ms) / 1000.0)
            - min(extract(EPOCH FROM started_at)) AS DOUBLE PRECISION
        ) AS seconds,
        count(*) AS requests,
        CAST(sum(attempts) AS BIGINT) AS attempts,
        CAST(sum(attempts) AS BIGINT) - count(*) AS retries,
        CAST(sum(CASE WHEN outcome <> 'split' THEN asked ELSE 0 END) AS BIGINT) AS asked,
        CAST(sum(answered) AS BIGINT) AS answered,
        CAST(sum(missing) AS BIGINT) AS missing,
        CAST(sum(CASE WHEN outcome <> 'split' THEN failed ELSE 0 END) AS BIGINT) AS failed,
        CAST(sum(rows) AS BIGINT) AS rows,
        CAST(sum(rejected) AS BIGINT) AS rejected,
        count(*) FILTER (WHERE outcome = 'split') AS split,
        count(*) FILTER (WHERE outcome = 'refused') AS refused
    FROM {api_requests}
    -- Version 0.1 asked nothing else and named no endpoint.
    WHERE endpoint IS NULL OR endpoint = 'callback'
    GROUP BY load_id
)

SELECT
    asking.load_id,
    loads.loaded_at,
    asking.started_at,
    asking.seconds,
    asking.requests,
    asking.attempts,
    asking.retries,
    asking.attempts / greatest(asking.seconds, 1) AS requests_per_second,
    asking.attempts / greatest(asking.seconds, 1) / {requests_per_second} AS rate_used,
    asking.asked,
    asking.answered,
    asking.missing,
    asking.failed,
    asking.rows,
    asking.rejected,
    asking.split,
    asking.refused,
    coalesce(unknown.unknown_codes, 0) AS unknown_codes
FROM asking
INNER JOIN loads ON loads.load_id = asking.load_id
LEFT JOIN unknown ON unknown.load_id = asking.load_id
