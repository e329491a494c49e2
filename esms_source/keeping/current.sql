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

-- latest: which event of each RefId is the newest, and its moment, by which files are left
-- out that hold none; of events of one moment, the one that lies last. Two hashes stand for
-- OA and RefId: they take a fifth of the memory, and both at once are never those of another.
SELECT
    (newest % (1::HUGEINT << 64))::BIGINT AS {event_no},
    make_timestamptz(((newest >> 64) % (1::BIGINT << 62))::BIGINT) AS last_polled_at
FROM (
    SELECT max(
        (
            epoch_us(last_polled_at)
            -- What a clock that was ahead has written gives way to what was asked since.
            + CASE
                WHEN last_polled_at <= now() + INTERVAL 1 HOUR THEN 1::BIGINT << 62
                ELSE 0
            END
        )::HUGEINT * (1::HUGEINT << 64) + {event_no}
    ) AS newest
    FROM {ref_id_events}
    GROUP BY hash(oa_id, ref_id), hash(ref_id || oa_id)
) AS grouped;

-- ref_ids: the newest event of each RefId.
SELECT events.* EXCLUDE ({event_no})
FROM {ref_id_events} AS events
SEMI JOIN {latest} AS latest USING ({event_no}, last_polled_at);

-- keys: OA and RefId of all of them, each as often as it was asked.
SELECT oa_id, ref_id FROM {ref_id_events};

-- callbacks: the rows of the load that answered last, of each RefId.
SELECT events.*
FROM {callback_events} AS events
SEMI JOIN {ref_ids} AS ledger
    ON ledger.oa_id = events.oa_id
    AND ledger.ref_id = events.ref_id
    AND ledger.answered_by_load = events.load_id;
