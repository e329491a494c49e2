"""Dagster: an asset check for each thing to alert on, and a schedule for them.

Copy esms_alerts.py beside it. They belong to the asset ``zalo/ref_ids`` of
dagster_defs.py: load both files, or merge their definitions.
"""

from typing import Final

import dagster as dg
from esms_alerts import ALERTS, DATASET, wrong

REF_IDS: Final = dg.AssetKey([DATASET, "ref_ids"])


def _check(alert: str) -> dg.AssetChecksDefinition:
    """Make the check that passes while an alert finds nothing."""

    @dg.asset_check(asset=REF_IDS, name=alert, pool="esms")
    def quiet() -> dg.AssetCheckResult:
        rows = wrong(alert)
        return dg.AssetCheckResult(passed=not rows, metadata={"rows": str(rows)})

    return quiet


checks = [_check(alert) for alert in ALERTS]

esms_alerts_schedule = dg.ScheduleDefinition(
    name="esms_alerts_schedule",
    target=dg.AssetSelection.checks(*checks),
    cron_schedule="7 * * * *",
)

defs = dg.Definitions(asset_checks=checks, schedules=[esms_alerts_schedule])
