"""What the settings on people's data hide: phones, and tokens in a callback's URL."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from esms_source.storable import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esms_source.config import Settings

QUERY_OF_URL: Final = r"(?s)[?#].*"


class Privacy:
    """Hide what the settings want hidden, in columns and in JSON."""

    def __init__(self, settings: Settings) -> None:
        self._policy = settings.phone_number
        self._key = str(settings.phone_hash_key).encode()
        self._keep_query = settings.keep_callback_query

    def hide_phones(self, phones: pa.Array) -> pa.Array:
        """Return a column of phones as it may be loaded."""
        if self._policy == "plain":
            return phones
        hidden = [None if p is None else self._hidden(p) for p in phones.to_pylist()]
        return pa.array(hidden, phones.type)

    def hashes(self, phones: Iterable[str]) -> list[str]:
        """Return what stands for phones in their column, where they are hashed."""
        if self._policy != "hash":
            return []
        return [hashed for phone in phones if (hashed := self._hidden(phone))]

    def cut_queries(self, urls: pa.Array) -> pa.Array:
        """Return a column of URLs as it may be loaded."""
        if self._keep_query:
            return urls
        return pc.replace_substring_regex(urls, QUERY_OF_URL, "")

    def scrub(self, value: Any) -> Any:  # noqa: ANN401  any JSON value
        """Hide phones and cut queries in a value that goes to a JSON column."""
        if isinstance(value, list):
            return [self.scrub(item) for item in value]
        if not isinstance(value, dict):
            return value
        scrubbed: dict[str, Any] = {}
        for name, item in value.items():
            if item is None:
                scrubbed[name] = None
            elif self._policy != "plain" and "phone" in name.lower():
                scrubbed[name] = self._hidden(_as_text(item))
            elif not self._keep_query and name.lower().startswith("callbackurl"):
                url = _as_text(item)
                scrubbed[name] = url.partition("?")[0].partition("#")[0]
            else:
                scrubbed[name] = self.scrub(item)
        return scrubbed

    def _hidden(self, phone: str) -> str | None:
        if self._policy == "drop":
            return None
        return hmac.new(self._key, phone.encode(), hashlib.sha256).hexdigest()


def _as_text(value: Any) -> str:  # noqa: ANN401  any JSON value
    return value if isinstance(value, str) else to_json(value)
