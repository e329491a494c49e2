-- What is current in a lake: views over the rows of all its files. Braces hold names.

-- ref_id_events: every time that a RefId was asked, of loads that completed.
SELECT * FROM ({rows}) AS events
WHERE load_id IN (SELECT load_id FROM {loads} WHERE status = 0);

-- callback_events: every row that ever came, of loads that completed.
SELECT * FROM ({rows}) AS events
WHERE load_id IN (SELECT load_id FROM {loads} WHERE status = 0);

-- api_requests: the requests of loads that completed.
SELECT * FROM ({rows}) AS events
WHERE load_id IN (SELECT load_id FROM {loads} WHERE status = 0);

-- rejected_rows: the same.
SELECT * FROM ({rows}) AS events
WHERE load_id IN (SELECT load_id FROM {loads} WHERE status = 0);

-- oas: what was asked last.
SELECT * FROM ({rows}) AS events
QUALIFY row_number() OVER (PARTITION BY oa_id ORDER BY named_at DESC) = 1;

-- templates: the same.
SELECT * FROM ({rows}) AS events
QUALIFY row_number() OVER (PARTITION BY oa_id, zns_temp_id ORDER BY named_at DESC) = 1;

-- sent_messages: the same.
SELECT * FROM ({rows}) AS events
QUALIFY row_number() OVER (PARTITION BY ref_id ORDER BY read_at DESC) = 1;

-- latest: the load that asked last, of each RefId; ids of loads are times.
SELECT oa_id, ref_id, max(load_id) AS load_id FROM {ref_id_events} GROUP BY oa_id, ref_id;

-- ref_ids: the newest event of each RefId. No load holds one twice.
SELECT * FROM {ref_id_events} SEMI JOIN {latest} USING (oa_id, ref_id, load_id);

-- callbacks: the rows of the load that answered last, of each RefId.
SELECT events.*
FROM {callback_events} AS events
SEMI JOIN {ref_ids} AS ledger
    ON ledger.oa_id = events.oa_id
    AND ledger.ref_id = events.ref_id
    AND ledger.answered_by_load = events.load_id;
