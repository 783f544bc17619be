"""Each verdict, from what the roles' own metrics would show."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from headrace.common.metrics import Metrics
from headrace.observe.bottleneck import ADVICE, Figures, decide, judge
from headrace.observe.endpoints import Endpoint
from headrace.observe.scrape import Scrape, parse
from headrace.observe.trouble import last_words


def scraped(metrics: Metrics, index: int = 0, time_s: float = 0.0) -> Scrape:
    endpoint = Endpoint(metrics.role, index, 1000 + index, f"http://127.0.0.1:{9000 + index}")
    return Scrape(endpoint, time_s, parse(generate_latest(metrics.registry).decode()))


def spend(metrics: Metrics, **phases: float) -> Metrics:
    for phase, seconds in phases.items():
        metrics.inc(f"{metrics.role}_phase_seconds_total", seconds, phase=phase)
    return metrics


def observe(metrics: Metrics, name: str, seconds: float, times: int) -> Metrics:
    for _ in range(times):
        metrics.observe(name, seconds)
    return metrics


FAST = (20, 0.01)

#: verdict, the learner's seconds by phase, an actor's, then what is not FAST: (publications, seconds each), (acks, ...)
CASES: dict[str, tuple[str, dict[str, float], dict[str, float], dict[str, tuple[int, float]]]] = {
    "slow actors": ("actors too few", {"wait": 8, "update": 2}, {"env": 8.5, "policy": 1, "put": 0.5}, {}),
    "slow actors, lockstep": ("actors too few", {"wait": 7, "update": 3}, {"env": 6, "policy": 1, "lease": 3}, {}),
    "long updates": ("learner too slow", {"update": 9, "assemble": 0.8, "wait": 0.2}, {"env": 5, "lease": 5}, {}),
    "full queue": ("learner too slow", {"update": 9, "wait": 1}, {"env": 4, "put": 6}, {"ack": (20, 0.6)}),
    "checkpoints": ("learner too slow", {"update": 3, "checkpoint": 6.5, "wait": 0.5}, {"env": 4, "lease": 6}, {}),
    "stuck in publish": (
        "weights too slow",
        {"update": 2, "publish": 7, "wait": 1},
        {"env": 3, "lease": 7},
        {"publish": (10, 0.9)},
    ),
    "slow publication": ("weights too slow", {"update": 2, "wait": 8}, {"env": 3, "lease": 7}, {"publish": (10, 0.8)}),
    "slow on the way to actors": ("weights too slow", {"update": 2, "wait": 8}, {"env": 3, "lease": 7}, {}),
    "publication hidden": (
        "actors too few",
        {"update": 7, "wait": 3},
        {"env": 8.5, "lease": 1.5},
        {"publish": (10, 0.95)},
    ),
    "put blocks": ("broker too slow", {"update": 3, "wait": 7}, {"env": 3.5, "put": 6.5}, {"ack": (20, 0.5)}),
    "acknowledged late": ("broker too slow", {"update": 2, "wait": 8}, {"env": 3, "lease": 7}, {"ack": (10, 0.9)}),
    "all busy": ("balanced", {"update": 9.5, "wait": 0.5}, {"env": 8, "policy": 1.6, "lease": 0.4}, {}),
    "lockstep, even": ("balanced", {"update": 5, "wait": 5}, {"env": 5, "lease": 5}, {"publish": (1, 0.01)}),
}


@pytest.mark.parametrize("case", CASES)
def test_verdict(case: str) -> None:
    name, learner_phases, actor_phases, slow = CASES[case]
    published, publish_s = slow.get("publish", FAST)
    acks, ack_s = slow.get("ack", FAST)
    learner = observe(spend(Metrics("learner"), **learner_phases), "weights_publish_seconds", publish_s, published)
    learner.inc("learner_updates_total", 10)
    actors = []
    for index in range(2):
        actor = observe(spend(Metrics("actor"), **actor_phases), "transport_ack_seconds", ack_s, acks)
        actor.inc("transport_blocked_seconds_total", actor_phases.get("put", 0.0) * 0.9)
        actors.append(scraped(actor, index))
    verdict = judge([scraped(learner), *actors])
    assert verdict.name == name, verdict
    assert verdict.sentence.startswith(f"{name}: ")
    assert ADVICE[name] in verdict.sentence
    assert verdict.figures.learner_wait == pytest.approx(learner_phases["wait"] / 10)
    assert verdict.figures.publish_s == pytest.approx(publish_s)
    assert verdict.figures.ack_s == pytest.approx(ack_s)


def test_two_scrapes_judge_the_time_between_them() -> None:
    learner = spend(Metrics("learner"), wait=1000, update=10)
    actor = spend(Metrics("actor"), env=1000, lease=1)
    before = [scraped(learner), scraped(actor)]
    spend(learner, wait=0.1, update=0.9)
    spend(actor, env=0.3, lease=0.7)
    after = [scraped(learner, time_s=1), scraped(actor, time_s=1)]
    assert judge(after).name == "actors too few"
    verdict = judge(after, before)
    assert verdict.name == "learner too slow"
    assert verdict.figures.learner_busy == pytest.approx(0.9)


def test_an_actor_started_in_between_counts_as_one() -> None:
    """Its whole life is its share; it must not drown in, nor drown, the others."""
    learner = spend(Metrics("learner"), wait=0.9, update=0.1)
    old, new = spend(Metrics("actor"), env=1000), spend(Metrics("actor"), env=1, lease=3)
    before = [scraped(learner), scraped(old)]
    spend(old, env=0.75, lease=0.25)
    assert judge([scraped(learner), scraped(old), scraped(new, 1)], before).figures.actor_busy == pytest.approx(0.5)


def test_a_phase_longer_than_the_window_falls_back_to_totals() -> None:
    learner, actor = spend(Metrics("learner"), update=90, wait=10), spend(Metrics("actor"), env=10, lease=90)
    scrapes = [scraped(learner), scraped(actor)]
    assert judge(scrapes, scrapes).name == "learner too slow"


def test_dead_roles() -> None:
    learner, actor = scraped(spend(Metrics("learner"), wait=9, update=1)), scraped(spend(Metrics("actor"), env=9))
    dead = Scrape(actor.endpoint, 0.0, error="Connection refused")
    assert judge([learner, dead]).sentence == "actors too few: none answers"
    assert judge([actor]).name == "unknown"
    assert judge([]).name == "unknown"
    assert judge([scraped(Metrics("learner")), actor]).name == "unknown"


ratio = st.floats(0, 1)


@given(st.builds(Figures, st.integers(0, 9), *[ratio] * 6, st.floats(0, 100), ratio, st.floats(0, 100), ratio, ratio))
def test_any_figures_give_a_verdict(figures: Figures) -> None:
    verdict = decide(figures)
    assert verdict.name in {*ADVICE, "unknown"}
    assert all(0 <= share <= 2 for share in verdict.parts.values())
    assert "\n" not in verdict.sentence


# --- what is wrong comes before what is slow -------------------------------------------------------------------------


def test_a_run_at_nought_steps_gets_no_bottleneck() -> None:
    learner, actor = scraped(spend(Metrics("learner"), wait=30)), scraped(Metrics("actor"))
    assert judge([learner, actor]).sentence == "not known yet: no actor has finished a fragment"
    waiting = scraped(spend(Metrics("actor"), lease=30))
    verdict = judge([learner, waiting])
    assert verdict.name == "unknown"
    assert verdict.sentence.endswith("no actor has finished a fragment: they wait for a lease, or take long over one")
    little = scraped(spend(Metrics("actor"), lease=30, env=1))
    verdict = judge([learner, little])
    assert verdict.name == "unknown"
    assert "the learner waits 100% of its time, actors wait 97%" in verdict.sentence
    assert "no version was made" in verdict.sentence


def test_everything_is_refused_comes_before_any_bottleneck() -> None:
    learner, actor = spend(Metrics("learner"), wait=9, update=1), scraped(spend(Metrics("actor"), env=9, lease=1))
    learner.inc("learner_fragments_total", 100)
    before = [scraped(learner), actor]
    assert judge(before).name == "actors too few"
    spend(learner, wait=1)
    learner.inc("learner_rejected_total", 3, reason="nan")
    learner.inc("learner_rejected_total", 7, reason="schema")
    verdict = judge([scraped(learner), actor], before)
    assert verdict.name == "everything is refused"
    assert verdict.sentence.startswith("everything is refused (schema 7, nan 3); dead_letter/")
    learner.inc("learner_fragments_total")
    assert judge([scraped(learner), actor], before).name == "actors too few"


def test_duplicates_alone_are_no_trouble() -> None:
    learner = spend(Metrics("learner"), wait=9, update=1)
    learner.inc("learner_rejected_total", 5, reason="duplicate")
    assert judge([scraped(learner), scraped(spend(Metrics("actor"), env=9))]).name == "actors too few"


def test_actors_that_keep_dying_come_with_their_last_words() -> None:
    learner, actor = scraped(spend(Metrics("learner"), wait=9)), scraped(Metrics("actor"))
    said = {"actor-0": "headrace actor: worker 0: environment 'X-v0' number 2: obs holds nan"}
    dead = Scrape(actor.endpoint, 0.0, error="Connection refused")
    for state in (dead, actor):  # between two lives, and in the next one
        verdict = judge([learner, state], said=said)
        assert verdict.name == "actors keep dying"
        assert verdict.sentence == f"actors keep dying: actor-0: {said['actor-0']}"
    hangs = Scrape(actor.endpoint, 0.0, error="no answer in 2 s")
    assert judge([learner, hangs], said={"actor-0": "actor: something it mentioned"}).name == "actors too few"
    delivers = spend(Metrics("actor"), env=9)
    delivers.inc("actor_fragments_total")
    assert judge([learner, dead, scraped(delivers, 1)], said=said).name == "actors too few"
    assert judge([learner, actor], said={"actor-0": "actor: something it mentioned"}).name == "unknown"


def test_who_is_waited_for_is_named_while_nothing_moves() -> None:
    learner, actor = spend(Metrics("learner"), wait=30), scraped(spend(Metrics("actor"), lease=30))
    server = Metrics("paramserver")
    assert judge([scraped(learner), actor, scraped(server)]).name == "unknown", "nobody has a lease"
    server.set("lease_oldest_worker", 7)
    server.set("lease_oldest_seconds", 41.3)
    server.set("lease_oldest_silent_seconds", 0.4)
    assert judge([scraped(learner), actor, scraped(server)]).sentence == "waiting for worker 7 (lease out for 41 s)"
    server.set("lease_oldest_seconds", 8.0)
    assert judge([scraped(learner), actor, scraped(server)]).name == "waiting", "10 s, and nobody has to look twice"
    server.set("lease_oldest_seconds", 41.3)
    server.set("lease_oldest_silent_seconds", 40.6)
    verdict = judge([scraped(learner), actor, scraped(server)])
    assert verdict.sentence == "waiting for worker 7 (lease out for 41 s, not heard of for 41 s)"
    learner.inc("learner_updates_total")
    assert judge([scraped(learner), actor, scraped(server)]).name == "weights too slow"


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("headrace actor: an environment hangs\n\n", "headrace actor: an environment hangs"),
        ('Traceback (most recent call last):\n  File "x.py", line 1, in f\nKeyError: 3\n', "KeyError: 3"),
        (
            "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n"
            '  File "x.py", line 1 in f\n\nExtension modules: numpy (total: 1)\n',
            "Fatal Python error: Segmentation fault",
        ),
    ],
    ids=["empty", "line", "traceback", "crash"],
)
def test_last_words(tmp_path: Path, log: str, line: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "actor-0.log").write_text("\n" * 20_000 + log)
    assert last_words(tmp_path) == ({"actor-0": line} if line else {})
