"""Bad input, as processes meet it: a thousand damaged records among good ones, and starts that cannot go well."""

from __future__ import annotations

import json
import shutil
import struct
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.common import codec
from headrace.common.errors import Rejected
from headrace.common.metrics import Metrics
from headrace.common.seeding import stream
from headrace.common.transport import Limits
from headrace.common.transport.kafka_address import parse
from headrace.common.transport.kafka_dead import LINES
from headrace.common.transport.kafka_topics import prepare
from headrace.common.transport.local import LocalSource
from headrace.common.transport.local_sink import LocalSink
from headrace.common.types import Trajectory
from headrace.common.weights.grpc import GrpcSubscriber
from headrace.launch.build import Blueprint
from headrace.launch.serial import run_serial
from headrace.learner.checkpoint_writer import CheckpointWriter
from tests.common import independent
from tests.faults.run import Run
from tests.faults.variants import long

BAD, GOOD = 1000, 120
T, B = 4, 2


def fragment(blueprint: Blueprint, seq: int, per_version: int, **arrays: np.ndarray) -> Trajectory:
    """The fragment that version ``seq // per_version`` is made from, of an actor nobody started."""
    rng, (features,) = stream(0, "fragment", seq), blueprint.spaces.obs_shape
    made = {
        "obs": rng.standard_normal((T + 1, B, features), dtype=np.float32),
        "action": rng.integers(0, blueprint.spaces.n_actions, (T, B)),
        "reward": rng.standard_normal((T, B), dtype=np.float32),
        "terminated": np.eye(T, B, dtype=bool),
        "truncated": np.zeros((T, B), bool),
        "behaviour_logp": np.full((T, B), -0.7, np.float32),
        "final_obs": rng.standard_normal((2, features), dtype=np.float32),
    } | arrays
    made = {name: made[name] for name in blueprint.schema.fields}
    who = (blueprint.config.run.id, 1, 0, 7, seq, seq // per_version, seq)
    return Trajectory(*who, blueprint.task_id, blueprint.schema.hash, T, B, made)


#: What passes every check and is hard to digest all the same.
ABSURD = {
    20: {"behaviour_logp": np.full((T, B), -1e6, np.float32)},
    21: {"behaviour_logp": np.full((T, B), 1e6, np.float32)},
    30: {"reward": np.full((T, B), 9e14, np.float32)},
    31: {"obs": np.full((T + 1, B, 4), -9e14, np.float32)},
}
#: What only the values or the stamps give away.
POISON: dict[str, Callable[[Trajectory], Trajectory]] = {
    "nan": lambda t: with_array(t, "reward", np.full((T, B), np.nan, np.float32)),
    "inf": lambda t: with_array(t, "obs", np.full((T + 1, B, 4), np.inf, np.float32)),
    "huge": lambda t: with_array(t, "reward", np.full((T, B), 1e30, np.float32)),
    "no such action": lambda t: with_array(t, "action", np.full((T, B), 2)),
    "negative action": lambda t: with_array(t, "action", np.full((T, B), -1)),
    "another length": lambda t: Trajectory(**{**vars(t), "T": 1, "arrays": one_step(t)}),
    "last lease": lambda t: Trajectory(**{**vars(t), "lease": 2**63 - 1}),
    "another run": lambda t: Trajectory(**{**vars(t), "run_id": "another"}),
    "another schema": lambda t: Trajectory(**{**vars(t), "schema_hash": "0" * 16}),
    "another dtype": lambda t: with_array(t, "reward", np.zeros((T, B), np.float64)),
    "another shape": lambda t: with_array(t, "obs", np.zeros((T + 1, B, 5), np.float32)),
}


def with_array(t: Trajectory, name: str, array: np.ndarray) -> Trajectory:
    return Trajectory(**{**vars(t), "arrays": {**t.arrays, name: array}})


def one_step(t: Trajectory) -> dict[str, np.ndarray]:
    """Its first step, whole in itself."""
    cut = {"obs": 2, "final_obs": 1}
    return {name: array[: cut.get(name, 1)] for name, array in t.arrays.items()}


def damaged(whole: bytes, is_bad: Callable[[bytes], bool]) -> list[bytes]:
    """``BAD`` records that are refused: ``whole`` mutated, with the CRC as it was or made right again."""
    at = st.integers(0, len(whole) - 1)
    patch = st.binary(min_size=1, max_size=40)
    mutated = st.one_of(
        st.builds(lambda i, bit: whole[:i] + bytes([whole[i] ^ (1 << bit)]) + whole[i + 1 :], at, st.integers(0, 7)),
        st.builds(lambda i: whole[:i], at),
        st.builds(lambda i, new: whole[:i] + new + whole[i + len(new) :], at, patch),
        st.builds(lambda i, more: whole[:i] + more + whole[i:], at, patch),
        st.binary(max_size=200),
    )
    reframed = st.builds(with_crc, mutated.filter(lambda data: len(data) >= codec.PREFIX_BYTES))
    found: list[bytes] = []

    @settings(max_examples=3 * BAD, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.one_of(mutated, reframed))
    def collect(data: bytes) -> None:
        if len(found) < BAD and is_bad(data):
            found.append(data)

    collect()
    assert len(found) == BAD
    return found


def with_crc(data: bytes) -> bytes:
    fixed = bytearray(data)
    crc = crc32c(data[codec.PREFIX_BYTES :], crc32c(data[: codec.PREFIX.size]))
    struct.pack_into("<I", fixed, codec.PREFIX.size, crc)
    return bytes(fixed)


@pytest.mark.parametrize(("algorithm", "carrier"), [long("ppo", "local"), long("dqn", "local"), ("ppo", "kafka")])
def test_a_thousand_damaged_records_cost_nothing_but_themselves(
    new_run: Callable[..., Run], request: pytest.FixtureRequest, algorithm: str, carrier: str
) -> None:
    url = "local://"
    if carrier == "kafka":
        server = request.getfixturevalue("kafka_bootstrap")
        url = f"kafka://{server}/faults-{uuid.uuid4().hex[:12]}?partitions=1"  # one, so that the order is known
    run = new_run(
        algorithm,
        f"transport.url='{url}'",
        "actors.envs=2",
        f"actors.fragment_steps={T}",
        f"run.total_steps={GOOD * T * B}",
    )
    blueprint, per_version = Blueprint(run.config), run.config.algorithm_config().fragments
    good = [fragment(blueprint, seq, per_version, **ABSURD.get(seq, {})) for seq in range(GOOD)]
    whole = [codec.encode(t, 1 << 20) for t in good]

    def reason(data: bytes) -> str:
        try:
            blueprint.check_fragment(codec.decode(data, run.config.transport.record_bytes))
        except Rejected as refused:
            return refused.reason
        return ""

    poison = [codec.encode(make(good[0]), 1 << 20) for make in POISON.values()]
    assert all(map(reason, poison))
    assert not any(map(reason, whole))
    bad = [*poison, *damaged(whole[0], lambda data: bool(reason(data)))[: BAD - len(poison)]]

    run.role("paramserver")
    learner = run.role("learner")
    send(run, mixed(good, bad))
    code, said = run.end(learner)
    assert code == 0, said
    lines = said.splitlines()
    assert all(" rejected (" in line for line in lines[:LINES])
    assert all("further rejected records are only counted" in line for line in lines[LINES:])
    assert len(lines) <= LINES + 1

    counters = run.checkpoint().info["counters"]
    assert counters["fragments"] == GOOD, "every good one was trained on"
    assert counters["rejected"] == Counter(map(reason, bad))
    assert run.rows[-1]["rejected"] == Counter(map(reason, bad)), "counted by reason"
    assert kept(run) == Counter((reason(data), decodable(data) or data) for data in bad), "kept by reason"
    for part in run.checkpoint().parts.values():
        assert all(np.isfinite(a).all() for a in part.tensors.values())


def mixed(good: list[Trajectory], bad: list[bytes]) -> Iterator[Trajectory | bytes]:
    """The bad ones spread among the good ones; a good one last."""
    gaps = len(good) - 1
    for n, trajectory in enumerate(good):
        yield trajectory
        yield from bad[n * len(bad) // gaps : (n + 1) * len(bad) // gaps]


def send(run: Run, records: Iterator[Trajectory | bytes]) -> None:
    """As an actor would, through the real carrier, each good one under a lease of its own."""
    url, limits = run.config.transport.url, Blueprint(run.config).limits
    subscriber = GrpcSubscriber(run.config.weights.address, run.config.run.id, 0, 7, "", Metrics("actor"))
    frames, have = list[bytes](), -1
    sink = None if url.startswith("kafka") else LocalSink(url, limits, Metrics("actor"), "0")

    def put() -> None:
        if sink is None:
            independent.produce(parse(url).brokers[0], parse(url).topic, frames)
        else:
            for frame in frames:
                sink.put_frame([frame], timeout_s=30)
        frames.clear()

    if sink is None:
        prepare(parse(url), limits, create=True)
    for record in records:
        if isinstance(record, Trajectory):
            lease = subscriber.next(have, 30.0)
            assert lease is not None
            assert lease.number == record.lease
            have = lease.weights.version if lease.weights else have
            frames.append(codec.encode(replace(record, policy_version=have), 1 << 20))
            put()
            subscriber.delivered()
        else:
            frames.append(record)
    subscriber.close()
    if sink is not None:
        sink.close(timeout_s=30)


def kept(run: Run) -> Counter[tuple[str, bytes]]:
    """(reason, record) of the dead letters."""
    url = run.config.transport.url
    if url.startswith("kafka"):
        letters = independent.consume(parse(url).brokers[0], parse(url).dead_topic)
        return Counter((dict(m.headers() or [])["reason"].decode(), m.value() or b"") for m in letters)
    folder = run.dir / "dead_letter"
    lines = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    return Counter((line["reason"], (folder / line["file"]).read_bytes()) for line in lines)


def decodable(data: bytes) -> bytes:
    """As the learner keeps what its decoder let through."""
    try:
        return codec.encode(codec.decode(data, 1 << 20), 1 << 20)
    except Rejected:
        return b""


# --- starts that cannot go well ------------------------------------------------------------------------------------


@pytest.fixture
def trained(new_run: Callable[..., Run]) -> Run:
    """A run with two checkpoints."""
    run = new_run("ppo", name="trained")
    with CheckpointWriter(run.dir / "checkpoints") as writer:
        for versions in (1, 2):
            parts, info = run_serial(run.config, versions=versions).snapshot()
            writer.save(versions, parts, info)
    return run


def copy(trained: Run, run: Run) -> list[Path]:
    """The checkpoints of a run in another one's place, oldest first."""
    shutil.copytree(trained.dir / "checkpoints", run.dir / "checkpoints")
    return sorted((run.dir / "checkpoints").glob("ckpt-*"))


def cut(path: Path) -> None:
    file = path / "algorithm.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip(path: Path) -> None:
    file = path / "algorithm.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_starts_that_cannot_go_well_say_so_in_one_line(
    trained: Run, new_run: Callable[..., Run], tmp_path: Path
) -> None:
    same = f"run.id={trained.config.run.id}"
    starts = {}

    def start(name: str, says: str, role: str, *more: str, damage: Callable[[Path], None] | None = None,
              settings: tuple[str, ...] = ()) -> None:  # fmt: skip
        run = new_run("ppo", *settings, name=name)
        for path in copy(trained, run) if "--resume" in more else []:
            if damage is not None:
                damage(path)
        starts[name] = (run, run.role(role, *more), says)

    start("another run", f"run_id is '{trained.config.run.id}', but this run has", "learner", "--resume")
    start("another network", "checkpoint of another network", "learner", "--resume",
          settings=(same, "algorithm.hidden=[8]"))  # fmt: skip
    start("truncated", "none of the 2 checkpoints", "learner", "--resume", settings=(same,), damage=cut)
    start("another hash", "none of the 2 checkpoints", "learner", "--resume", settings=(same,), damage=flip)
    trained.role("paramserver")
    there = f"weights.address={trained.config.weights.address}"
    start("foreign paramserver, learner", f"serves run '{trained.config.run.id}', not", "learner", settings=(there,))
    carrier = f"local://{tmp_path}/t"  # the actor's learner: one of those above has ended when it pleases
    source = LocalSource(carrier, Limits(), Metrics("learner"), tmp_path / "dead")
    start("foreign paramserver, actor", f"serves run '{trained.config.run.id}', not", "actor",
          settings=(there, f"transport.url={carrier}"))  # fmt: skip
    for name, (run, process, says) in starts.items():
        code, said = run.end(process)
        assert code == 2, (name, said)
        *before, last = said.splitlines()
        assert last.startswith("headrace "), (name, said)
        assert says in last, (name, said)
        assert all(line.startswith("checkpoint /") for line in before), (name, said)  # each one that it passed over
    source.close()
