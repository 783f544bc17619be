"""What a person sees while a run goes on: a live table on a terminal, plain lines anywhere else.

    display = open_display("lunarlander-ppo", sys.stdout)
    display.show(tail.new_rows(), Notes(bottleneck=verdict.sentence))     # as often as you like
    display.close()

Drawing is rationed (twice a second at most, a plain line every five): the cores belong to the training.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from headrace.observe.evaluations import with_interval
from headrace.observe.rows import Row

if TYPE_CHECKING:
    from rich.console import RenderableType

BARS = "▁▂▃▄▅▆▇█"
SPARK_COLUMNS = 40
REFRESH_S = 0.5
LINE_S = 5.0
MESSAGES_KEPT = 5


@dataclass(frozen=True, slots=True)
class Notes:
    """What the rows do not know. ``messages`` are events to tell once ("actor 1 started again after SIGKILL").
    ``evaluation``: the newest line of evaluations.jsonl, if there is one."""

    bottleneck: str = ""
    restarts: Mapping[str, int] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)


class Display(Protocol):
    """``show`` takes the rows since the last call (none is fine) and the present notes; draws when it is time."""

    def show(self, rows: Sequence[Row], notes: Notes) -> None: ...

    def close(self) -> None:
        """Draw the last state and leave it standing. Idempotent."""


def open_display(title: str, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Display:
    """A :class:`Table` where ``stream`` is a terminal that can move its cursor, else :class:`Lines`.

    ``NO_COLOR`` (any value) takes the colours away.
    """
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        return Table(title, stream, clock, color="NO_COLOR" not in os.environ)
    return Lines(stream, clock)


class Lines:
    """One line every five seconds, and one for each message at once."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock
        self._shown_s = float("-inf")
        self._waiting: Row | None = None
        self._bottleneck = self._evaluated = ""

    def show(self, rows: Sequence[Row], notes: Notes) -> None:
        for message in notes.messages:
            self._say(message)
        if rows:
            self._waiting = rows[-1]
        self._bottleneck, self._evaluated = notes.bottleneck, evaluated(notes.evaluation)
        if self._clock() - self._shown_s >= LINE_S:
            self._print()

    def close(self) -> None:
        self._print()

    def _print(self) -> None:
        if self._waiting is not None:
            verdict = self._bottleneck.partition(";")[0]
            greedy = f"greedy {self._evaluated}" if self._evaluated else ""
            self._say("  ".join(filter(None, (one_line(self._waiting), greedy, verdict))))
            self._waiting = None
            self._shown_s = self._clock()

    def _say(self, line: str) -> None:
        """A disk that is full costs lines, not the run: they come once there is room."""
        try:
            print(line, file=self._stream, flush=True)
        except BrokenPipeError:
            raise  # whoever read it has had enough
        except OSError:
            pass


