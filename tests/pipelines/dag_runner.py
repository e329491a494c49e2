"""Run DAGs by ``dag.test()``: a line of JSON in asks for a run, one out names it.

It is a process of its own, as Airflow configures logging and warnings for all of it,
and one for all tests, as it takes half a minute to be ready.
"""

from __future__ import annotations

import json
import os
import sys
from unittest.mock import patch

from airflow.dag_processing.dagbag import DagBag


def main() -> None:
    """Serve until there are no more lines."""
    # Airflow logs to stdout too: what is an answer must stand apart.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        with patch.dict(os.environ, asked["environment"]):
            # Read anew: a run leaves its params in the DAG that it ran.
            dag = DagBag().dags[asked["dag_id"]]
            run = dag.test(run_conf=asked["conf"])
        answers.write(json.dumps(run.run_id) + "\n")


if __name__ == "__main__":
    main()
