"""How long to wait before asking again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Seconds to wait before a request is sent again.

    Attributes:
        whole: Before the second attempt of a batch; it doubles from there.
        part: The same for a part of a batch: waiting didn't help the whole one.
        most: At most, between two attempts.
        refused: Silence of all requests after a refusal for the rate, at least.
            Source: section 6.3 of the contract.
    """

    whole: float = 0.5
    part: float = 0.1
    most: float = 30.0
    refused: float = 1.0