class Table:
    """The live table (rich, imported here only)."""

    def __init__(self, title: str, stream: TextIO, clock: Callable[[], float], color: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._title, self._clock = title, clock
        self._shown_s = float("-inf")
        self._returns = History(SPARK_COLUMNS)
        self._row: Row | None = None
        self._notes = Notes()
        self._messages: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self._stale = True
        console = Console(file=stream, force_terminal=True, no_color=not color, highlight=False)
        self._live: Live | None = Live(self.draw(), console=console, auto_refresh=False)
        self._live.start()

    def show(self, rows: Sequence[Row], notes: Notes) -> None:
        for row in rows:
            if row["return_mean"] is not None:
                self._returns.add(row["env_steps"], row["return_mean"])
        self._row = rows[-1] if rows else self._row
        self._stale |= bool(rows) or notes != self._notes
        self._notes = notes
        self._messages.extend(notes.messages)
        if self._stale and self._clock() - self._shown_s >= REFRESH_S:
            self._draw()

    def close(self) -> None:
        if self._live is not None:
            self._draw()
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        assert self._live is not None
        self._live.update(self.draw(), refresh=True)
        self._shown_s, self._stale = self._clock(), False

    def draw(self) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table as Grid
        from rich.text import Text

        row, notes = self._row, self._notes
        if row is None:
            body: RenderableType = Text("waiting for the first update", style="dim")
        else:
            steps = Grid.grid(padding=(0, 2, 0, 0))
            bar = ProgressBar(total=max(1, row["total_steps"]), completed=row["env_steps"], width=32)
            steps.add_row(bar, f"{row['env_steps']:,} / {row['total_steps']:,}", eta(row))
            grid = Grid.grid(padding=(0, 2, 0, 0))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column()
            grid.add_row("steps", steps)
            ret = "-" if row["return_mean"] is None else f"{row['return_mean']:.1f}"
            grid.add_row("return", Text(f"{ret:<8}", style="bold") + Text(self._returns.line(), style="cyan"))
            if greedy := evaluated(notes.evaluation):
                grid.add_row("greedy", Text(greedy, style="bold"))
            grid.add_row("speed", f"{row['steps_per_s']:,.0f} steps/s, version {row['version']}, {staleness(row)}")
            grid.add_row("learner", phases(row["phases"]))
            if trouble := troubles(notes.restarts, row["rejected"]):
                grid.add_row("trouble", Text(trouble, style="yellow"))
            if notes.bottleneck:
                grid.add_row("pace", notes.bottleneck)
            body = Group(grid, *(Text(message, style="dim") for message in self._messages))
        return Panel(body, title=Text(self._title, style="bold"), title_align="left", border_style="dim")


class History:
    """A curve of any length in a fixed number of columns: each holds the last value of an equal share of the steps."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._width = 1
        self._values: dict[int, float] = {}

    def add(self, step: int, value: float) -> None:
        while step // self._width >= self._columns:
            self._width *= 2
            self._values = {at // 2: kept for at, kept in sorted(self._values.items())}
        at = step // self._width
        # A resumed run goes back: what lay ahead of it is no longer its history.
        self._values = {column: kept for column, kept in self._values.items() if column < at} | {at: value}

    def line(self) -> str:
        """One character a column, scaled between the lowest and the highest value so far."""
        if not self._values:
            return ""
        low, high = min(self._values.values()), max(self._values.values())
        scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
        columns = range(min(self._values), max(self._values) + 1)
        return "".join(BARS[round((self._values[c] - low) * scale)] if c in self._values else " " for c in columns)


def one_line(row: Row) -> str:
    ret = "-" if row["return_mean"] is None else f"{row['return_mean']:.1f}"
    parts = [
        f"{row['time_s']:.0f} s",
        f"{row['env_steps']:,}/{row['total_steps']:,} steps",
        eta(row),
        f"return {ret}",
        f"{row['steps_per_s']:,.0f} steps/s",
        f"version {row['version']}",
        staleness(row),
        f"learner waits {row['phases'].get('wait', 0.0):.0%}",
        troubles({}, row["rejected"]),
    ]
    return "  ".join(filter(None, parts))


def evaluated(found: Mapping[str, Any]) -> str:
    """What an evaluation during training came to, and of which moment it is; "" for none."""
    if not found:
        return ""
    at = f"version {found['version']}" if found.get("env_steps") is None else f"{found['env_steps']:,} steps"
    return f"{with_interval(found['mean'], found['interval95'])} at {at}"


def eta(row: Row) -> str:
    """Time left at the present speed."""
    left = row["total_steps"] - row["env_steps"]
    if left <= 0:
        return "done"
    if row["steps_per_s"] <= 0:
        return "no steps now"
    minutes, seconds = divmod(round(left / row["steps_per_s"]), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


def staleness(row: Row) -> str:
    return f"staleness {row['staleness_mean']:.1f} (max {row['staleness_max']})"


def phases(split: Mapping[str, float]) -> str:
    return "  ".join(f"{phase} {share:.0%}" for phase, share in split.items())


def troubles(restarts: Mapping[str, int], rejected: Mapping[str, int]) -> str:
    """Restarts by role and rejected fragments by reason, the zeros left out."""
    parts = [f"{role} started again {n}x" for role, n in restarts.items() if n]
    parts += [f"{n} rejected: {reason}" for reason, n in rejected.items() if n]
    return ", ".join(parts)
