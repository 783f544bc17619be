"""What the board asks before it starts something."""

from __future__ import annotations

from nicegui import ui

from headrace.launch.load import presets


async def new_run() -> tuple[str, list[str]] | None:
    """A preset and settings on top of it; None when it was thought better of."""
    said = {name: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for name, path in presets().items()}
    with ui.dialog() as dialog, ui.card().classes("ask"):
        ui.label("New run").classes("title")
        preset = ui.select(list(said), value="cartpole-ppo", label="Preset", with_input=True).props("outlined dense")
        ui.label().classes("hint small").bind_text_from(preset, "value", lambda name: said.get(name, ""))
        settings = _settings("run.seed=1\nrun.total_steps=200_000")
        _answers(dialog, "Start")
    agreed = await dialog
    dialog.delete()
    return (str(preset.value), _lines(settings.value)) if agreed else None


async def train_on(name: str, steps: int, solved: bool) -> list[str] | None:
    """Settings with which a run that has its ``steps``, or ended because its task was ``solved``, goes on beyond that;
    None when it was thought better of."""
    with ui.dialog() as dialog, ui.card().classes("ask"):
        ui.label(f"Train {name} on").classes("title")
        ui.label("It solved its task." if solved else "It came to its end; give it more steps.").classes("hint small")
        settings = _settings("run.total_steps=400_000")
        settings.value = "run.stop_when_solved=false" if solved else f"run.total_steps={2 * steps:_}"
        _answers(dialog, "Train on")
    agreed = await dialog
    dialog.delete()
    return _lines(settings.value) if agreed else None


def _settings(example: str) -> ui.textarea:
    asked = ui.textarea("Settings, one section.key=value a line", placeholder=example)
    return asked.props("outlined dense autogrow stack-label").classes("mono")


def _answers(dialog: ui.dialog, yes: str) -> None:
    with ui.element("div").classes("answers"):
        ui.button("Cancel", on_click=lambda: dialog.submit(False)).props("flat no-caps")
        ui.button(yes, on_click=lambda: dialog.submit(True)).props("unelevated no-caps").classes("primary")


def _lines(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]
