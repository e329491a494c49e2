"""What to alert on, as SQL for DuckDB and PostgreSQL; see docs/alerts.md.

Each query selects a row for each thing that is wrong, and none when all is well.
"""

from typing import Any, Final

DESTINATION: Final = "duckdb"
DATASET: Final = "zalo"

ALERTS: Final = {
    "run_failed": """
        SELECT pipeline_name, ended_at, failed, error
        FROM runs AS latest
        WHERE exit_code <> 0 AND ended_at = (
            SELECT max(ended_at) FROM runs AS others
            WHERE others.pipeline_name = latest.pipeline_name
        )
    """,
    "no_run": """
        SELECT max(ended_at) AS last_ended_at
        FROM runs
        HAVING count(*) = 0 OR max(ended_at) < CURRENT_TIMESTAMP - INTERVAL '1 hour'
    """,
    "overdue": """
        SELECT oa_id, due, oldest_due_at, api_hours
        FROM backlog
        WHERE oldest_due_at < CURRENT_TIMESTAMP - INTERVAL '24 hours'
    """,
    "refused": """
        SELECT latest.oa_id, latest.api_code, codes.meaning_en, codes.who_can_fix,
            count(*) AS requests, max(latest.ended_at) AS last_at
        FROM api_requests AS latest
        LEFT JOIN error_codes AS codes
            ON codes.code = latest.api_code AND codes.source = 'esms'
        WHERE latest.outcome = 'refused' AND latest.load_id = (
            SELECT max(others.load_id) FROM api_requests AS others
            WHERE others.oa_id = latest.oa_id AND others.load_id IN (
                SELECT load_id FROM _dlt_loads WHERE status = 0
            )
        )
        GROUP BY latest.oa_id, latest.api_code, codes.meaning_en, codes.who_can_fix
    """,
    "unknown_codes": """
        SELECT error_code, min(error_message) AS example, count(*) AS messages
        FROM messages
        WHERE error_code IS NOT NULL AND error_category = 'unknown'
        AND last_polled_at >= CURRENT_TIMESTAMP - INTERVAL '24 hours'
        GROUP BY error_code
        ORDER BY messages DESC, error_code
    """,
    "nothing_new": """
        SELECT oa_id, max(first_polled_at) AS newest
        FROM ref_ids
        GROUP BY oa_id
        HAVING max(first_polled_at) < CURRENT_TIMESTAMP - INTERVAL '24 hours'
    """,
    "rows_skipped": """
        SELECT pipeline_name, ended_at, skipped_no_ref_id, skipped_no_oa_id, unreadable
        FROM runs
        WHERE skipped_no_ref_id + skipped_no_oa_id + unreadable > 0
        AND ended_at >= CURRENT_TIMESTAMP - INTERVAL '24 hours'
    """,
    "no_callbacks": """
        SELECT sent_day, oa_id, sum(sent) AS sent,
            sum(missing) + sum(expired) AS no_callback
        FROM delivery_daily
        WHERE sent_day >= CURRENT_DATE - INTERVAL '7 days' AND sent_day < CURRENT_DATE
        GROUP BY sent_day, oa_id
        HAVING sum(missing) + sum(expired) > 0.2 * sum(sent)
    """,
}


def wrong(alert: str) -> list[tuple[Any, ...]]:
    """Return what an alert finds: nothing when all is well."""
    # A scheduler reads this file again and again: what is slow to import waits.
    import dlt  # noqa: PLC0415

    pipeline = dlt.pipeline("esms", destination=DESTINATION, dataset_name=DATASET)
    with pipeline.sql_client() as client:
        return [tuple(row) for row in client.execute_sql(ALERTS[alert]) or ()]
