"""What is to be sent on a stream: taken together, as much as gathered while the former message was on its way."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")

#: Items in one message; far below what a message may hold.
AT_ONCE = 1024


class Outbox(Generic[T]):
    """For one event loop. Whoever puts bounds how much (a question of each worker, say)."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._there = asyncio.Event()

    def put(self, item: T) -> None:
        self._items.append(item)
        self._there.set()

    async def take(self) -> list[T]:
        """At least one item."""
        await self._there.wait()
        taken, self._items = self._items[:AT_ONCE], self._items[AT_ONCE:]
        if not self._items:
            self._there.clear()
        return taken
