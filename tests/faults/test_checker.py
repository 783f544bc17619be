"""The checker finds each promise that a history breaks, and nothing in a good one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.checker import WARM_UP, lineage, problems
from tests.faults.history import Fragment, History, Logged, Made, load


def fragment(lease: int, policy_version: int, epoch: int = 1) -> Fragment:
    return Fragment(
        actor=lease % 2, incarnation=7, seq=lease // 2, lease=lease, policy_version=policy_version, epoch=epoch
    )


def good() -> History:
    """Two fragments a version. The learner made three versions, died with the first in its checkpoint, and made the
    second and third again; one fragment came too late and was refused."""
    fragments = [fragment(0, 0), fragment(1, 0), fragment(2, 0), fragment(3, 1), fragment(4, 1), fragment(5, 2)]
    late = fragment(6, 0)
    log = [Logged(f.actor, k, f) for k, f in enumerate([*fragments, late])]
    first, second, third = (tuple(fragments[2 * v : 2 * v + 2]) for v in range(3))
    return History(
        sent=[*fragments, late, fragment(7, 2)],
        acked=[*fragments, late],
        taken=log + log[2:],
        log=log,
        began=[(1, 0), (2, 1)],
        made=[Made(1, 1, 0, first), Made(1, 2, 1, second), Made(1, 3, 1, third),
              Made(2, 2, 0, second), Made(2, 3, 1, third)],
        weights=[[(1, 0), (1, 1), (1, 3), (2, 1), (2, 3)], [(1, 2), (2, 2)]],
        positions={0: 7, 1: 7},
        spent=[(0, 7)],
        counters={"version": 3, "fragments": 6, "rejected": {"stale": 1}},
        memory_bytes={"learner 1": [100 << 20] * 20},
    )  # fmt: skip


def test_a_good_history_is_good(tmp_path: Path) -> None:
    assert problems(good(), 1, 1 << 20) == []
    good().save(tmp_path / "history.json")
    assert load(tmp_path / "history.json") == good()


def test_what_a_later_life_made_again_is_not_applied_twice() -> None:
    assert [(made.epoch, made.version) for made in lineage(good())] == [(1, 1), (2, 2), (2, 3)]


def lose_a_record(h: History) -> None:
    del h.log[3], h.taken[3]


def leave_one_out(h: History) -> None:
    h.counters["rejected"] = {}


def forget_a_lease(h: History) -> None:
    h.spent = [(0, 6)]


def apply_one_twice(h: History) -> None:
    h.made[-1] = h.made[-1]._replace(fragments=(h.made[-1].fragments[0], h.made[0].fragments[0]))


def spend_a_lease_twice(h: History) -> None:
    other = h.made[-1].fragments[1]._replace(lease=4)
    h.made[-1] = h.made[-1]._replace(fragments=(h.made[-1].fragments[0], other))


def count_one_more(h: History) -> None:
    h.counters["fragments"] += 1


def log_what_nobody_sent(h: History) -> None:
    h.log.append(Logged(0, 7, fragment(8, 2)))


def take_what_is_not_there(h: History) -> None:
    h.taken.append(Logged(0, 9, fragment(7, 2)))


def apply_what_was_not_taken(h: History) -> None:
    h.taken = [r for r in h.taken if r.fragment.lease != 4]


def leave_out_a_version(h: History) -> None:
    del h.made[-2]


def checkpoint_another_version(h: History) -> None:
    h.counters["version"] = 4


def begin_an_epoch_twice(h: History) -> None:
    h.began.append((2, 3))


def go_back_a_version(h: History) -> None:
    h.weights[0].append((2, 2))


def go_back_an_epoch(h: History) -> None:
    h.weights[1].append((1, 9))


def say_it_is_stale(h: History) -> None:
    h.made[-1] = h.made[-1]._replace(staleness=2)


def stamp_it_stale(h: History) -> None:
    """The learner says 0, its stamps say 2."""
    stale = fragment(5, 0, epoch=2)
    h.made[-1] = h.made[-1]._replace(staleness=0, fragments=(h.made[-1].fragments[0], stale))


def lose_a_parameter(h: History) -> None:
    h.not_finite = ["algorithm: pi.0.weight"]


def grow(h: History) -> None:
    h.memory_bytes["learner 1"] = [100 << 20] * (WARM_UP + 1) + [102 << 20]


def refuse_an_honest_one(h: History) -> None:
    h.counters["rejected"] = {"lease": 1}


BROKEN: dict[Callable[[History], None], str] = {
    lose_a_record: "acknowledged, and not in the log: ",
    leave_one_out: "1 records below the positions were not applied, 0 refused",
    forget_a_lease: "left out, its lease not even spent: ",
    apply_one_twice: "fragment (0, 7, 0) was applied 2 times",
    spend_a_lease_twice: "lease 4 was applied 2 times",
    count_one_more: "6 fragments were applied, the checkpoint counts 7",
    log_what_nobody_sent: "in the log, and never sent: ",
    take_what_is_not_there: "taken, and not in the log: ",
    apply_what_was_not_taken: "applied, and never taken: ",
    leave_out_a_version: "epoch 2 began at version 1 and made [3]",
    checkpoint_another_version: "the last version is 3, the checkpoint's 4",
    begin_an_epoch_twice: "2 lives of the learner are epoch 2",
    go_back_a_version: "an actor received (2, 2) after (2, 3)",
    go_back_an_epoch: "an actor received (1, 9) after (2, 2)",
    say_it_is_stale: "version 3 of epoch 2 is made of a fragment 2 versions old",
    stamp_it_stale: "version 3 of epoch 2 is made of a fragment 2 versions old",
    lose_a_parameter: "not finite: algorithm: pi.0.weight",
    grow: "learner 1 grew by 2097152 bytes, 1048576 allowed",
    refuse_an_honest_one: "1 honest fragments were refused: lease",
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_a_broken_promise_is_found(breaks: Callable[[History], None]) -> None:
    history = good()
    breaks(history)
    found = problems(history, 1, 1 << 20)
    assert any(said.startswith(BROKEN[breaks]) for said in found), found
