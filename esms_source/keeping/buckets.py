"""Buckets that keep a lake: whether they can be reached, and copies of their files."""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, finalize

from esms_source.exceptions import DestinationError
from esms_source.redaction import first_line
from esms_source.runtime import ScratchFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import dlt

_STORES: Final = ("aiohttp", "botocore", "aiobotocore", "gcsfs", "azure", "google")
"""Packages whose errors say that a bucket can't be reached."""


class Copies:
    """Copies of a bucket's files on this disk, each made once.

    DuckDB would ask for one part of one file after another. Nobody changes a file of
    a load that has completed, so a copy stays good.
    """

    def __init__(self) -> None:
        self._folder = ScratchFolder()
        self._paths: dict[str, str] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.drop = self._folder.cleanup

    def __call__(self, client: Any, urls: Sequence[str]) -> list[str]:  # noqa: ANN401
        """Copy what isn't here yet, all together; return the paths of the copies.

        Args:
            client: dlt's client of files.
            urls: Of files in its bucket.

        Raises:
            DestinationError: A file is gone, or the bucket can't be reached.
        """
        with self._lock:
            new = [url for url in urls if url not in self._paths]
            names = [f"{next(self._numbers)}{Path(url).suffix}" for url in new]
            paths = [str(Path(self._folder.name, name)) for name in names]
            if new:
                try:
                    with _telling(client):
                        client.fs_client.get(new, paths)
                except FileNotFoundError as exc:
                    fact = "a file of the lake went away while it was read"
                    raise DestinationError(fact, "try again") from exc
            self._paths |= zip(new, paths, strict=True)
            return [self._paths[url] for url in urls]


_COPIES: Final[WeakKeyDictionary[dlt.Pipeline, Copies]] = WeakKeyDictionary()


def copies_of(pipeline: dlt.Pipeline) -> Copies:
    """Return the copies of what a pipeline has read: they end with it."""
    if pipeline not in _COPIES:
        made = _COPIES[pipeline] = Copies()
        finalize(pipeline, made.drop)
    return _COPIES[pipeline]


def list_bucket(client: Any) -> None:  # noqa: ANN401  dlt's client of files
    """List a lake's folder in its bucket: it needn't be there yet.

    Raises:
        DestinationError: There is no such bucket, or it can't be listed.
    """
    with suppress(FileNotFoundError), _telling(client):
        client.fs_client.ls(client.bucket_path)


@contextmanager
def _telling(client: Any) -> Iterator[None]:  # noqa: ANN401  dlt's client of files
    place = f"{client.config.protocol}://{client.bucket_path}"
    try:
        yield
    except FileNotFoundError as exc:
        if "bucket" not in str(exc):
            raise
        fact = f"there is no bucket for {place}"
        remedy = "make it, or correct DESTINATION__FILESYSTEM__BUCKET_URL"
        raise DestinationError(fact, remedy) from exc
    except PermissionError as exc:
        fact = f"{place} can't be read: {first_line(exc)}"
        raise DestinationError(fact, "let these keys list, read and write") from exc
    except Exception as exc:
        kind = type(exc).__module__.partition(".")[0]
        if not (isinstance(exc, OSError) or kind in _STORES):
            raise
        fact = f"{place} can't be reached: {first_line(exc)}"
        remedy = "check its endpoint, its keys and the network"
        raise DestinationError(fact, remedy) from exc
