"""The dbt package's models, sources and tests, from tables.py and views/*.sql."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from esms_source.tables import FIXED, LOADS, RUNS, STATES, TABLES, Table
from esms_source.views import NAMES, read_view

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ACCEPTED: Final[dict[tuple[str, str], Sequence[str]]] = {
    ("ref_ids", "state"): STATES,
    ("callbacks", "delivery"): ("delivered", "failed", "partial", "pending"),
    ("api_requests", "outcome"): ("answered", "failed", "refused", "split"),
    ("error_codes", "source"): ("zalo", "esms"),
}

MODEL_KEYS: Final = {
    "message_facts": ("oa_id", "ref_id"),
    "messages": ("oa_id", "ref_id"),
    "delivery_daily": ("sent_day", "oa_id", "zns_temp_id", "type_id", "telco_id"),
    "failure_reasons": ("oa_id", "error_code", "zns_temp_id", "telco_id"),
    "maturity": ("sent_day",),
    "backlog": ("oa_id",),
    "run_history": ("load_id",),
    "reconciliation": ("difference", "oa_id", "ref_id", "sms_ref_id"),
}
EXPOSED: Final = ("delivery_daily", "failure_reasons", "maturity", "backlog")
MAY_BE_NULL: Final = ("zns_temp_id", "type_id", "telco_id", "error_code", "sms_ref_id")
UNKNOWN_OA: Final = ("reconciliation", "oa_id")
"""eSMS's list of what was sent names no OA."""

OUTCOMES: Final = (
    "delivered",
    "partial",
    "failed",
    "pending",
    "missing",
    "unanswered",
    "expired",
)


SOURCES: Final = (*(table.name for table in TABLES), LOADS)
HEADERS: Final = {
    "message_facts": """{{ config(
    materialized='incremental',
    unique_key=['oa_id', 'ref_id'],
    incremental_strategy='delete+insert',
    on_schema_change='append_new_columns',
    post_hook='{{ esms.esms_remove_gone() }}'
) }}
"""
}
"""What stands on top of a model that isn't a view."""

INCREMENTAL: Final = {
    "ref_ids": "{{ esms_changed_ref_ids() }}",
    "callbacks": "{{ esms_changed_callbacks() }}",
}
"""What message_facts reads in place of whole tables."""


def dbt_files() -> dict[str, tuple[str, str]]:
    """Return the files of the dbt package that are made, by path: source and text."""
    values = {
        **{name: f"{{{{ ref('{_staging(name)}') }}}}" for name in SOURCES},
        **{name: f"{{{{ ref('{_mart(name)}') }}}}" for name in NAMES},
        "timezone": "'{{ var('esms_timezone') }}'",
        "batch_size": "{{ var('esms_batch_size') }}",
        "requests_per_second": "{{ var('esms_requests_per_second') }}",
        "longest_wait": "'{{ var('esms_repoll_max') + 1 }} seconds'",
        "carried_from_ledger": "{{ esms_carried_from_ledger() }}",
        "carried_from_facts": "{{ esms_carried_from_facts() }}",
    }
    staging = {
        f"models/staging/{_staging(name)}.sql": (
            "tables.py",
            f"SELECT * FROM {{{{ source('esms', '{name}') }}}}\n",
        )
        for name in SOURCES
    }
    marts = {
        f"models/marts/{_mart(name)}.sql": (
            f"views/{name}.sql",
            HEADERS.get(name, "")
            + read_view(name).sql.format_map(
                values | (INCREMENTAL if name in HEADERS else {})
            )
            + "\n",
        )
        for name in NAMES
    }
    properties = yaml.safe_dump(
        _properties(), sort_keys=False, allow_unicode=True, width=88
    )
    return {
        **staging,
        **marts,
        "models/esms.yml": ("tables.py or views/*.sql", properties),
        "macros/known_columns.sql": (
            "tables.py or views/messages.sql",
            _known_columns(),
        ),
    }


def _staging(table: str) -> str:
    return f"stg_esms__{table.removeprefix('_dlt_')}"


