"""One budget for all processes that ask with the same key: a window they share."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from filelock import FileLock
from pyrate_limiter import Rate, RateItem, SQLiteBucket

from esms_source.config.credentials import URL_FORM
from esms_source.exceptions import ConfigError, EsmsError
from esms_source.polling.rate_limit import RateLimiter, Window
from esms_source.redaction import first_line, hide_names
from esms_source.tables import CALLBACK, QUERY

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pyrate_limiter import AbstractBucket

    from esms_source.config import Settings
    from esms_source.polling.rate_limit import Slot
    from esms_source.runtime import Stop

WINDOW_MILLISECONDS: Final = 1_070
"""How long a request counts: the API's second, and a margin.

25 ms of it are for requests that leave late, the rest for uneven travel.
"""

LATE_SECONDS: Final = 0.025
"""A request that left later than this after it was granted counts once more."""

SPARE_SECONDS: Final = 0.1
"""So long a slot that was given back serves another request of the process."""

SHORTEST_WAIT: Final = 0.002
LOCK_POLL_SECONDS: Final = 0.002
CONNECT_SECONDS: Final = 10
LEAK_EVERY: Final = 50
NO_LIMIT: Final = 1_000_000

SQLITE: Final = "sqlite:///"

_WINDOWS: Final[dict[tuple[str, str], Window]] = {}
"""The windows of this process, by key and address."""


class Budget:
    """A window of requests in a database, kept by PyrateLimiter.

    A slot ends with its window, so that a killed process holds nothing back.

    Args:
        make_bucket: Opens the window's table, with a limit of its own each time.
        rate: Requests in a window, of all processes together.
        lock: Returns what keeps other processes out.
        close: Lets the database go.
        errors: What the database raises.

    Attributes:
        taken_at: When the last slot was taken, in monotonic seconds.
    """

    def __init__(
        self,
        make_bucket: Callable[[Rate], AbstractBucket],
        rate: int,
        lock: Callable[[], AbstractContextManager[object]],
        close: Callable[[], object],
        errors: tuple[type[Exception], ...],
    ) -> None:
        self.taken_at = float("-inf")
        self.close = close
        self.errors = errors
        self._granting = make_bucket(Rate(rate, WINDOW_MILLISECONDS))
        self._noting = make_bucket(Rate(NO_LIMIT, WINDOW_MILLISECONDS))
        self._lock = lock
        self._threads = threading.Lock()
        self._granted = 0

    def take(self) -> float:
        """Take a slot and return 0, or return the seconds until one may be free."""
        with self._threads, self._lock():
            # Not later than the item's own time, as lateness is counted from it.
            self.taken_at = time.monotonic()
            item = self._item()
            if self._granting.put(item):
                self._granted += 1
                if self._granted % LEAK_EVERY == 0:
                    self._granting.leak(item.timestamp)
                return 0.0
            wait = cast("int", self._granting.waiting(item))
        # Another process that writes at the moment refuses a put as well.
        return max(wait / 1_000, random.uniform(1, 2) * SHORTEST_WAIT)  # noqa: S311

    def note(self) -> None:
        """Count a request that leaves now, whether there is room or not."""
        with self._threads, self._lock():
            while not self._noting.put(self._item()):
                threading.Event().wait(SHORTEST_WAIT)

    def _item(self) -> RateItem:
        now: int = self._granting.now()  # type: ignore[no-untyped-call]
        return RateItem("request", now)


class SharedRateLimiter(RateLimiter):
    """Give leave only where this process and all processes together have room.

    This process keeps its own window, spacing and slower pace after a refusal.
    The shared window counts a request from when it was granted, and once more
    from when it left where that was late.

    Args:
        rate: Requests a second, of all processes together.
        stop: Monotonic time; told to stop when the budget can't be reached.
        budget: The shared window.
        least_silence: Seconds of silence after a refusal, at least.
        window: What counts already in this process.
    """

    def __init__(
        self,
        rate: float,
        stop: Stop,
        budget: Budget,
        least_silence: float = 1.0,
        window: Window | None = None,
    ) -> None:
        super().__init__(rate, stop, least_silence, window)
        self._stop = stop
        self._budget = budget
        self._line = threading.Lock()
        self._spare_at = float("-inf")

    def acquire(self) -> Slot | None:
        """Wait for leave to send; None when the run is to stop."""
        with self._line:
            slot = super().acquire()
            if slot is None:
                return None
            granted_at = self._take()
            if granted_at is None:
                super().release(slot)
                return None
            with self._window.lock:
                slot.granted_at = self._window.last_granted_at = granted_at
            return slot

    def release(self, slot: Slot) -> None:
        """Give back a slot that wasn't used; whoever is next may have it."""
        super().release(slot)
        self._spare_at = slot.granted_at

    def sent(self, slot: Slot) -> None:
        """Note that the request of a slot has left; the first note counts."""
        is_first = slot.sent_at is None
        super().sent(slot)
        if is_first and (slot.sent_at or 0.0) - slot.granted_at > LATE_SECONDS:
            try:
                self._budget.note()
            except self._budget.errors as exc:
                self._stop(_lost(exc))

    def close(self) -> None:
        """End asking, and let the budget's database go."""
        super().close()
        self._budget.close()

    def _take(self) -> float | None:
        """Wait for room in the shared window; return when it was there."""
        spare_at, self._spare_at = self._spare_at, float("-inf")
        if self._stop.monotonic() - spare_at < SPARE_SECONDS:
            return spare_at
        try:
            while wait := self._budget.take():
                if self._stop.wait(wait):
                    return None
        except self._budget.errors as exc:
            self._stop(_lost(exc))
            return None
        return self._budget.taken_at


