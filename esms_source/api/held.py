"""What answers may take in memory: while they are received, and until they are rows."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from esms_source.api.deadlines import seconds_left
from esms_source.exceptions import TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024

MAX_RECEIVED_BYTES: Final = 12 * 1024 * 1024
"""What answers may take that are being received or wait to be read.

One more of ``MAX_ANSWER_BYTES`` may come in any case, so that somebody goes on.
"""

MAX_READ_BYTES: Final = 16 * 1024 * 1024
"""What answers take that were read and aren't rows yet; above it no other is read."""

ROW_BYTES: Final = 200
"""What a row takes besides its text."""


def weight(content: bytearray, rows: int) -> int:
    """Return about how many bytes an answer takes once it is read."""
    # One letter of Vietnamese makes Python take two bytes a letter, an emoji four.
    width = 1 if content.isascii() else 4 if b"\xf0" in content else 2
    return width * len(content) + rows * ROW_BYTES


class ReceivedBytes:
    """Bound what all answers take together that are being received."""

    def __init__(self, most: int = MAX_RECEIVED_BYTES) -> None:
        self._most = most
        self._taken = 0
        self._extra: Share | None = None
        self._changed = threading.Condition()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Hold room for one answer, as it grows, until the block ends."""
        share = Share(self)
        try:
            yield share
        finally:
            with self._changed:
                self._taken -= share.size
                if self._extra is share:
                    self._extra = None
                self._changed.notify_all()

    def take(self, share: Share, size: int) -> None:
        """Let an answer grow; wait for room, at most until the attempt's end.

        Raises:
            TransportError: There was no room in time.
        """
        with self._changed:
            while not self._has_room(share, size):
                try:
                    self._changed.wait(seconds_left())
                except TimeoutError:
                    text = "time-out: too many large answers at once"
                    raise TransportError(text) from None
            self._taken += size
            share.size += size

    def _has_room(self, share: Share, size: int) -> bool:
        if self._taken + size <= self._most:
            return True
        # One may always go on, so that not all wait for each other.
        if self._extra is None:
            self._extra = share
        return self._extra is share


class Share:
    """The room of one answer.

    Attributes:
        size: Bytes that it takes.
    """

    def __init__(self, received: ReceivedBytes) -> None:
        self.size = 0
        self._received = received

    def grow(self, size: int) -> None:
        """Take more room.

        Raises:
            TransportError: There was none in time.
        """
        self._received.take(self, size)


class UnloadedBytes:
    """Count what answers take that were read and aren't rows yet."""

    def __init__(self, most: int = MAX_READ_BYTES) -> None:
        self._most = most
        self._size = 0
        self._changed = threading.Condition()

    def wait(self) -> None:
        """Wait until there is room; whoever makes rows of the answers makes it."""
        with self._changed:
            self._changed.wait_for(lambda: self._size < self._most)

    def add(self, size: int) -> None:
        """Count an answer in, or out with a negative size."""
        with self._changed:
            self._size += size
            self._changed.notify_all()
