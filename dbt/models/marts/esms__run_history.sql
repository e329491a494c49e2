-- made by tools/generate.py; change esms_source/views/run_history.sql instead
WITH loads AS (
    SELECT load_id, min(inserted_at) AS loaded_at
    FROM {{ ref('stg_esms__loads') }}
    WHERE status = 0
    GROUP BY load_id
),

unknown AS (
    SELECT callbacks.load_id, count(*) AS unknown_codes
    FROM {{ ref('stg_esms__callbacks') }} AS callbacks
    LEFT JOIN {{ ref('stg_esms__error_codes') }} AS codes
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
    FROM {{ ref('stg_esms__api_requests') }}
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
    asking.attempts / greatest(asking.seconds, 1) / {{ var('esms_requests_per_second') }} AS rate_used,
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
