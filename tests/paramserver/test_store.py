"""The store and its in-process carrier: latest wins, fences, copies."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.common.errors import Fenced, UsageError
from headrace.common.types import Weights
from headrace.common.weights.base import Progress
from headrace.paramserver.inprocess import InProcess
from headrace.paramserver.ledger import Ledger
from headrace.paramserver.lockstep import make_ledger
from headrace.paramserver.store import LeaseRequest, Store, Version, Writer

FIRST = Writer("run-1", 1, 11)


def store() -> Store[str]:
    made: Store[str] = Store(Ledger())
    made.publish(FIRST, version(5), Progress(10), None, 0.0)
    return made


def version(number: int, epoch: int = 1, digest: bytes = b"") -> Version[str]:
    return Version(epoch, number, digest or bytes([number]), f"content {number}")


def ask(have: tuple[int, int] = (0, -1), run_id: str = "run-1") -> LeaseRequest:
    return LeaseRequest(run_id, 0, 1, (), have)


def test_nothing_is_given_before_the_first_version() -> None:
    assert Store[str](Ledger()).next(ask(), 0.0) is None


@pytest.mark.parametrize(
    ("have", "sent"),
    [
        ((0, -1), True),
        ((1, 4), True),
        ((1, 5), False),
        ((1, -1), True),
        ((0, 99), True),
        ((-1, 4), True),
        ((-1, 5), False),
    ],
)
def test_weights_are_sent_to_who_has_older_ones(have: tuple[int, int], sent: bool) -> None:
    grant = store().next(ask(have), 0.0)
    assert grant is not None
    assert (grant.version is not None) == sent


def test_no_leave_for_an_actor_that_knows_a_newer_learner() -> None:
    assert store().next(ask((2, 0)), 0.0) is None


def test_the_latest_wins_and_a_repetition_changes_nothing() -> None:
    made = store()
    assert made.publish(FIRST, version(6), Progress(12), None, 0.0)
    assert not made.publish(FIRST, version(6), Progress(12), None, 0.0)
    assert made.current == version(6)
    assert made.ledger.admit_until == 12


@pytest.mark.parametrize(
    ("writer", "published", "match"),
    [
        (FIRST, version(4), "refused"),
        (FIRST, version(5, digest=b"x"), "other content"),
        (Writer("run-1", 0, 11), version(9, epoch=0), "taken over"),
        (Writer("run-1", 1, 12), version(6), "only one may"),
    ],
)
def test_what_is_fenced(writer: Writer, published: Version[str], match: str) -> None:
    made = store()
    with pytest.raises(Fenced, match=match):
        made.publish(writer, published, Progress(99), None, 0.0)
    assert (made.current, made.ledger.admit_until) == (version(5), 10)


def test_another_run_is_refused_everywhere() -> None:
    made, other = store(), Writer("run-2", 9, 1)
    with pytest.raises(UsageError, match="run-2"):
        made.publish(other, version(6), Progress(1), None, 0.0)
    with pytest.raises(UsageError, match="run-2"):
        made.admit(other, Progress(1), 0.0)
    with pytest.raises(UsageError, match="run-2"):
        made.next(ask(run_id="run-2"), 0.0)
    with pytest.raises(UsageError, match="run-1"):
        Store[str](Ledger(), "run-3").publish(FIRST, version(0), Progress(1), None, 0.0)


def test_a_new_epoch_may_start_from_an_older_version() -> None:
    made = store()
    assert made.next(ask(), 0.0) is not None
    made.publish(Writer("run-1", 2, 12), version(3, epoch=2), Progress(4, accepted=3), None, 0.0)
    assert made.current == version(3, epoch=2)
    assert made.ledger.begun == 4, "three consumed, one in the making"


def test_counters_of_a_learner_that_has_not_published_are_not_taken() -> None:
    made: Store[str] = Store(Ledger())
    made.admit(FIRST, Progress(5), 0.0)
    assert made.ledger.admit_until == 0


def test_in_process_carrier() -> None:
    carrier = InProcess(Store(make_ledger(2)), clock=lambda: 0.0)
    tensors = {"w": np.zeros(3, np.float32)}
    carrier.publish(Weights("run-1", 1, 0, tensors), Progress(2))
    tensors["w"][:] = 9
    one, two = carrier.subscriber("run-1", 0, 1), carrier.subscriber("run-1", 1, 1)
    first, second = one.next(-1, 0.0), two.next(-1, 0.0)
    assert first is not None
    assert second is not None
    assert first.weights is not None
    assert first.weights.tensors["w"].tolist() == [0, 0, 0], "the learner goes on, the version stays"
    assert not first.weights.tensors["w"].flags.writeable
    assert (first.number, second.number) == (0, 1)
    one.delivered()
    assert one.next(0, 0.0) is None
    carrier.admit(Progress(3))
    again = one.next(0, 0.0)
    assert again is not None
    assert (again.number, again.weights) == (2, None)
