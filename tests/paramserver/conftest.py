from __future__ import annotations

from collections.abc import Iterator

import pytest

from .servers import Rig, rig


@pytest.fixture(name="rig")
def _rig() -> Iterator[Rig]:
    with rig() as made:
        yield made