def open_limiter(
    settings: Settings,
    stop: Stop,
    least_silence: float = 1.0,
    endpoint: str = CALLBACK,
) -> RateLimiter:
    """Return the limiter that the settings ask for; each endpoint has one of its own.

    Raises:
        ConfigError: The shared budget can't be opened.
    """
    store, rate, url = (
        settings.rate_limit_store,
        settings.requests_per_second,
        settings.base_url,
    )
    key, _ = settings.require_credentials()
    # Whoever asks with the same key shares a table; the key can't be read from it.
    table = f"esms_{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if endpoint == QUERY:
        table, url = f"{table}_{endpoint}", str(settings.rest_url)
        rate = settings.query_requests_per_second
    # It outlives a run: the next one may begin within the second.
    window = _WINDOWS.setdefault((table, url), Window())
    if store == "memory":
        return RateLimiter(rate, stop, least_silence, window)
    opening = _open_sqlite if store.startswith(SQLITE) else _open_postgres
    budget = opening(store, table, int(rate))
    return SharedRateLimiter(rate, stop, budget, least_silence, window)


def _open_sqlite(store: str, table: str, rate: int) -> Budget:
    errors = (sqlite3.Error, OSError)
    path = store.removeprefix(SQLITE)
    remedy = "name a file in a folder that is there and can be written to"
    if not Path(path).parent.is_dir():
        raise _unusable(FileNotFoundError(f"there is no folder for {path!r}"), remedy)
    limit = Rate(rate, WINDOW_MILLISECONDS)
    try:
        _try_lock(Path(f"{path}.lock"))
        first = SQLiteBucket.init_from_file(
            [limit], table, path, use_file_lock=True, create_new_table=True
        )
    except errors as exc:
        raise _unusable(exc, remedy) from exc
    lock: FileLock = first.limiter_lock()  # type: ignore[no-untyped-call]

    def make_bucket(rate: Rate) -> AbstractBucket:
        return SQLiteBucket([rate], first.conn, table, lock=lock)

    def locked() -> AbstractContextManager[object]:
        return lock.acquire(CONNECT_SECONDS, poll_interval=LOCK_POLL_SECONDS)

    return Budget(make_bucket, rate, locked, first.close, errors)


def _try_lock(path: Path) -> None:
    """Refuse a lock that can't be made, or that somebody holds for long.

    PyrateLimiter would wait for it without end, deaf to signals.
    """
    path.open("ab").close()
    with FileLock(path, timeout=CONNECT_SECONDS):
        pass


def _open_postgres(store: str, table: str, rate: int) -> Budget:
    try:
        import psycopg  # noqa: PLC0415  an extra
        from psycopg.conninfo import conninfo_to_dict, make_conninfo  # noqa: PLC0415
        from psycopg_pool import ConnectionPool, PoolTimeout  # noqa: PLC0415
        from pyrate_limiter import PostgresBucket  # noqa: PLC0415
    except ImportError as exc:
        raise _unusable(exc, "pip install esms-source[postgres]") from exc
    errors = (psycopg.Error, PoolTimeout)
    try:
        given = conninfo_to_dict(store)
    except (psycopg.Error, ValueError):
        fact = "rate_limit_store isn't a URL of PostgreSQL"
        raise ConfigError(fact, URL_FORM) from None
    try:
        # The table's times bear no zone, so that all must write them in one; and
        # what counts for a second needn't survive a crash of the server.
        ours = "-c TimeZone=UTC -c synchronous_commit=off"
        options = f"{given.get('options') or ''} {ours}"
        timeout: Any = given.get("connect_timeout") or CONNECT_SECONDS
        url = make_conninfo(store, options=options, connect_timeout=timeout)
        psycopg.connect(url).close()
        pool = ConnectionPool(url, min_size=1, max_size=2, open=True)
    except errors as exc:
        raise _unusable(exc, "correct its host, user and password") from None

    def make_bucket(rate: Rate) -> AbstractBucket:
        return PostgresBucket(pool, table, [rate])

    try:
        return Budget(make_bucket, rate, nullcontext, pool.close, errors)
    except errors as exc:
        pool.close()
        remedy = "let its user create tables, or name a schema: ?options=-csearch_path="
        raise _unusable(exc, remedy) from exc


def _unusable(exc: Exception, remedy: str) -> ConfigError:
    fact = f"rate_limit_store can't be used: {hide_names(first_line(exc))}"
    return ConfigError(fact, f"{remedy} (SOURCES__ESMS__RATE_LIMIT_STORE)")


def _lost(exc: Exception) -> EsmsError:
    text = hide_names(first_line(exc))
    fact = f"the shared budget can't be reached any more: {text}"
    return EsmsError(fact, "what was answered is kept; run again")
