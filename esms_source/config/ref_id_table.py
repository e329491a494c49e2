"""Where the RefIds are: the settings of the warehouse table."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, ClassVar, Final

from dlt.common.configuration import configspec
from dlt.common.configuration.specs import BaseConfiguration
from dlt.common.normalizers.naming.snake_case import NamingConvention

from esms_source.config.refusal import refuse, require_zone
from esms_source.tables import FIXED

_OF_PLANNING: Final = re.compile(r"(?:esms_|_dlt_).*|is_new")
"""Names of planning's and of dlt's own columns."""


@configspec
class RefIdTable(BaseConfiguration):
    """The warehouse table that holds the RefIds, as ``[sources.esms.ref_ids]``."""

    destination: str = "duckdb"
    credentials: Any | None = None
    dataset_name: str | None = None
    table: str | None = None
    query: str | None = None
    ref_id_column: str = "ref_id"
    oa_id_column: str | None = None
    sent_at_column: str | None = None
    sent_at_timezone: str = "UTC"
    carry: list[str] = dataclasses.field(default_factory=list)
    type_id_column: str | None = None
    lag: float = 86_400

    __section__: ClassVar[str] = "ref_ids"

    def on_resolved(self) -> None:
        """Refuse what can't be meant."""
        if self.table and self.query:
            raise refuse("ref_ids.table", "table and query are both set", "keep one")
        require_zone("ref_ids.sent_at_timezone", self.sent_at_timezone)
        if not 0 <= self.lag < float("inf"):
            fact = f"{self.lag} is not allowed"
            raise refuse("ref_ids.lag", fact, "set it to seconds, 0 or more")
        _ = self.carried  # which refuses names that meet

    @property
    def type_id(self) -> str | None:
        """The name in the ledger of the column of the messages' types, or None."""
        if not self.type_id_column:
            return None
        return NamingConvention().normalize_identifier(self.type_id_column)

    @property
    def carried(self) -> dict[str, str]:
        """The carried columns by their names in the ledger; that of the types, too.

        Raises:
            ConfigError: Two of them would have one name, or that of another column.
        """
        naming = NamingConvention()
        carried: dict[str, str] = {}
        types = [self.type_id_column] if self.type_id_column else []
        for name in [*self.carry, *(name for name in types if name not in self.carry)]:
            if not isinstance(name, str) or not name.strip():
                remedy = "give a list of the columns' names"
                raise refuse("ref_ids.carry", f"{name!r} is not a name", remedy)
            alias = naming.normalize_identifier(name)
            if _OF_PLANNING.fullmatch(alias):
                fact = f"{name!r} would have a name that is kept, {alias!r}"
                raise refuse("ref_ids.carry", fact, "rename it in ref_ids.query")
            if alias in FIXED or alias in carried:
                fact = f"{name!r} would be a second column {alias!r} in the ledger"
                raise refuse("ref_ids.carry", fact, "rename it in ref_ids.query")
            carried[alias] = name
        return carried
