"""Every setting once: its name, its default, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import dlt
from dlt.common.configuration import configspec, resolve_configuration
from dlt.common.configuration.exceptions import (
    ConfigFieldMissingException,
    ConfigurationException,
    ValueNotSecretException,
)
from dlt.common.configuration.specs import BaseConfiguration
from dlt.common.configuration.specs.base_configuration import extract_inner_hint
from dlt.common.configuration.utils import deserialize_value
from dlt.common.typing import (
    ConfigValueSentinel,
    TSecretStrValue,
    extract_inner_type,
)
from typing_extensions import TypedDict

from esms_source.config.providers import find
from esms_source.config.ref_id_table import RefIdTable
from esms_source.config.refusal import refuse, require_one_of, require_zone
from esms_source.exceptions import ConfigError

MAX_BATCH_SIZE: Final = 200
"""RefIds that one request may hold; more are cut off silently.

Source: the GetCallback page of eSMS's API docs.
"""

BASE_URL: Final = "https://status-sms.esms.vn"
"""Where GetCallback is. Source: the GetCallback page of eSMS's API docs."""

REST_BASE_URL: Final = "https://rest.esms.vn"
"""Where eSMS's other endpoints are. Source: their pages in eSMS's API docs."""

PLAIN: Final = (bool, int, float, str)
PHONE_POLICIES: Final = ("plain", "hash", "drop")
TABLE_FORMATS: Final = ("parquet", "delta", "iceberg")

MOST_DAYS: Final = 36_500

LEAST_MEMORY_MB: Final = 64
MOST_MEMORY_MB: Final = 1_000_000
_SIZE: Final = re.compile(r"(\d{1,9})\s*(?:MB)?", re.IGNORECASE | re.ASCII)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise refuse(name, "not a URL", "write https://host[:port]") from exc
    if parts.scheme not in ("http", "https") or not host:
        raise refuse(name, "not an http(s) URL", "write https://host[:port]")
    if parts.username or parts.password or parts.query or parts.fragment:
        fact = "holds more than a host and a path"
        raise refuse(name, fact, "write https://host[:port]")
    if parts.scheme == "http" and not _is_loopback(host):
        fact = f"plain http to {host} would send the key unencrypted"
        raise refuse(name, fact, "use https")


_Check = Callable[[Any], bool]

_NUMBERS: Final[Mapping[str, tuple[_Check, str]]] = {
    "requests_per_second": (lambda n: 1 <= n < float("inf"), "at least 1"),
    "query_requests_per_second": (lambda n: 1 <= n < float("inf"), "at least 1"),
    "batch_size": (lambda n: 1 <= n <= MAX_BATCH_SIZE, f"from 1 to {MAX_BATCH_SIZE}"),
    "max_in_flight": (lambda n: n in range(1, 1_001), "from 1 to 1000"),
    "connect_timeout": (lambda n: 0 < n < float("inf"), "seconds above 0"),
    "read_timeout": (lambda n: 0 < n < float("inf"), "seconds above 0"),
    "max_attempts": (lambda n: n in range(1, 101), "from 1 to 100"),
    "repoll_after": (lambda n: 0 <= n < float("inf"), "seconds, 0 or more"),
    "repoll_backoff": (lambda n: 1 <= n < float("inf"), "at least 1.0"),
    "repoll_max": (lambda n: 0 <= n < float("inf"), "seconds, 0 or more"),
    "give_up_after": (lambda n: 0 <= n < float("inf"), "seconds, 0 or more"),
    "slice_ref_ids": (lambda n: n >= 1, "at least 1"),
    "compare_all_after": (lambda n: 0 <= n < float("inf"), "seconds, 0 or more"),
}
"""What each number must be, as a check and in words."""


