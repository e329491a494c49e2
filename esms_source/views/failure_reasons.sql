-- Why messages failed: one row per OA, error code, template and telco. Counts RefIds
-- with the outcome failed or partial, each once.
--
-- oa_id: Official Account that sent the messages
-- oa_name: Its name; null where none is known
-- error_code: Code in ErrorInfo; null where it had none, 0 where Zalo took the message
--     and it did not arrive
-- zns_temp_id: ZNS template; null where none is known
-- template_name: Its name; null where none is known
-- telco_id: Receiver's telco; null where none is known
-- telco_en: Its name in English
-- telco_vi: Its name in Vietnamese
-- meaning_en: What the code means, in English
-- meaning_vi: What the code means, in Vietnamese
-- category: What the error is about, such as recipient or quota
-- retryable: Whether sending again can help; null where that isn't known
-- who_can_fix: Who can do something about it
-- messages: RefIds
-- share: Their share of all RefIds in this view, from 0 to 1
-- first_sent_at: When the first of them was sent
-- last_sent_at: When the last of them was sent
WITH counted AS (
    SELECT
        oa_id,
        error_code,
        zns_temp_id,
        telco_id,
        count(*) AS messages,
        min(sent_at) AS first_sent_at,
        max(sent_at) AS last_sent_at
    FROM {message_facts}
    WHERE outcome IN ('failed', 'partial')
    GROUP BY oa_id, error_code, zns_temp_id, telco_id
)

SELECT
    counted.oa_id,
    oas.name AS oa_name,
    counted.error_code,
    counted.zns_temp_id,
    templates.name AS template_name,
    counted.telco_id,
    coalesce(telcos.name_en, 'unknown') AS telco_en,
    coalesce(telcos.name_vi, 'không rõ') AS telco_vi,
    CASE
        WHEN counted.error_code IS NULL THEN 'no code'
        WHEN counted.error_code = 0 THEN 'Taken by Zalo, but not delivered'
        ELSE coalesce(codes.meaning_en, 'unknown')
    END AS meaning_en,
    CASE
        WHEN counted.error_code IS NULL THEN 'không có mã'
        WHEN counted.error_code = 0 THEN 'Zalo đã nhận nhưng tin không tới người nhận'
        ELSE coalesce(codes.meaning_vi, 'không rõ')
    END AS meaning_vi,
    CASE
        WHEN counted.error_code = 0 THEN 'undelivered'
        ELSE coalesce(codes.category, 'unknown')
    END AS category,
    CASE WHEN counted.error_code = 0 THEN NULL ELSE codes.retryable END AS retryable,
    CASE
        WHEN counted.error_code = 0 THEN 'unknown'
        ELSE coalesce(codes.who_can_fix, 'unknown')
    END AS who_can_fix,
    counted.messages,
    CAST(counted.messages AS DOUBLE PRECISION)
    / CAST(sum(counted.messages) OVER () AS DOUBLE PRECISION) AS share,
    counted.first_sent_at,
    counted.last_sent_at
FROM counted
LEFT JOIN {oas} AS oas ON oas.oa_id = counted.oa_id
LEFT JOIN {templates} AS templates
    ON templates.oa_id = counted.oa_id AND templates.zns_temp_id = counted.zns_temp_id
LEFT JOIN {telcos} AS telcos ON telcos.id = counted.telco_id
LEFT JOIN {error_codes} AS codes
    ON codes.code = counted.error_code
    AND codes.source = CASE WHEN counted.error_code > 0 THEN 'esms' ELSE 'zalo' END
