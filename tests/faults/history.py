"""What happened in a run: everything that its processes recorded, the log, and the checkpoint it ended with.

recorded(folder) + topic(...) + checkpoint -> History -> checker.problems(history, ...)

A history is plain data; ``save`` and ``load`` keep it in a file, so that it can be judged again without the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace.common.codec import decode
from headrace.learner.checkpoint_reader import Checkpoint
from tests.common import independent

#: The folder that makes a role record itself, when it is on its PYTHONPATH.
RECORDING = Path(__file__).resolve().parent / "recording"


class Fragment(NamedTuple):
    """The stamps of a fragment; the first three name it, in a run."""

    actor: int
    incarnation: int
    seq: int
    lease: int
    policy_version: int
    epoch: int


class Made(NamedTuple):
    """A version, and what it was made of."""

    epoch: int
    version: int
    staleness: int
    fragments: tuple[Fragment, ...]


class Logged(NamedTuple):
    """A record of the log."""

    partition: int
    offset: int
    fragment: Fragment


@dataclass
class History:
    """``began``: (epoch, version) of each life of the learner. ``weights``: what each life of an actor received,
    (epoch, version) in order. ``positions``, ``spent`` (ranges of leases) and ``counters`` are the last checkpoint's;
    ``not_finite`` the tensors in it that hold NaN or infinity. ``memory_bytes``: resident, by process, over time."""

    sent: list[Fragment] = field(default_factory=list)
    acked: list[Fragment] = field(default_factory=list)
    taken: list[Logged] = field(default_factory=list)
    log: list[Logged] = field(default_factory=list)
    began: list[tuple[int, int]] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    weights: list[list[tuple[int, int]]] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)
    spent: list[tuple[int, int]] = field(default_factory=list)
    counters: dict[str, Any] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)
    memory_bytes: dict[str, list[int]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


def load(path: Path) -> History:
    saved = json.loads(path.read_text())
    assert saved.keys() == {f.name for f in fields(History)}, f"{path} is no history"
    return History(
        sent=[Fragment(*f) for f in saved["sent"]],
        acked=[Fragment(*f) for f in saved["acked"]],
        taken=[_logged(*record) for record in saved["taken"]],
        log=[_logged(*record) for record in saved["log"]],
        began=[(epoch, version) for epoch, version in saved["began"]],
        made=[_made(*made) for made in saved["made"]],
        weights=[[(epoch, version) for epoch, version in life] for life in saved["weights"]],
        positions={int(p): offset for p, offset in saved["positions"].items()},
        spent=[(first, end) for first, end in saved["spent"]],
        counters=saved["counters"],
        not_finite=saved["not_finite"],
        memory_bytes=saved["memory_bytes"],
    )


def recorded(folder: Path) -> History:
    """What the processes wrote down (recording/sitecustomize.py); of one that was killed, up to its death."""
    history = History()
    for file in sorted(folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime_ns):
        received: list[tuple[int, int]] = []
        for line in file.read_text().splitlines():
            kind, *what = json.loads(line)
            match kind:
                case "sent":
                    history.sent.append(Fragment(*what[0]))
                case "acked":
                    history.acked.append(Fragment(*what[0]))
                case "taken":
                    history.taken.append(_logged(*what))
                case "began":
                    history.began.append((what[0], what[1]))
                case "version":
                    history.made.append(_made(*what))
                case "weights":
                    received.append((what[0], what[1]))
        if received:
            history.weights.append(received)
    history.began.sort()
    return history


def topic(server: str, name: str, run_id: str, record_bytes: int = 8 << 20) -> list[Logged]:
    """The run's records in the log, as another client reads them."""
    records = []
    for message in independent.consume(server, name):
        t = decode(message.value(), record_bytes)
        if t.run_id == run_id:
            stamps = Fragment(t.actor_id, t.incarnation, t.seq, t.lease, t.policy_version, t.learner_epoch)
            records.append(Logged(message.partition(), message.offset(), stamps))
    return records


def add_checkpoint(history: History, found: Checkpoint) -> None:
    history.positions = {int(p): offset for p, offset in found.info["positions"].items()}
    history.spent = [(first, end) for first, end in found.info["spent"]]
    history.counters = dict(found.info["counters"])
    history.not_finite = [
        f"{part}: {name}"
        for part, state in found.parts.items()
        for name, tensor in _floats(state.tensors)
        if not np.isfinite(tensor).all()
    ]


def _floats(tensors: Mapping[str, np.ndarray]) -> Iterable[tuple[str, np.ndarray]]:
    return ((name, tensor) for name, tensor in tensors.items() if tensor.dtype.kind == "f")


def _made(epoch: int, version: int, staleness: int, fragments: Iterable[Iterable[int]]) -> Made:
    return Made(epoch, version, staleness, tuple(Fragment(*f) for f in fragments))


def _logged(partition: int, offset: int, fragment: Iterable[int]) -> Logged:
    return Logged(partition, offset, Fragment(*fragment))
