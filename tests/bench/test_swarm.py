"""The simulated clients against a real parameter server: what they count is what happened."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from .test_side_by_side import load


@pytest.fixture
def fanout(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load(monkeypatch, "fanout")


def options(**given: Any) -> Any:
    return type(
        "Options", (), {"processes": 2, "relays": 0, "bytes": 40_000, "every_s": 0.5, "fragment_s": 0.3, **given}
    )


def test_followers_get_every_version_and_the_root_sends_each_once(fanout: ModuleType) -> None:
    with fanout.Rig() as rig:
        found = fanout.follow(rig, options(subscribers=6, versions=3))
    assert len(found["seconds_until_all_have_it"]) == 3
    assert found["clients"]["versions_taken"] == 6 * 3
    assert found["clients"]["weight_bytes"] == found["root"]["weight_bytes_a_version"] * 3
    assert found["root"]["of_children"] == pytest.approx(6 / 6, rel=0.02)  # a header beside the tensors
    assert found["clients"]["errors"] == {}
    assert 0 < found["seconds"]["p50"] <= found["seconds"]["max"] < 5


def test_through_relays_the_root_sends_to_them_alone(fanout: ModuleType) -> None:
    with fanout.Rig() as rig:
        found = fanout.follow(rig, options(subscribers=6, versions=3, relays=2))
    assert found["clients"]["versions_taken"] == 6 * 3
    assert found["root"]["of_children"] == pytest.approx(2 / 2, rel=0.02)
    assert found["parents"]["weight_bytes_a_version"] == 3 * found["root"]["weight_bytes_a_version"]


def test_actors_take_leases_and_every_fragment_is_admitted(fanout: ModuleType) -> None:
    with fanout.Rig() as rig:
        found = fanout.act(rig, options(subscribers=6, warm_up_s=1.0, seconds=3.0))
    fragments = found["learner"]["fragments_a_second"]
    assert found["learner"]["refused"] == {}
    assert found["clients"]["errors"] == {}
    assert 6 < fragments <= 6 / 0.27
    assert found["root"]["leases_a_second"] == pytest.approx(fragments, rel=0.3)
    assert found["root"]["leases_expired"] == 0
    assert found["parents"]["heartbeat_calls_a_second"] > 1


def test_a_wait_ends_with_the_version_or_a_newer_one(fanout: ModuleType) -> None:
    arrivals = {0: [(0, 0.0), (1, 10.5), (2, 12.0)], 1: [(0, 0.0), (2, 12.5)]}
    np.testing.assert_allclose(fanout.until(arrivals, [10.0, 11.0]), [[0.5, 2.5], [1.0, 1.5]])


def test_clients_are_shared_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = load(monkeypatch, "swarm_rig")
    parts = rig.shares(10, 3)
    assert [n for part in parts for n in part] == list(range(10))
    assert {len(part) for part in parts} == {3, 4}


def test_whoever_waits_is_put_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    import asyncio
    from collections import Counter

    from headrace.common.metrics import Metrics
    from headrace.common.transport import open_source

    swarm = load(monkeypatch, "swarm")
    url = f"local://{tmp_path}/t"
    source = open_source(url, limits=swarm.LIMITS, metrics=Metrics("learner"), dead_letter=tmp_path, group="g")
    made, counts = swarm.fragment("r", 16, 2), Counter[str]()

    async def put_all() -> None:
        putter = swarm.Putter(url, asyncio.get_running_loop(), counts)
        await asyncio.gather(*(putter.put(made) for _ in range(5)))
        putter.close()

    asyncio.run(put_all())
    until_s = time.monotonic() + 5
    got = 0
    while got < 5 and time.monotonic() < until_s:
        got += source.get(0.1) is not None
    source.close()
    assert got == 5
    assert counts["put_bytes"] > 5 * made.nbytes
