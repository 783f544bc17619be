"""What a person sees while several seeds are trained: a line for each, live on a terminal, a line every so often and
for each event anywhere else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

from headrace.observe.rows import Row
from headrace.observe.table import REFRESH_S, SPARK_COLUMNS, History, eta, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Between two lines of a seed where there is no terminal.
_LINE_S = 10.0


@dataclass
class Progress:
    """Of one seed. ``state``: waiting, running, or how it ended."""

    seed: int
    state: str = "waiting"
    row: Row | None = None
    returns: History = field(default_factory=lambda: History(SPARK_COLUMNS))

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.row = row
            if row["return_mean"] is not None:
                self.returns.add(row["env_steps"], row["return_mean"])


class Display(Protocol):
    """``show`` as often as you like; ``tell`` an event once."""

    def show(self, seeds: Sequence[Progress]) -> None: ...

    def tell(self, message: str) -> None: ...

    def close(self, seeds: Sequence[Progress]) -> None: ...


def open_display(title: str, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Display:
    """A live table where ``stream`` is a terminal that can move its cursor, else lines."""
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        return SeedsTable(title, stream, clock)
    return SeedsLines(stream, clock)


class SeedsLines:
    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream, self._clock, self._shown_s = stream, clock, clock()

    def show(self, seeds: Sequence[Progress]) -> None:
        if self._clock() - self._shown_s < _LINE_S:
            return
        self._shown_s = self._clock()
        for progress in seeds:
            if progress.state == "running" and progress.row is not None:
                self.tell(f"seed {progress.seed}: {one_line(progress.row)}")

    def tell(self, message: str) -> None:
        print(message, file=self._stream, flush=True)

    def close(self, seeds: Sequence[Progress]) -> None:
        pass


class SeedsTable:
    """Drawing is rationed (twice a second): the cores belong to the trainings."""

    def __init__(self, title: str, stream: TextIO, clock: Callable[[], float]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._title, self._clock, self._shown_s = title, clock, float("-inf")
        console = Console(file=stream, force_terminal=True, no_color="NO_COLOR" in os.environ, highlight=False)
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, seeds: Sequence[Progress]) -> None:
        if self._clock() - self._shown_s >= REFRESH_S:
            self._live.update(self._draw(seeds), refresh=True)
            self._shown_s = self._clock()

    def tell(self, message: str) -> None:
        self._live.console.print(message, markup=False)

    def close(self, seeds: Sequence[Progress]) -> None:
        self._live.update(self._draw(seeds), refresh=True)
        self._live.stop()

    def _draw(self, seeds: Sequence[Progress]) -> RenderableType:
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2, 0, 0))
        for progress in seeds:
            cells: list[RenderableType] = [Text(f"seed {progress.seed}", style="dim")]
            if (row := progress.row) is None:
                grid.add_row(*cells, "", progress.state)
                continue
            total = max(1, row["total_steps"])
            cells.append(ProgressBar(total=total, completed=min(total, row["env_steps"]), width=20))
            running = progress.state == "running"
            cells.append(f"{eta(row)}, {row['steps_per_s']:,.0f} steps/s" if running else progress.state)
            cells.append("" if row["return_mean"] is None else Text(f"{row['return_mean']:.1f}", style="bold"))
            cells.append(Text(progress.returns.line(), style="cyan"))
            grid.add_row(*cells)
        return Panel(grid, title=Text(self._title, style="bold"), title_align="left", border_style="dim")
