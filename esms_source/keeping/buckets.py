"""Buckets that keep a lake: whether they can be reached, before anything is asked."""

from __future__ import annotations

from typing import Any, Final

from esms_source.exceptions import DestinationError
from esms_source.redaction import first_line

_STORES: Final = ("botocore", "aiobotocore", "gcsfs", "azure", "google")
"""Packages whose errors say that a bucket can't be reached."""


def list_bucket(client: Any) -> None:  # noqa: ANN401  dlt's client of files
    """List a lake's folder in its bucket: it needn't be there yet.

    Raises:
        DestinationError: There is no such bucket, or it can't be listed.
    """
    place = f"{client.config.protocol}://{client.bucket_path}"
    try:
        client.fs_client.ls(client.bucket_path)
    except FileNotFoundError as exc:
        if "bucket" not in str(exc):
            return
        fact = f"there is no bucket for {place}"
        remedy = "make it, or correct DESTINATION__FILESYSTEM__BUCKET_URL"
        raise DestinationError(fact, remedy) from exc
    except PermissionError as exc:
        fact = f"{place} can't be listed: {first_line(exc)}"
        raise DestinationError(fact, "let these keys list, read and write") from exc
    except Exception as exc:
        kind = type(exc).__module__.partition(".")[0]
        if not (isinstance(exc, OSError) or kind in _STORES):
            raise
        fact = f"{place} can't be reached: {first_line(exc)}"
        remedy = "check its endpoint, its keys and the network"
        raise DestinationError(fact, remedy) from exc
