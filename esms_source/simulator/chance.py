"""Repeatable chance: rolls that depend on a text and on nothing else."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")


class Dice:
    """Rolls drawn from one 512-bit digest; the same parts give the same rolls."""

    def __init__(self, *parts: object) -> None:
        # surrogatepass: JSON can carry half a surrogate pair, and any RefId is asked.
        text = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
        self._left = int.from_bytes(blake2b(text).digest(), "big")

    def roll(self, sides: int) -> int:
        """Return a number from 0 up to, not including, ``sides``."""
        self._left, shown = divmod(self._left, sides)
        return shown

    def once_in(self, sides: int) -> bool:
        """Return true once in so many rolls."""
        return self.roll(sides) == 0

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, each as likely as the others."""
        return options[self.roll(len(options))]


def deck(weights: Mapping[T, int]) -> tuple[T, ...]:
    """Return each key as often as its weight says, to pick from."""
    return tuple(key for key, weight in weights.items() for _ in range(weight))
