-- What a run asks, from the warehouse's rows to the work list, statement by statement: in
-- one query a join and a sort would share DuckDB's memory and run out of it. Braces hold
-- names, expressions over the user's columns, and literals.

-- candidates: the rows that may be asked, each with a key of its OA and RefId. The key is
-- null where a row can't be asked, or not before the whole table is compared.
WITH
read_rows AS (
    SELECT
        {own_oa_id} AS esms_own_oa_id,
        coalesce({own_oa_id}, {default_oa_id}) AS oa_id,
        {ref_id} AS ref_id,
        {moment} AS esms_moment{carried}
    FROM (FROM {relation}) AS warehouse
),
timed AS (
    SELECT
        * EXCLUDE (esms_moment),
        -- Before 2000 or more than a year ahead is no time that anybody sent at.
        CASE
            WHEN esms_moment >= TIMESTAMPTZ '2000-01-01 00:00:00+00'
                AND esms_moment <= {latest} THEN esms_moment
        END AS sent_at
    FROM read_rows
),
windowed AS (
    SELECT timed.* FROM timed{windows}
),
chosen AS (
    SELECT * EXCLUDE (esms_own_oa_id) FROM windowed AS work WHERE {chosen}
)
SELECT
    oa_id,
    ref_id,
    sent_at,
    * EXCLUDE (oa_id, ref_id, sent_at),
    CASE
        WHEN ref_id <> '' AND oa_id IS NOT NULL AND ({untimed} OR sent_at IS NOT NULL)
            THEN hash(oa_id, ref_id)
    END AS esms_key
FROM chosen;

-- known: the candidates that the ledger has, by their places.
INSERT INTO plan.main.known
SELECT candidates.rowid
FROM plan.main.candidates AS candidates
SEMI JOIN plan.main.ledger_keys USING (oa_id, ref_id);

-- new: the candidates but for those, a range of places at a time.
DELETE FROM plan.main.candidates
WHERE
    rowid BETWEEN {first} AND {last}
    AND rowid IN (SELECT row FROM plan.main.known WHERE row BETWEEN {first} AND {last});

-- doubled: the keys that more than one candidate has, a part of all keys at a time, so that
-- no number of candidates needs more memory.
INSERT INTO plan.main.doubled
SELECT esms_key FROM plan.main.candidates
WHERE esms_key % {parts} = {part}
GROUP BY esms_key HAVING count(*) > 1;

-- single: of candidates with one OA and RefId the earliest stays, again in parts.
DELETE FROM plan.main.candidates
WHERE
    esms_key IN (SELECT esms_key FROM plan.main.doubled WHERE esms_key % {parts} = {part})
    AND rowid NOT IN (
        SELECT (min({{'at': coalesce(sent_at, 'infinity'), 'row': rowid}})).row
        FROM plan.main.candidates
        WHERE esms_key IN (
            SELECT esms_key FROM plan.main.doubled WHERE esms_key % {parts} = {part}
        )
        GROUP BY oa_id, ref_id
    );

-- compared: all candidates as keys alone, which join ten times as fast as texts. Two of 10
-- million share a key with a chance of 1 in 370 000, which is good enough to count by; what
-- a run asks is compared by its texts.
CREATE TABLE plan.main.compared AS
SELECT
    esms_key,
    sent_at,
    coalesce(sent_at < since, false) AS is_late,
    {odd} AS is_odd,
    {forgotten} AS is_forgotten
FROM plan.main.candidates LEFT JOIN plan.main.oas USING (oa_id);

-- shared: the keys of the ledger.
CREATE TABLE plan.main.shared AS
SELECT hash(oa_id, ref_id) AS esms_key FROM plan.main.ledger_keys;

-- unknown: the candidates that the ledger doesn't have.
CREATE TABLE plan.main.unknown AS
SELECT * FROM plan.main.compared
ANTI JOIN plan.main.shared USING (esms_key)
WHERE NOT is_forgotten;

-- odd: those of them that no run asks, or not yet, with their texts.
CREATE TABLE plan.main.odd AS
SELECT oa_id, ref_id, sent_at
FROM plan.main.candidates
WHERE
    {odd} AND (
        esms_key IS NULL OR esms_key IN (SELECT esms_key FROM plan.main.unknown WHERE is_odd)
    );

-- work: what is due before what is new, each oldest first.
CREATE OR REPLACE VIEW plan.main.work AS
WITH
due AS (
    SELECT
        -- What a load that never completed says of a RefId's fate binds nothing.
        * EXCLUDE (load_id) REPLACE (
            CASE WHEN {completed} THEN state END AS state,
            CASE WHEN {completed} THEN final_at END AS final_at
        ),
        false AS is_new,
        rowid AS esms_row
    FROM plan.main.ledger
),
new AS (
    SELECT * EXCLUDE ({unused}), {is_chosen} AS chosen, true AS is_new, rowid AS esms_row
    FROM plan.main.candidates
    WHERE esms_key IS NOT NULL
),
work AS (
    SELECT * FROM due
    UNION ALL BY NAME
    SELECT * FROM new
)
SELECT * FROM work
WHERE {of_oas} AND {chosen};

-- ordered: the place of each row in the work list; where rows are long, DuckDB can't sort
-- more of them at once than it has memory for.
INSERT INTO plan.main.ordered
SELECT row_number() OVER () - 1 AS place, is_new, esms_row
FROM (
    SELECT is_new, esms_row FROM plan.main.work
    ORDER BY is_new, sent_at NULLS FIRST, ref_id, oa_id
    {limit}
) AS work;

-- written: the work list, or a part of it.
SELECT * EXCLUDE (is_new, esms_row) FROM plan.main.work AS work
{part}
ORDER BY is_new, sent_at NULLS FIRST, ref_id, oa_id
{limit};
