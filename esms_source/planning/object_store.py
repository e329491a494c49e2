"""S3, read as AWS's own settings say: for files, and for Delta and Iceberg tables."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from esms_source.exceptions import ConfigError, RefIdTableError
from esms_source.redaction import first_line

if TYPE_CHECKING:
    from esms_source.exceptions import EsmsError

CONNECT_SECONDS: Final = 10
READ_SECONDS: Final = 30
ATTEMPTS: Final = 3
"""How long a request to S3 may take, and how often it is made in all."""

BLOCK_BYTES: Final = 1024 * 1024
"""What s3fs reads beyond what DuckDB asks for: its own 50 MB are for whole files."""

PLACES: Final = re.compile(r"""s3a?://[^'"\s]+""", re.IGNORECASE)
"""Places in S3 that a text names."""

KEYS: Final = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


def need(module: str, extra: str) -> Any:  # noqa: ANN401  untyped, or not installed
    """Import a module that an extra brings.

    Raises:
        ConfigError: It isn't installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as exc:
        fact = f"the package {module.partition('.')[0]!r} is not installed"
        raise ConfigError(fact, f"pip install esms-source[{extra}]") from exc


class ObjectStore:
    """S3, or what speaks like it, as AWS's environment, profile or role name it.

    Attributes:
        files: Its files, as fsspec shows them to DuckDB.

    Raises:
        ConfigError: s3fs isn't installed, or there are no credentials.
    """

    def __init__(self) -> None:
        s3fs = need("s3fs", "s3")
        self._error = need("botocore.exceptions", "s3").BotoCoreError
        self._session = need("botocore.session", "s3").get_session()
        try:
            self._keys = self._session.get_credentials()
        except self._error as exc:
            raise _no_credentials(first_line(exc)) from None
        if self._keys is None:
            raise _no_credentials("there are none")
        # fsspec would hand out another run's instance, with the listings it remembers.
        self.files = s3fs.S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            default_block_size=BLOCK_BYTES,
            config_kwargs={
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": READ_SECONDS,
                "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
            },
        )

    def delta_options(self) -> dict[str, str]:
        """Return the same settings as deltalake takes them."""
        settings = self._settings()
        return {f"aws_{name}": value for name, value in settings.items()} | {
            "allow_http": str(settings["endpoint_url"].startswith("http:")).lower(),
            "connect_timeout": f"{CONNECT_SECONDS}s",
            "timeout": f"{READ_SECONDS}s",
            "max_retries": str(ATTEMPTS - 1),
        }

    def iceberg_properties(self) -> dict[str, str]:
        """Return the same settings as pyiceberg takes them."""
        settings = self._settings()
        settings["endpoint"] = settings.pop("endpoint_url")
        return {f"s3.{k.replace('_', '-')}": value for k, value in settings.items()} | {
            "s3.connect-timeout": str(CONNECT_SECONDS),
            "s3.request-timeout": str(READ_SECONDS),
        }

    def refusal(self, text: str) -> EsmsError | None:
        """Say why a place in S3 that a text names can't be read, if that is so."""
        found = (self._refusal(place) for place in PLACES.findall(text))
        return next(filter(None, found), None)

    def _settings(self) -> dict[str, str]:
        keys = self._keys.get_frozen_credentials()
        meta = self._session.create_client("s3").meta
        settings = {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "session_token": keys.token,
            "endpoint_url": meta.endpoint_url,
            "region": meta.region_name,
        }
        return {name: value for name, value in settings.items() if value}

    def _refusal(self, place: str) -> EsmsError | None:
        path = place.partition("://")[2]
        bucket = path.partition("/")[0]
        folder = re.split(r"[*?\[]", path)[0].rpartition("/")[0] or bucket
        try:
            self.files.ls(folder)
        except FileNotFoundError as exc:
            there_is_none = "bucket does not exist" in str(exc)
            what = f"bucket {bucket!r}" if there_is_none else f"folder {folder!r}"
            return RefIdTableError(f"there is no {what} in S3", "correct ref_ids.query")
        except PermissionError as exc:
            fact = f"S3 refuses to list {folder!r}: {first_line(exc)}"
            remedy = "allow these AWS keys s3:ListBucket and s3:GetObject there"
            return RefIdTableError(fact, f"{remedy}, or {KEYS}")
        except (self._error, OSError) as exc:
            fact = f"S3 can't be reached: {first_line(exc)}"
            return RefIdTableError(fact, "check AWS_ENDPOINT_URL and the network")
        return None


def _no_credentials(why: str) -> ConfigError:
    return ConfigError(f"no AWS credentials for S3 can be used: {why}", KEYS)
