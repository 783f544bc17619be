"""How many may be served at once, in all and from one host: no machine can take every slot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.paramserver.workers import Busy


class Slots:
    """An empty host is one that is not known (Unix sockets): bounded with all others only."""

    def __init__(self, most: int, most_of_a_host: int) -> None:
        self._most, self._most_of_a_host = most, most_of_a_host
        self._of_host = Counter[str]()
        self.taken = 0

    @contextmanager
    def one(self, host: str) -> Iterator[None]:
        """A slot while inside. Raises :class:`Busy`."""
        if self.taken >= self._most:
            raise Busy(f"{self.taken} subscribers are being served; try again")
        if host and self._of_host[host] >= self._most_of_a_host:
            raise Busy(f"{self._of_host[host]} subscribers of {host} are being served; try again")
        self.taken += 1
        self._of_host[host] += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._of_host[host] -= 1
            if not self._of_host[host]:
                del self._of_host[host]
