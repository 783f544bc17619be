"""What must not matter: clocks that are wrong, and records that come twice. In lockstep, through a real broker, the
parameters are the serial runner's, bit for bit, all the same."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from headrace.common.transport.kafka_address import parse
from headrace.common.transport.kafka_topics import prepare
from headrace.launch.build import Blueprint
from headrace.launch.serial import run_serial
from tests.faults.run import Run

LOCKSTEP = ("learner.max_staleness=0", "learner.device=cpu", "run.total_steps=3000", "run.checkpoint_every_s=1")
#: Role -> its clock, in seconds beside the right one.
WRONG = {"paramserver": "0,3600", "learner": "0,-3600", "actor-0": "-3600", "actor-1": "3600,0,-3600"}
CLOCKS = Path(__file__).resolve().parent / "wrong_clock"


@pytest.fixture
def lockstep(new_run: Callable[..., Run], kafka_bootstrap: str) -> Run:
    """A run whose topic is there."""
    url = f"kafka://{kafka_bootstrap}/faults-{uuid.uuid4().hex[:12]}?partitions=2"
    run = new_run("ppo", f"transport.url='{url}'", *LOCKSTEP)
    prepare(parse(url), Blueprint(run.config).limits, create=True)
    return run


def assert_the_serial_runners(run: Run) -> dict[str, int]:
    """Version, fragments and parameters of the last checkpoint. Returns its counters."""
    parts, info = run_serial(run.config).snapshot()
    found, wanted = run.checkpoint(), parts["algorithm"]
    assert found.info["counters"]["version"] == info["counters"]["version"] > 20
    assert found.info["counters"]["fragments"] == info["counters"]["fragments"]
    ours = found.parts["algorithm"].tensors
    assert ours.keys() == wanted.tensors.keys()
    for name, tensor in wanted.tensors.items():
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name, strict=True)
    return dict(found.info["counters"])


def play(run: Run, clocks: dict[str, str]) -> None:
    """All roles, each with its clock, until the learner has come to its end."""

    def role(name: str, *more: str) -> object:
        env = {"PYTHONPATH": str(CLOCKS), "HEADRACE_CLOCK_S": clocks[name]} if name in clocks else {}
        return run.role(name.partition("-")[0], *more, env=env)

    role("paramserver")
    learner = role("learner", "--episodes", "0")
    for index in range(2):
        role(f"actor-{index}", "--index", str(index))
    code, said = run.end(learner)  # type: ignore[arg-type]
    assert code == 0, said


def test_clocks_that_are_wrong_and_jump_change_nothing(lockstep: Run) -> None:
    play(lockstep, WRONG)
    assert assert_the_serial_runners(lockstep)["rejected"] == {}
    times = [row["time_s"] for row in lockstep.rows]
    assert times == sorted(times), "durations are of a clock that only goes forward"
    assert times[-1] < 600


@pytest.fixture
def repeated(lockstep: Run) -> Iterator[Run]:
    """Whatever comes into its topic is put into it again, by somebody else."""
    over, address = threading.Event(), parse(lockstep.config.transport.url)
    consumer = Consumer({"bootstrap.servers": address.brokers[0], "group.id": "repeat", "enable.auto.commit": False})
    consumer.assign([TopicPartition(address.topic, p, OFFSET_BEGINNING) for p in range(2)])
    producer = Producer({"bootstrap.servers": address.brokers[0], "message.max.bytes": 8 << 20})

    def repeat() -> None:
        while not over.is_set():
            message = consumer.poll(0.1)
            if message is None or message.error() is not None or ("again", b"") in (message.headers() or []):
                continue
            headers = [*(message.headers() or []), ("again", b"")]
            producer.produce(address.topic, message.value(), message.key(), message.partition(), headers=headers)
            producer.poll(0)

    thread = threading.Thread(target=repeat)
    thread.start()
    yield lockstep
    over.set()
    thread.join()
    producer.flush(10)
    consumer.close()


def test_every_record_twice_is_every_record_once(repeated: Run) -> None:
    play(repeated, {})
    counters = assert_the_serial_runners(repeated)
    assert counters["rejected"].keys() == {"duplicate"}
    assert counters["rejected"]["duplicate"] > 20
