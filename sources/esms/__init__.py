"""Delivery callbacks of eSMS.vn's Zalo messages: the package esms_source, re-exported.

``dlt init esms duckdb --location …`` copies this folder into a project. Change nothing
here: the code is in the package, which ``requirements.txt`` names.
"""

from esms_source import EsmsError, Report, esms_source, sync

__all__ = ["EsmsError", "Report", "esms_source", "sync"]
