"""How long things took, kept so small that it fits a message and so evenly that many can be added up."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

__all__ = ["Durations"]

WIDTH = 1.1
"""Each cell is so many times as long as the one before: a quantile is at most 5 % off."""
SHORTEST, LONGEST = 0.001, 3600.0


class Durations:
    """Counts in cells of a fixed, geometric width: those of several workers add up to what one would have."""

    def __init__(self, cells: Mapping[int, int] | None = None) -> None:
        """Args: cells is what was counted before, by cell."""
        self._cells: Counter[int] = Counter(cells or {})

    def add(self, seconds: float) -> None:
        """Count one."""
        bounded = min(max(seconds, SHORTEST), LONGEST)
        self._cells[math.ceil(math.log(bounded / SHORTEST, WIDTH))] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds within which that share of them was done; None while nothing is counted."""
        left = share * self._cells.total()
        for cell in sorted(self._cells):
            left -= self._cells[cell]
            if left <= 0:
                middle = SHORTEST * WIDTH**cell * 2 / (1 + WIDTH)
                return round(middle if cell else SHORTEST, 4)
        return None

    def since(self, earlier: "Durations") -> "Durations":
        """What was counted after an earlier look at the same."""
        before = {int(cell): count for cell, count in earlier.to_map().items()}
        return Durations(self._cells - Counter(before))

    def to_map(self) -> dict[str, int]:
        """As plain data, for JSON."""
        return {str(cell): count for cell, count in sorted(self._cells.copy().items())}

    @classmethod
    def joined(cls, maps: Iterable[Mapping[str, int]]) -> "Durations":
        """The sum of several, as `to_map` gave them.

        Raises:
            ValueError, TypeError: not what `to_map` gives.
        """
        total: Counter[int] = Counter()
        for one in maps:
            total.update({int(cell): int(count) for cell, count in one.items()})
        return cls(total)
