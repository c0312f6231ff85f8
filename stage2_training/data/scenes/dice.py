"""Randomness that is identical on every machine: integers from a hash, no floating point, no library's generator."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A stream of integers that depends only on its name."""

    def __init__(self, name: str) -> None:
        self.name, self.rolled = name, 0

    def roll(self, sides: int) -> int:
        """0 to sides - 1."""
        self.rolled += 1
        digest = hashlib.sha256(f"{self.name}\0{self.rolled}".encode()).digest()
        return int.from_bytes(digest[:8], "little") % sides

    def between(self, low: int, high: int) -> int:
        """low to high, both included."""
        return low + self.roll(high - low + 1)

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.roll(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        left = list(items)
        return [left.pop(self.roll(len(left))) for _ in range(len(left))]
