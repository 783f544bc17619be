"""The board's right side: the run in focus, and what is chosen beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from nicegui import ui

from headrace.launch.board import charts
from headrace.launch.board.beneath import Beneath
from headrace.launch.board.folder import Folder
from headrace.launch.board.look import Look
from headrace.launch.board.run_list import chip
from headrace.launch.board.tiles import SideBySide, Tiles
from headrace.observe import table
from headrace.observe.rows import Row

#: (stop, resume or train on; name)
Act = Callable[[str, str], Awaitable[None]]
#: Which button a state offers: what it does, its word, its icon.
_BUTTONS = {
    "starting": ("stop", "Stop", "stop"),
    "training": ("stop", "Stop", "stop"),
    "stopped": ("resume", "Resume", "play_arrow"),
    "empty": ("resume", "Resume", "play_arrow"),
    "finished": ("on", "Train on", "fast_forward"),
}
_FIGURES = {"steps_per_s": "steps a second", "staleness_mean": "staleness, versions", "length_mean": "episode length"}


class Detail:
    """Of the runs ``names``, the first of which is in focus; takes over what a ``former`` one was set to."""

    def __init__(
        self, names: Sequence[str], colors: Mapping[str, str], folder: Folder, act: Act, former: Detail | None
    ) -> None:
        self.names, self._colors = list(names), colors
        self._drawn: object = None
        self._over: ui.toggle
        self._figures: list[_Figure]
        self._looks: Sequence[Look] = ()
        self._head(act)
        self._tiles = Tiles()
        self._table = SideBySide(colors) if len(names) > 1 else None
        self._pace = _Pace()
        self._curves(former)
        self._beneath = Beneath(names[0], folder)

    def show(self, looks: Sequence[Look]) -> None:
        self._looks, first = looks, looks[0]
        row, state = first.glance.row, first.glance.state
        self._title.set_text(first.title)
        chip(self._state, state)
        _, word, icon = _BUTTONS.get(state, ("", "", "stop"))
        self._button.set_visibility(bool(word))
        self._button.set_text(word)
        self._button.set_icon(icon)
        self._progress(row, state)
        self._tiles.show(first)
        self._pace.show(first)
        self._draw()
        if self._table is not None:
            self._table.show(looks)
        self._beneath.show(first)

    def _head(self, act: Act) -> None:
        async def pressed() -> None:
            verb = _BUTTONS.get(self._looks[0].glance.state) if self._looks else None
            if verb is not None:
                await act(verb[0], self.names[0])

        with ui.element("div").classes("head"):
            with ui.element("div").classes("names"):
                ui.label(self.names[0]).classes("title")
                self._title = ui.label().classes("hint")
            self._state = ui.label().classes("chip")
            ui.element("div").classes("grow")
            self._button = ui.button("", icon="stop", on_click=pressed).props("outline no-caps").classes("act")
        with ui.element("div").classes("thin wide"):
            self._bar = ui.element("div").classes("fill")
        self._steps = ui.label().classes("hint small")

    def _progress(self, row: Row | None, state: str) -> None:
        if row is None:
            self._steps.set_text("no update yet" if state in ("starting", "training") else "it has written no row")
            return
        self._bar.style(f"width: {min(1.0, row['env_steps'] / max(1, row['total_steps'])):.1%}")
        left = table.eta(row) if state == "training" else ""
        said = f"{row['env_steps']:,} of {row['total_steps']:,} steps in {row['time_s']:,.0f} s"
        self._steps.set_text(", ".join(filter(None, (said, left))))

    # --- curves ----------------------------------------------------------------------------------------------------

    def _curves(self, former: Detail | None) -> None:
        with ui.element("section").classes("card"):
            with ui.element("div").classes("line"):
                ui.label("Return").classes("caption")
                ui.label("line: training, mean of 100 episodes · diamond: greedy, 95 %").classes("hint small grow")
                over = "steps" if former is None else former._over.value
                self._over = ui.toggle({"steps": "over steps", "time": "over time"}, value=over, on_change=self._draw)
                self._over.props("dense no-caps unelevated size=sm").classes("over")
            self._return = ui.echart({}).classes("chart tall")
        with ui.element("div").classes("pair"):
            self._figures = [
                _Figure(key if former is None else former._figures[i].key, self._draw)
                for i, key in enumerate(("steps_per_s", "staleness_mean"))
            ]

    def _draw(self) -> None:
        """What is new of the curves."""
        if not self._looks:
            return
        over = self._over.value
        what = [(look.glance.name, look.glance.row, len(look.rows), len(look.evaluations)) for look in self._looks]
        now = (what, over, [figure.key for figure in self._figures])
        if now == self._drawn:
            return
        self._drawn = now
        _replace(self._return, charts.returns(self._looks, self._colors, over))
        for figure in self._figures:
            figure.draw(self._looks, self._colors, over)


class _Figure:
    """A smaller curve of whatever one picks from the rows."""

    def __init__(self, key: str, draw: Callable[[], None]) -> None:
        with ui.element("section").classes("card"):
            self._pick = ui.select({key: _FIGURES.get(key, key)}, value=key, on_change=draw)
            self._pick.props("dense borderless options-dense").classes("pick")
            self._chart = ui.echart({}).classes("chart low")

    @property
    def key(self) -> str:
        return str(self._pick.value)

    def draw(self, looks: Sequence[Look], colors: Mapping[str, str], over: charts.Over) -> None:
        known = sorted({name for look in looks if look.glance.row for name in look.glance.row["train"]})
        options = {**_FIGURES, **{f"train.{name}": name.replace("_", " ") for name in known}}
        if list(options) != list(self._pick.options):
            self._pick.set_options({**options, self.key: options.get(self.key, self.key)}, value=self.key)
        _replace(self._chart, charts.figure(looks, colors, over, lambda row: _figure(row, self.key)))


def _figure(row: Row, key: str) -> float | None:
    if key.startswith("train."):
        value: object = row["train"].get(key.removeprefix("train."))
    else:
        value = row.get(key)
    return value if isinstance(value, int | float) else None


def _replace(chart: ui.echart, options: Mapping[str, object]) -> None:
    chart.options.clear()
    chart.options.update(options)
    chart.update()


class _Pace:
    """What holds the run up, and where its learner's time goes."""

    def __init__(self) -> None:
        self._box = ui.element("section").classes("card pace")
        with self._box:
            self._sentence = ui.label()
            self._split = ui.element("div").classes("split")
            self._words = ui.label().classes("hint small")
        self._shown: object = None

    def show(self, look: Look) -> None:
        row = look.glance.row
        split = row["phases"] if row is not None else {}
        if self._shown == (look.sentence, split):
            return
        self._shown = look.sentence, split
        self._box.set_visibility(bool(look.sentence or split))
        self._sentence.set_text(look.sentence)
        self._sentence.set_visibility(bool(look.sentence))
        self._words.set_text(f"the learner's time: {table.phases(split)}" if split else "")
        self._split.clear()
        with self._split:
            for phase, share in split.items():
                if isinstance(share, int | float) and share > 0:
                    ui.element("div").classes(f"phase {phase}").style(f"flex-grow: {share:.3f}").props["title"] = phase
