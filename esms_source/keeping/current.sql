-- What is current in a lake: views over the rows of loads that completed. Braces hold
-- those rows, or names.

-- oas: what was asked last.
SELECT * FROM ({rows}) AS events
QUALIFY row_number() OVER (PARTITION BY oa_id ORDER BY named_at DESC) = 1;

-- templates: the same.
SELECT * FROM ({rows}) AS events
QUALIFY row_number() OVER (PARTITION BY oa_id, zns_temp_id ORDER BY named_at DESC) = 1;

-- sent_messages: the same.
SELECT * FROM ({rows}) AS events
QUALIFY row_number() OVER (PARTITION BY ref_id ORDER BY read_at DESC) = 1;

-- latest: when each RefId was asked last. Two hashes stand for OA and RefId: they take a
-- fifth of the memory, and both at once are never those of another.
SELECT
    hash(oa_id, ref_id) AS one,
    hash(ref_id || oa_id) AS other,
    -- What a clock that was ahead has written gives way to what was asked since.
    coalesce(
        max(last_polled_at) FILTER (WHERE last_polled_at <= now() + INTERVAL 1 HOUR),
        max(last_polled_at)
    ) AS last_polled_at
FROM {ref_id_events}
GROUP BY one, other;

-- ref_ids: the newest event of each RefId.
SELECT events.*
FROM {ref_id_events} AS events
SEMI JOIN {latest} AS latest
    ON latest.one = hash(events.oa_id, events.ref_id)
    AND latest.other = hash(events.ref_id || events.oa_id)
    AND latest.last_polled_at = events.last_polled_at;

-- keys: OA and RefId of all of them, each as often as it was asked.
SELECT oa_id, ref_id FROM {ref_id_events};

-- callbacks: the rows of the load that answered last, of each RefId.
SELECT events.*
FROM {callback_events} AS events
SEMI JOIN {ref_ids} AS ledger
    ON ledger.oa_id = events.oa_id
    AND ledger.ref_id = events.ref_id
    AND ledger.answered_by_load = events.load_id;
