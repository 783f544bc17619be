"""The model of a large cluster against arithmetic done by hand, and its page against the model."""

from __future__ import annotations

import heapq
import random
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from headrace.common.lease_set import LeaseSet
from headrace.common.weights.base import Progress
from headrace.paramserver.ledger import Ledger

from .test_side_by_side import load


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load(monkeypatch, "scale_model")


@pytest.fixture
def prices(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load(monkeypatch, "scale_costs")


def costs(model: ModuleType, **server: float) -> Any:
    """Round numbers: a millisecond a lease, half of it a beat."""
    given = {"idle": 0.01, "lease_s": 1e-3, "beat_s": 5e-4, "tell_s": 0.0, "byte_s": 1e-9}
    given |= {"relayed_lease_s": 2e-4, "relayed_beat_s": 1e-4, "relay_lease_s": 1.5e-3, "relay_beat_s": 6e-4}
    of_server = model.ServerCosts(**{**given, **server})
    local = model.CarrierCosts(idle=0.0, record_s=1e-3, byte_s=1e-9, put_s=0.1)
    kafka = replace(local, put_s=0.1, broker_idle=0.05, broker_record_s=1e-4, broker_byte_s=1e-9)
    return model.Costs(of_server, {"local": local, "confluent": kafka}, ask_s=0.1)


def test_a_cycle_is_the_fragment_the_question_and_the_put(model: ModuleType) -> None:
    cluster = model.Cluster(100, envs=4, step_s=0.01, fragment_steps=180, bytes_per_step=50.0, versions_per_s=2.0)
    found = model.predict(cluster, costs(model))  # 1.8 + 0.1 + 0.1 s
    assert found.fragments_per_s == pytest.approx(50)
    assert found.steps_per_s == pytest.approx(50 * 180 * 4)
    assert found.beats_per_s == pytest.approx(90)
    assert found.weights_per_s == pytest.approx(50)  # it asks only so often
    root, learner = found.hops["root"], found.hops["learner"]
    assert root.calls_per_s == pytest.approx(50 + 90 + 2)
    assert root.bytes_out_per_s == pytest.approx(50 * 1e6)
    assert root.cores == pytest.approx(0.01 + 50 * 1e-3 + 90 * 5e-4 + 50e6 * 1e-9)
    assert learner.bytes_in_per_s == pytest.approx(50 * 180 * 4 * 50)
    assert learner.cores == pytest.approx(50 * 1e-3 + 50 * 36_000 * 1e-9)
    assert found.fragments_per_version == pytest.approx(25)
    assert found.staleness_at_least == 8  # 200 fragments beyond those accepted, 25 a version


def busy(workers: int, per_version: int, max_staleness: int, for_s: float = 40.0) -> float:
    """The share of its time that a worker collects under the real ledger; a cycle takes it 1 s, 10 % more or less."""
    rng, ledger, spent, held = random.Random(0), Ledger(), LeaseSet(), dict[int, int]()
    ends, waiting, came, now_s = list[tuple[float, int]](), list(range(workers)), 0, 0.0
    while True:
        version = came // per_version
        admit_until = (version + 1 + max_staleness) * per_version
        if came % per_version == 0:
            ledger.admit(Progress(admit_until, ledger.next_lease, came, spent.runs, 0, True), now_s)
        for worker in list(waiting):
            lease = ledger.begin(worker, 1, now_s, (held[worker],) if worker in held else ())
            if lease is not None:
                held[worker] = lease
                waiting.remove(worker)
                heapq.heappush(ends, (now_s + rng.uniform(0.9, 1.1), worker))
        now_s, worker = heapq.heappop(ends)
        if now_s > for_s:
            return came / workers / for_s
        spent.add(held[worker])
        came += 1
        waiting.append(worker)


@pytest.mark.parametrize(("workers", "per_version"), [(40, 20), (64, 24), (40, 40)])
def test_the_staleness_that_it_names_keeps_everybody_at_work(model: ModuleType, workers: int, per_version: int) -> None:
    cluster = model.Cluster(workers, step_s=0.008, fragment_steps=100, versions_per_s=workers / per_version)
    named = model.predict(cluster, costs(model)).staleness_at_least  # cycles of 1 s
    assert busy(workers, per_version, named) > 0.97
    assert busy(workers, per_version, named - 1) < 0.97


def test_versions_that_are_rare_are_taken_by_each_actor_once(model: ModuleType) -> None:
    cluster = model.Cluster(100, step_s=0.01, fragment_steps=180, versions_per_s=0.1)
    assert model.predict(cluster, costs(model)).hops["root"].bytes_out_per_s == pytest.approx(10 * 1e6)


@pytest.mark.parametrize(
    ("actors", "fan_out", "levels"),
    [(32, 0, ()), (32, 32, ()), (33, 32, (2,)), (1000, 32, (32,)), (10_000, 32, (313, 10)), (9, 2, (5, 3, 2))],
)
def test_relays_are_added_until_the_root_has_few_children(
    model: ModuleType, actors: int, fan_out: int, levels: tuple[int, ...]
) -> None:
    assert model.relay_levels(actors, fan_out) == levels


def test_with_relays_the_root_sends_to_its_children_and_hears_of_every_actor(model: ModuleType) -> None:
    cluster = model.Cluster(1000, step_s=0.01, fragment_steps=180, versions_per_s=0.5, fan_out=100)
    found = model.predict(cluster, costs(model))
    root, relay = found.hops["root"], found.hops["relay"]
    assert found.relays == 10
    assert root.bytes_out_per_s == pytest.approx(10 * 0.5 * 1e6)
    assert root.calls_per_s == pytest.approx(500 + 10 * 4 + 1)  # hearts of a relay four times a second; the learner
    assert root.cores == pytest.approx(0.01 + 500 * 2e-4 + 900 * 1e-4 + 5e6 * 1e-9)
    assert relay.calls_per_s == pytest.approx((500 + 900) / 10)
    assert relay.bytes_out_per_s == pytest.approx(100 * 0.5 * 1e6)
    assert relay.cores == pytest.approx(0.01 + 50 * 1.5e-3 + 90 * 6e-4 + 50e6 * 1e-9)


def test_a_relay_of_relays_hears_of_all_below_it(model: ModuleType) -> None:
    cluster = model.Cluster(1000, step_s=0.01, fragment_steps=180, versions_per_s=0.5, fan_out=20)
    found = model.predict(cluster, costs(model))  # 50 relays below 3
    upper = found.hops["upper relay"]
    assert found.relays == 53
    assert found.hops["root"].bytes_out_per_s == pytest.approx(3 * 0.5 * 1e6)
    assert upper.bytes_out_per_s == pytest.approx(20 * 0.5 * 1e6)
    passed_on = 500 * (2e-4 + 5e-4) + 900 * (1e-4 + 1e-4)
    assert upper.cores == pytest.approx(0.01 + passed_on / 3 + 10e6 * 1e-9)


def test_the_learner_asks_for_what_is_younger_than_its_last_answer(model: ModuleType) -> None:
    cluster = model.Cluster(8, versions_per_s=2.0)
    assert model.tells_per_s(cluster, cycle_s=4.0) == 2.0
    assert model.tells_per_s(cluster, cycle_s=0.25) == 2.0 + 4.0
    assert model.tells_per_s(replace(cluster, versions_per_s=0.1), cycle_s=4.0) == 1.0  # it tells all the same


def test_what_saturates_first_is_named_and_how_many_actors_that_takes(model: ModuleType) -> None:
    heavy = model.Cluster(1, step_s=0.01, fragment_steps=180, weights_bytes=25e6, versions_per_s=10)
    free = costs(model, byte_s=0.0)
    most = model.actors_at_most(heavy, free)
    name, what, share = model.predict(replace(heavy, actors=most + 1), free).tightest
    assert (name, what) == ("root", "link")  # 12.5 MB/s an actor, of 1.25 GB/s
    assert most == 100
    assert share > 1
    assert (name, what) in model.WHAT_TO_CHANGE


def test_only_with_a_broker_are_there_partitions(model: ModuleType) -> None:
    cluster = model.Cluster(1000, step_s=0.01, fragment_steps=180, bytes_per_step=100)
    kafka = model.predict(cluster, costs(model))
    assert kafka.partitions == 2  # 72 MB/s, 50 MB/s each
    local = model.predict(replace(cluster, carrier="local"), costs(model))
    assert (local.partitions, "broker" in local.hops) == (0, False)


def test_costs_are_found_again(prices: ModuleType) -> None:
    true, rng = np.array([0.01, 1e-3, 0.0, 2e-9]), np.random.default_rng(0)
    rows = np.column_stack([np.ones(6), rng.uniform(1, 300, 6), rng.uniform(1, 600, 6), rng.uniform(1e5, 1e8, 6)])
    np.testing.assert_allclose(prices.fit(rows, rows @ true), true, rtol=1e-6, atol=1e-12)


def test_no_cost_is_below_zero(prices: ModuleType) -> None:
    rows = [[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]
    assert prices.fit(rows, [3.0, 2.0, 1.0])[1] == 0.0


def test_the_page_says_what_the_model_says(monkeypatch: pytest.MonkeyPatch, prices: ModuleType) -> None:
    """`python bench/scale_page.py` makes it anew."""
    page = load(monkeypatch, "scale_page")
    text = page.PAGE.read_text()
    assert text == page.written(text, prices.kept())


def test_the_model_was_not_calibrated_on_what_it_is_compared_with(prices: ModuleType) -> None:
    kept = prices.kept()
    compared = {row["actors"] for row in kept["compared"]}
    assert compared == {8, 64, 512}
    assert not compared & set(kept["calibrated_at"])