@configspec
class Settings(BaseConfiguration):
    """All settings of the source, as ``[sources.esms]``.

    Times are in seconds. See docs/settings.md for what each one does.
    """

    api_key: TSecretStrValue | None = None
    secret_key: TSecretStrValue | None = None
    oa_id: str | None = None
    base_url: str = BASE_URL
    requests_per_second: float = 20
    ask_missing: bool = False
    rest_base_url: str | None = None
    query_requests_per_second: float = 100
    sent_messages: bool = False
    rate_limit_store: str = "memory"
    batch_size: int = MAX_BATCH_SIZE
    max_in_flight: int = 64
    connect_timeout: float = 5
    read_timeout: float = 30
    max_attempts: int = 5
    repoll_after: float = 300
    repoll_backoff: float = 2.0
    repoll_max: float = 21_600
    give_up_after: float = 259_200
    slice_ref_ids: int = 240_000
    compare_all_after: float = 72_000
    planning_memory: str = "192 MB"
    keep_requests: float | None = None
    table_format: str = "parquet"
    phone_number: str = "plain"
    phone_hash_key: TSecretStrValue | None = None
    timezone: str = "Asia/Ho_Chi_Minh"
    keep_callback_query: bool = False
    ref_ids: RefIdTable = dataclasses.field(default_factory=RefIdTable)

    def on_resolved(self) -> None:
        """Refuse what can't be meant, before anything is read or asked."""
        for name, (fits, words) in _NUMBERS.items():
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not fits(value):
                raise refuse(name, f"{value} is not allowed", f"set it to {words}")
        _check_url("base_url", self.base_url)
        if self.rest_base_url is not None:
            _check_url("rest_base_url", self.rest_base_url)
        if self.keep_requests is not None and not 0 < self.keep_requests < MOST_DAYS:
            fact = f"{self.keep_requests} is not allowed"
            raise refuse("keep_requests", fact, "set it to days above 0")
        self._check_rate_limit_store()
        self._check_phone_number()
        _ = self.planning_memory_mb  # which refuses what is no size
        require_one_of("table_format", self.table_format, TABLE_FORMATS)
        require_zone("timezone", self.timezone)
        if self.oa_id is not None:
            self.oa_id = self.oa_id.strip() or None

    @property
    def rest_url(self) -> str | None:
        """Where eSMS's other endpoints are; None where they aren't asked.

        Whoever asks GetCallback elsewhere may not want eSMS to get the key.
        """
        if self.rest_base_url is not None or self.base_url.rstrip("/") != BASE_URL:
            return self.rest_base_url
        return REST_BASE_URL

    @property
    def asks_missing(self) -> bool:
        """Whether QueryZnsStatus is asked for what GetCallback has no row for."""
        return self.ask_missing and self.rest_url is not None

    @property
    def query_weight(self) -> int:
        """How many RefIds GetCallback can be asked for in the time of one query."""
        at_once = self.batch_size * self.requests_per_second
        return max(round(at_once / self.query_requests_per_second), 1)

    @property
    def planning_memory_mb(self) -> int:
        """The memory that planning may take before it uses the disk, in MB.

        Raises:
            ConfigError: It isn't a size, or a smaller one than planning can do with.
        """
        size = _SIZE.fullmatch(str(self.planning_memory).strip())
        if size is None or not LEAST_MEMORY_MB <= int(size[1]) < MOST_MEMORY_MB:
            fact = f"{self.planning_memory!r} is not a size"
            remedy = f'set it to a number of MB, {LEAST_MEMORY_MB} or more, as "192 MB"'
            raise refuse("planning_memory", fact, remedy)
        return int(size[1])

    def require_credentials(self) -> tuple[str, str]:
        """Return the key and the secret.

        Raises:
            ConfigError: One of them isn't set.
        """
        for name in ("api_key", "secret_key"):
            if not (getattr(self, name) or "").strip():
                remedy = "put it into .dlt/secrets.toml under [sources.esms]"
                folder = Path(dlt.current.run_context().run_dir).resolve()
                if not (folder / ".dlt").is_dir():
                    fact = f"not set, and there is no .dlt in the folder {folder}"
                    remedy = f"go to the project's folder, or {remedy}"
                    raise refuse(name, fact, remedy)
                raise refuse(name, "not set", remedy)
        return str(self.api_key).strip(), str(self.secret_key).strip()

    def _check_rate_limit_store(self) -> None:
        store = self.rate_limit_store
        known = ("sqlite:///", "postgresql://", "postgres://")
        if store.startswith("postgres") and "+" in store.partition("://")[0]:
            fact = "a URL with a driver in its scheme"
            raise refuse("rate_limit_store", fact, "write postgresql://")
        if store != "memory" and (store in known or not store.startswith(known)):
            remedy = "use memory, sqlite:///path or postgresql://…"
            raise refuse("rate_limit_store", "not a store that is known", remedy)

    def _check_phone_number(self) -> None:
        require_one_of("phone_number", self.phone_number, PHONE_POLICIES)
        if self.phone_number == "hash" and not (self.phone_hash_key or "").strip():
            remedy = "put it into .dlt/secrets.toml under [sources.esms]"
            raise refuse("phone_hash_key", "not set, yet phone_number is hash", remedy)


