"""What a checkpoint keeps, what is refused, and what stays when there are many."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.algorithms.base import State
from headrace.common.errors import CheckpointFailed, UsageError
from headrace.common.metrics import Metrics
from headrace.learner import checkpoint_reader, checkpoint_writer
from headrace.learner.checkpoint_writer import CheckpointWriter

INFO = {"run_id": "r1", "learner_epoch": 1, "network": {"hidden": [64, 64]}, "counters": {"version": 7}}
PARTS = {
    "algorithm": State({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(3)}, {"lr": 1e-3}),
    "experience": State({}, {"rng": {"state": str(2**127)}}),
}


class NoWait:
    """The module os, but for the waiting of fsync."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, fd: int) -> None:
        """Crashes are test_checkpoint_crash.py's affair."""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int8, np.int64, np.uint8, np.uint32, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
states = st.builds(
    State,
    st.dictionaries(st.text(min_size=1, max_size=6).filter(lambda n: n != "__metadata__"), arrays, max_size=3),
    st.dictionaries(st.text(max_size=6), json_values, max_size=3),
)


def assert_equal(have: dict[str, State] | Any, want: dict[str, State]) -> None:
    assert sorted(have) == sorted(want)
    for name, state in want.items():
        assert dict(have[name].values) == dict(state.values)
        assert sorted(have[name].tensors) == sorted(state.tensors)
        for key, tensor in state.tensors.items():
            loaded = have[name].tensors[key]
            assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape)
            assert loaded.tobytes() == tensor.tobytes()


@settings(max_examples=40, deadline=None)
@given(
    parts=st.dictionaries(st.sampled_from(["algorithm", "experience", "a1_b"]), states),
    info=st.dictionaries(st.text(max_size=6).filter(lambda k: k != "learner_epoch"), json_values, max_size=3),
    step=st.integers(0, 10**12 - 1),
)
def test_what_is_saved_is_loaded(
    parts: dict[str, State], info: dict[str, Any], step: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("ckpt")
    with CheckpointWriter(root, fs=NoWait()) as writer:
        path = writer.save(step, parts, info)
        found = writer.latest()
    assert found is not None
    assert (found.path, found.step, found.info) == (path, step, info)
    assert_equal(found.parts, parts)


def test_transposed_and_scalar_arrays_keep_shape_and_values(tmp_path: Path) -> None:
    parts = {"a": State({"t": np.arange(6).reshape(2, 3).T, "s": np.float64(2.5).reshape(()), "e": np.zeros((0, 3))})}
    with CheckpointWriter(tmp_path) as writer:
        loaded = checkpoint_reader.load(writer.save(1, parts, {})).parts["a"].tensors
    np.testing.assert_array_equal(loaded["t"], parts["a"].tensors["t"])
    assert [loaded[k].shape for k in "tse"] == [(3, 2), (), (0, 3)]


def test_newest_is_by_epoch_then_step(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=9) as writer:
        for epoch, step in ((1, 50), (1, 100), (2, 60), (2, 60)):
            last = writer.save(step, PARTS, INFO | {"learner_epoch": epoch, "n": step})
        found = writer.latest()
    assert last.name == "ckpt-000000000060-1"
    assert found is not None
    assert found.path == last, "what a rollback abandoned must not come back"


@pytest.mark.parametrize("keep", [1, 2, 3, 5])
def test_keeps_the_newest(tmp_path: Path, keep: int) -> None:
    with CheckpointWriter(tmp_path, keep=keep) as writer:
        for step in range(1, 9):
            writer.save(step, PARTS, INFO)
        kept = sorted(int(p.name[5:]) for p in tmp_path.glob("ckpt-*"))
    assert kept == [*range(9 - keep, 9)]
    assert not list(tmp_path.glob("tmp-*"))


def test_none_before_one_is_made(tmp_path: Path) -> None:
    assert checkpoint_reader.latest(tmp_path) is None
    assert checkpoint_reader.latest(tmp_path / "nowhere") is None


def saved(root: Path) -> Path:
    with CheckpointWriter(root, fs=NoWait()) as writer:
        writer.save(1, PARTS, INFO)
        return writer.save(2, PARTS, INFO)


@pytest.mark.parametrize(
    "name", ["manifest.json", "info.json", "algorithm.json", "algorithm.safetensors", "experience.safetensors"]
)
@pytest.mark.parametrize("how", ["removed", "truncated", "longer", "flipped"])
def test_damage_is_refused_by_name_and_passed_over_by_latest(
    tmp_path: Path, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path)
    file, content = path / name, (path / name).read_bytes()
    match how:
        case "removed":
            file.unlink()
        case "truncated":
            file.write_bytes(content[:-1])
        case "longer":
            file.write_bytes(content + b" x")
        case "flipped":
            middle = len(content) // 2
            file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(UsageError) as refused:
        checkpoint_reader.load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    found = checkpoint_reader.latest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert len(caplog.records) == 1, caplog.text


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_goes_unseen(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = saved(tmp_path_factory.mktemp("flip"))
    file = path / data.draw(st.sampled_from(sorted(p.name for p in path.iterdir())))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    try:
        found = checkpoint_reader.load(path)
    except UsageError:
        return
    # White space of the manifest carries no meaning; everything else must have been refused.
    assert file.name == "manifest.json"
    assert found.info == INFO
    assert_equal(found.parts, PARTS)


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"run_id": "r2"}, "run_id is 'r1', but this run has 'r2'"),
        ({"run_id": "r1", "network": {"hidden": (32, 32)}}, "network is {'hidden': [64, 64]}, but"),
        ({"schema": "ab"}, "schema is None, but this run has 'ab'"),
    ],
)
def test_another_run_or_network_is_refused_not_passed_over(tmp_path: Path, expect: dict[str, Any], said: str) -> None:
    saved(tmp_path)
    with pytest.raises(UsageError, match=re.escape(said)):
        checkpoint_reader.latest(tmp_path, expect)
    assert checkpoint_reader.latest(tmp_path, {"run_id": "r1", "network": {"hidden": (64, 64)}}) is not None


