"""The rows of a run of any length in a fixed number of them, for whoever draws its curves."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.observe.rows import Row, take_back

#: As many as a screen has columns for.
POINTS = 500


class Curve:
    """Keeps at most ``2 * points`` rows of the last lineage, evenly: when they become more, every second one is let go,
    and from then on every second one is taken in. The newest is always there."""

    def __init__(self, points: int = POINTS) -> None:
        self._points = points
        self._kept: list[Row] = []
        self._newest: Row | None = None
        self._seen, self._stride = 0, 1

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            take_back(self._kept, row)
            if self._seen % self._stride == 0:
                self._kept.append(row)
            self._seen, self._newest = self._seen + 1, row
            if len(self._kept) >= 2 * self._points:
                self._kept, self._stride = self._kept[::2], self._stride * 2

    def rows(self) -> list[Row]:
        """Oldest first."""
        if self._newest is None or (self._kept and self._kept[-1] is self._newest):
            return list(self._kept)
        return [*self._kept, self._newest]

    @property
    def newest(self) -> Row | None:
        return self._newest
