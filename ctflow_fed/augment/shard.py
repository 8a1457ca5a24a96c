"""Parts of a plan, for jobs that do not talk to one another."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ctflow_fed.errors import SettingsError

__all__ = ["WHOLE", "Shard"]

MOST = 10_000

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """The ``number``-th of ``count`` parts of a plan; the first is number 1."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= MOST:
            raise SettingsError(
                "a shard must be K/N, from 1/N to N/N, got another number; "
                "SLURM counts so with --array=1-N"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``3/16``, the third of sixteen."""
        if re.fullmatch(r"[0-9]{1,5}/[0-9]{1,5}", text) is None:
            raise SettingsError("a shard must be K/N, as in 3/16, the third of sixteen")
        number, count = map(int, text.split("/"))
        return cls(number, count)

    @property
    def name(self) -> str:
        """What is added to the names of this part's files; nothing for the whole."""
        return "" if self == WHOLE else f"-{self.number}-of-{self.count}"

    def part(self, items: Sequence[Item]) -> list[Item]:
        """Return its items, every ``count``-th, so that all parts are alike."""
        return list(items[self.number - 1 :: self.count])


WHOLE = Shard(1, 1)
