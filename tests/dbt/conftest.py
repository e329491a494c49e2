from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

try:
    distribution("dbt-core")
except PackageNotFoundError:
    # dbt has an environment of its own: the group "dbt" of pyproject.toml.
    collect_ignore_glob = ["test_*.py"]
