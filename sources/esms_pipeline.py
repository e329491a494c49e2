"""Load all delivery callbacks that are due into DuckDB."""

import dlt
from esms import esms_source, sync


def load_at_once() -> None:
    """Load everything that is due in one load, as dlt does."""
    pipeline = dlt.pipeline("esms", destination="duckdb", dataset_name="zalo")
    print(pipeline.run(esms_source()))


def load_in_slices() -> None:
    """Do the same in slices, each durable; and make the views."""
    pipeline = dlt.pipeline("esms", destination="duckdb", dataset_name="zalo")
    report = sync(pipeline)
    print(f"{report.answered} of {report.asked} RefIds answered")


if __name__ == "__main__":
    load_in_slices()