def test_an_unknown_format_is_refused_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(checkpoint_writer, "FORMAT", 99)
        saved(tmp_path)
    with pytest.raises(UsageError, match="format 99, this version reads format 4"):
        checkpoint_reader.latest(tmp_path)


def test_only_one_process_writes(tmp_path: Path) -> None:
    hold = "import sys, pathlib; from headrace.learner.checkpoint_writer import CheckpointWriter\n"
    hold += "w = CheckpointWriter(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdin=-1, stdout=-1, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"pid {other.pid}"):
            CheckpointWriter(tmp_path)
    finally:
        other.kill()
        other.communicate(timeout=10)
    CheckpointWriter(tmp_path).close()  # the kernel gave the dead process's lock back


def test_every_start_has_a_higher_epoch(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        with CheckpointWriter(tmp_path) as writer:
            assert writer.next_epoch() == expected
            writer.save(expected, PARTS, INFO | {"learner_epoch": expected})
    (tmp_path / "epoch.json").unlink()
    with CheckpointWriter(tmp_path) as writer:
        assert writer.next_epoch() == 4, "the checkpoints know too"
    (tmp_path / "epoch.json").write_text("{")
    with CheckpointWriter(tmp_path) as writer, pytest.raises(UsageError, match=r"epoch\.json is damaged"):
        writer.next_epoch()


class FullDisk(NoWait):
    """The module os on a disk with room for ``room`` more bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, fd: int, data: memoryview, /) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.write(fd, data[: self.room])
        self.room -= written
        return written


def test_a_full_disk_costs_one_checkpoint_not_the_run(tmp_path: Path) -> None:
    metrics, disk = Metrics("learner"), FullDisk(room=1 << 30)
    with CheckpointWriter(tmp_path, keep=2, metrics=metrics, fs=disk) as writer:
        first = writer.save(1, PARTS, INFO)
        for attempt in (1, 2, 3):
            disk.room = 700
            with pytest.raises(CheckpointFailed, match="No space left"):
                writer.save(1 + attempt, PARTS, INFO)
            assert writer.failures_in_a_row == attempt
        assert metrics.value("checkpoint_failures_total") == 3
        assert [p.name for p in tmp_path.glob("*-*")] == [first.name], "nothing half-written is left"
        with pytest.raises(CheckpointFailed, match=r"epoch\.json not written"):
            writer.next_epoch()
        disk.room = 1 << 30
        assert writer.save(9, PARTS, INFO).name == "ckpt-000000000009"
        assert writer.failures_in_a_row == 0
        assert metrics.value("checkpoint_last_timestamp_seconds") > 0


@pytest.mark.parametrize("name", ["info", "manifest", "../up", "A", ""])
def test_a_part_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with CheckpointWriter(tmp_path) as writer, pytest.raises(ValueError, match="part"):
        writer.save(1, {name: State({})}, {})


def test_files_are_safetensors_and_json(tmp_path: Path) -> None:
    path = saved(tmp_path)
    names = sorted(p.name for p in path.iterdir())
    assert names == [
        "algorithm.json",
        "algorithm.safetensors",
        "experience.json",
        "experience.safetensors",
        "info.json",
        "manifest.json",
    ]
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == set(names) - {"manifest.json"}