def _mart(view: str) -> str:
    return f"esms__{view}"


def _properties() -> dict[str, Any]:
    return {
        "version": 2,
        "sources": [
            {
                "name": "esms",
                "description": "What the pipeline loads.",
                "database": "{{ var('esms_database', target.database) }}",
                "schema": "{{ var('esms_dataset') }}",
                "tables": [*map(_source, TABLES), _runs(), _loads()],
            }
        ],
        "models": [*map(_staging_model, SOURCES), *map(_model, NAMES)],
        "exposures": [
            {
                "name": "esms_report",
                "label": "Zalo delivery figures",
                "type": "dashboard",
                "description": "The page of esms report, or a dashboard like it.",
                "depends_on": [f"ref('{_mart(name)}')" for name in EXPOSED],
                "owner": {"name": "Whoever runs esms_source"},
            }
        ],
    }


def _source(table: Table) -> dict[str, Any]:
    columns = [
        _column(
            column.name,
            column.description,
            not_null=not column.nullable,
            values=ACCEPTED.get((table.name, column.name)),
        )
        for column in table.columns
    ]
    source: dict[str, Any] = {
        "name": table.name,
        "identifier": _identifier(table.name),
        "description": table.description,
    }
    source["data_tests"] = [_unique(table.key)]
    return source | {"columns": columns}


def _runs() -> dict[str, Any]:
    """Describe the runs; untested, as plain dlt makes no such table."""
    return {
        "name": RUNS.name,
        "identifier": _identifier(RUNS.name),
        "description": RUNS.description,
        # A run that found nothing due is a run.
        "config": _freshness("ended_at"),
        "columns": [
            {"name": column.name, "description": column.description}
            for column in RUNS.columns
        ],
    }


def _loads() -> dict[str, Any]:
    return {
        "name": LOADS,
        "identifier": _identifier(LOADS),
        "description": "dlt's loads that are complete.",
    }


def _identifier(table: str) -> str:
    return f"{{{{ var('esms_{table.removeprefix('_dlt_')}_identifier', '{table}') }}}}"


def _staging_model(table: str) -> dict[str, Any]:
    description = f"The source {table} as it is, with the carried columns."
    return {"name": _staging(table), "description": description}


def _freshness(column: str) -> dict[str, Any]:
    return {
        "loaded_at_field": column,
        "freshness": {
            "warn_after": {"count": 24, "period": "hour"},
            "error_after": {"count": 72, "period": "hour"},
        },
    }


def _model(name: str) -> dict[str, Any]:
    view, key = read_view(name), MODEL_KEYS[name]
    columns = [
        _column(
            column,
            meaning,
            not_null=(
                column in key
                and column not in MAY_BE_NULL
                and (name, column) != UNKNOWN_OA
            )
            or column.endswith(("_en", "_vi")),
            values=OUTCOMES if column == "outcome" else None,
        )
        for column, meaning in view.columns.items()
    ]
    model: dict[str, Any] = {"name": _mart(name), "description": view.description}
    return model | {"data_tests": [_unique(key)], "columns": columns}


def _unique(key: tuple[str, ...]) -> dict[str, Any]:
    return {"esms_unique": {"arguments": {"columns": list(key)}}}


def _column(
    name: str, description: str, *, not_null: bool, values: Sequence[str] | None
) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "description": description}
    tests: list[Any] = ["not_null"] if not_null else []
    if values:
        tests.append({"accepted_values": {"arguments": {"values": list(values)}}})
    return column | ({"data_tests": tests} if tests else {})


def _known_columns() -> str:
    def macro(name: str, columns: Iterable[str]) -> Iterator[str]:
        yield f"{{% macro {name}() %}}"
        yield f"  {{{{ return({sorted(columns)!r}) }}}}"
        yield "{% endmacro %}"

    return "\n".join(
        [
            *macro("esms_ledger_columns", FIXED),
            *macro("esms_message_columns", read_view("messages").columns),
            "",
        ]
    )