class SettingArguments(TypedDict, total=False):
    """The settings as keyword arguments, all but ``ref_ids``; see ``Settings``."""

    api_key: str
    secret_key: str
    oa_id: str
    base_url: str
    requests_per_second: float
    ask_missing: bool
    rest_base_url: str
    query_requests_per_second: float
    sent_messages: bool
    rate_limit_store: str
    batch_size: int
    max_in_flight: int
    connect_timeout: float
    read_timeout: float
    max_attempts: int
    repoll_after: float
    repoll_backoff: float
    repoll_max: float
    give_up_after: float
    slice_ref_ids: int
    compare_all_after: float
    planning_memory: int | str
    keep_requests: float
    table_format: str
    phone_number: str
    phone_hash_key: str
    timezone: str
    keep_callback_query: bool


def resolve_settings(**overrides: Any) -> Settings:  # noqa: ANN401
    """Resolve all settings from arguments, environment and ``.dlt/*.toml``.

    Args:
        **overrides: Settings by name; ``ref_ids`` takes a mapping. None and
            ``dlt.config.value`` stand for "as configured".

    Raises:
        ConfigError: A setting is unknown, of the wrong type or makes no sense.
    """
    table = _resolve(RefIdTable, overrides.pop("ref_ids", None) or {}, "ref_ids")
    return _resolve(Settings, overrides | {"ref_ids": table})


def resolve_call(
    ref_ids: Any,  # noqa: ANN401  rows of any form
    settings: SettingArguments,
) -> tuple[Settings, Any]:
    """Resolve the settings of a call whose ``ref_ids`` may be settings or rows.

    Returns:
        All settings, and the rows or None.

    Raises:
        ConfigError: A setting is missing, unknown or makes no sense.
    """
    if isinstance(ref_ids, Mapping):
        return resolve_settings(ref_ids=ref_ids, **settings), None
    rows = None if isinstance(ref_ids, ConfigValueSentinel) else ref_ids
    return resolve_settings(**settings), rows


_Kind = TypeVar("_Kind", bound=BaseConfiguration)


def _resolve(kind: type[_Kind], given: Mapping[str, Any], *sections: str) -> _Kind:
    """Resolve a configuration: what is given, what is found, else its defaults.

    Each field is handed over, so that dlt looks for none by itself.
    """
    defaults = kind()
    prefix = "".join(f"{section}." for section in sections)
    try:
        values = _read_given(kind, given, prefix)
        for name, hint in kind.get_resolvable_fields().items():
            if name in values:
                continue
            value = find(name, hint, *sections)
            inner = extract_inner_hint(hint, preserve_literal=True)
            values[name] = (
                getattr(defaults, name)
                if value is None
                else deserialize_value(prefix + name, value, inner)
            )
        return resolve_configuration(defaults, explicit_value=values)
    except ValueNotSecretException as exc:
        name = exc.key.rpartition(".")[2]
        fact = f"a secret, and it stands in {exc.provider_name}"
        raise refuse(name, fact, "move it to .dlt/secrets.toml") from exc
    except ConfigFieldMissingException as exc:
        name = prefix + min(exc.traces)
        raise refuse(name, "not set", "set it in .dlt/config.toml") from exc
    except ConfigurationException as exc:
        raise _unreadable(exc) from exc


def _read_given(
    kind: type[BaseConfiguration], values: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Read arguments as dlt reads the environment; by itself it doesn't."""
    hints = kind.get_resolvable_fields()
    given = {
        name: value
        for name, value in values.items()
        if value is not None and not isinstance(value, ConfigValueSentinel)
    }
    for name, value in given.items():
        if name not in hints:
            fact = f"{prefix}{name}: no such setting"
            raise ConfigError(fact, "see docs/settings.md for their names")
        hint = extract_inner_type(hints[name])
        if hint in PLAIN and isinstance(value, PLAIN):
            given[name] = deserialize_value(prefix + name, value, hint)
    return given


def _unreadable(exc: Exception) -> ConfigError:
    """Name the setting that dlt couldn't read, without its value."""
    name = getattr(exc, "field_name", None)
    if name is None:
        return ConfigError(f"a setting can't be read: {str(exc).splitlines()[0]}")
    hint = getattr(exc, "hint", None)
    kind = getattr(hint, "__name__", str(hint)).replace("typing.", "")
    remedy = "correct it in .dlt/config.toml or the environment"
    return ConfigError(f"{name}: not a {kind}", remedy)
