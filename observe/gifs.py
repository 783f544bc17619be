"""Several agents in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_FRAME_MS = 40


def side_by_side(gifs: Sequence[Path], path: Path) -> None:
    """Write the GIFs beside each other, from left to right, each until its episode ends. Raises OSError."""
    from PIL import Image, ImageSequence

    sides = []
    for gif in gifs:
        with Image.open(gif) as film:
            sides.append([frame.convert("RGB") for frame in ImageSequence.Iterator(film)])
    size = (sum(side[0].width for side in sides), max(side[0].height for side in sides))
    frames = []
    for k in range(max(map(len, sides))):
        frame, left = Image.new("RGB", size, "white"), 0
        for side in sides:
            frame.paste(side[min(k, len(side) - 1)], (left, 0))
            left += side[0].width
        frames.append(frame)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=_FRAME_MS, loop=0, optimize=True)
