"""Rings of rows: the latest so many of several columns, found by their serial number, saved in blocks.

    append --> | block 0 | block 1 | ... | block n | --> take(serials)
                    \\________ blocks() ________/   a checkpoint writes those that changed, and links the others

Memory is taken in whole, and touched, when a ring is made: it does not grow later.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from headrace.algorithms.base import Block
from headrace.common.errors import UsageError
from headrace.common.types import Array

#: Bytes a block has at most (a row at least): what a checkpoint copies at a time, and writes again where a row changed.
BLOCK_BYTES = 16 << 20


class Ring:
    """``rows`` rows of columns like those of ``like`` (their dtypes and trailing shapes). Rows are known by their
    serial number, counted from 0 as they came in; number s stands in slot s % ``rows``."""

    def __init__(self, rows: int, like: Mapping[str, Array], written: int = 0) -> None:
        self.rows, self.written = rows, written
        self._columns = {name: _touched(rows, column) for name, column in like.items()}
        self._block_rows = max(1, BLOCK_BYTES // max(1, self.nbytes // rows))
        self._blocks: list[Block | None] = [None] * -(-rows // self._block_rows)

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self._columns.values())

    @property
    def names(self) -> list[str]:
        """Of its columns."""
        return list(self._columns)

    @property
    def oldest(self) -> int:
        """The lowest serial number still held."""
        return max(0, self.written - self.rows)

    def append(self, columns: Mapping[str, Array]) -> None:
        """Write rows over the oldest ones. Of more than fit only the last stay."""
        count = len(next(iter(columns.values())))
        at = max(0, count - self.rows)
        while at < count:
            slot = (self.written + at) % self.rows
            n = min(count - at, self.rows - slot)
            self._let_go(slot, slot + n)
            for name, column in columns.items():
                self._columns[name][slot : slot + n] = column[at : at + n]
            at += n
        self.written += count

    def take(self, name: str, serials: Array, out: Array | None = None) -> Array:
        """The rows ``serials`` (int64, of any shape) of a column, into ``out`` where that is given."""
        return np.take(self._columns[name], serials % self.rows, axis=0, out=out, mode="clip")

    def at(self, name: str, serial: int) -> int:
        """One number of a column of whole numbers."""
        return int(self._columns[name][serial % self.rows])

    def like(self, name: str) -> Array:
        """An array of no rows, with a column's dtype and trailing shape."""
        return self._columns[name][:0]

    # --- blocks ----------------------------------------------------------------------------------------------------

    def blocks(self, name: str) -> dict[str, Block]:
        """What is held, as ``name.<number>``, without a copy: a block that is written over before it was saved is
        copied then."""
        used = min(self.written, self.rows)
        count = -(-used // self._block_rows)
        for j in range(count):
            self._blocks[j] = self._blocks[j] or Block(self._view(j, used))
        return {f"{name}.{j:06d}": block for j, block in enumerate(self._blocks[:count]) if block}

    @classmethod
    def restored(cls, rows: int, written: int, blocks: Mapping[str, Block]) -> Ring:
        """The ring that ``blocks`` came from. Raises :class:`UsageError` where they are not all there."""
        ring: Ring | None = None
        at, used = 0, min(written, rows)
        for _, block in sorted(blocks.items()):
            columns = block.read()
            ring = ring or cls(rows, columns, written)
            n = len(next(iter(columns.values())))
            if columns.keys() != ring._columns.keys() or at + n > used:
                break
            for name, column in columns.items():
                ring._columns[name][at : at + n] = column
            j = at // ring._block_rows
            view = ring._view(j, used)
            if at % ring._block_rows == 0 and len(next(iter(view.values()))) == n:
                ring._blocks[j] = Block(view, block.sha256)  # as it was saved: need not be again
            at += n
        if ring is None or at != used:
            raise UsageError(f"replay: the saved blocks hold {at} rows, {used} are needed")
        return ring

    def _view(self, j: int, used: int) -> dict[str, Array]:
        first, end = j * self._block_rows, min((j + 1) * self._block_rows, used)
        return {name: column[first:end] for name, column in self._columns.items()}

    def _let_go(self, first: int, end: int) -> None:
        """Slots first to end will be written over."""
        for j in range(first // self._block_rows, -(-end // self._block_rows)):
            if block := self._blocks[j]:
                block.detach()
                self._blocks[j] = None


def _touched(rows: int, like: Array) -> Array:
    """Rows like those of ``like``, their pages in memory (np.zeros would put that off)."""
    column = np.empty((rows, *like.shape[1:]), like.dtype)
    column.fill(0)
    return column
