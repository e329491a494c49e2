"""Load all delivery callbacks that are due: the script that a dlt user expects."""

import dlt

from esms_source import sync


def load_callbacks() -> None:
    """Read RefIds from the warehouse, ask eSMS, load into DuckDB."""
    pipeline = dlt.pipeline("esms", destination="duckdb", dataset_name="zalo")
    report = sync(pipeline)
    print(f"{report.answered} of {report.asked} RefIds answered")
    print(f"loaded in {len(report.loads)} packages: {', '.join(report.loads)}")


if __name__ == "__main__":
    load_callbacks()
