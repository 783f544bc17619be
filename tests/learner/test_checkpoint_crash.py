"""Dies at every step of writing a checkpoint, by kill and by power cut, and by real SIGKILLs: one is always whole."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.algorithms.base import Block, State
from headrace.learner import checkpoint_reader
from headrace.learner.checkpoint_writer import CheckpointWriter


class Crash(BaseException):
    """The process is gone: nothing that catches Exception may go on."""


class Dying:
    """The module os, until step ``at``; that step is done by half (a write) or not at all, and nothing after it.

    With ``power_cut``, content that was not fsynced is gone as well, and a rename whose directory was not fsynced did
    not happen.
    """

    def __init__(self, at: int, power_cut: bool) -> None:
        self.at, self.power_cut, self.steps = at, power_cut, 0
        self.names: dict[int, str] = {}
        self.unsynced: set[str] = set()
        self.nameless: set[str] = set()  # files whose directory was not fsynced since they were created
        self.renamed: list[tuple[str, str, bytes | None]] = []

    def _step(self) -> bool:
        """Count one; True for the step to die in. After it, no step is carried out any more."""
        self.steps += 1
        if self.steps > self.at:
            raise Crash
        return self.steps == self.at

    def _die(self) -> None:
        if self.power_cut:
            for src, dst, replaced in reversed(self.renamed):
                os.rename(dst, src)
                if replaced is not None:
                    Path(dst).write_bytes(replaced)
            for path in self.unsynced:
                if os.path.isfile(path):
                    os.truncate(path, 0)
        raise Crash

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        if self._step():
            self._die()
        os.mkdir(path, mode)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        if self._step():
            self._die()
        fd = os.open(path, flags, mode)
        self.names[fd] = path
        if flags & os.O_CREAT:
            self.nameless.add(path)
        return fd

    def write(self, fd: int, data: memoryview, /) -> int:
        self.unsynced.add(self.names[fd])
        if self._step():
            os.write(fd, data[: len(data) // 2])
            self._die()
        return os.write(fd, data[: max(1, len(data) // 2)])

    def fsync(self, fd: int) -> None:
        if self._step():
            self._die()
        path = self.names[fd]
        self.unsynced.discard(path)
        self.nameless = {n for n in self.nameless if os.path.dirname(n) != path}
        self.renamed = [r for r in self.renamed if os.path.dirname(r[1]) != path]

    def close(self, fd: int) -> None:
        os.close(fd)  # a dead process's files are closed too

    def rename(self, src: str, dst: str) -> None:
        if self._step():
            self._die()
        assert src not in self.unsynced, "renamed before its content was durable"
        assert not [p for p in self.unsynced | self.nameless if p.startswith(f"{src}/")], "renamed before it was whole"
        replaced = Path(dst).read_bytes() if os.path.isfile(dst) else None
        os.rename(src, dst)
        self.renamed.append((src, dst, replaced))

    def link(self, src: str, dst: str) -> None:
        if self._step():
            self._die()
        assert src not in self.unsynced, "linked before its content was durable"
        os.link(src, dst)
        self.nameless.add(dst)

    def unlink(self, path: str) -> None:
        if self._step():
            self._die()
        os.unlink(path)
        self.unsynced.discard(path)

    def rmdir(self, path: str) -> None:
        if self._step():
            self._die()
        os.rmdir(path)


def parts(step: int) -> dict[str, State]:
    """With two blocks: one is the same in every checkpoint, one never is."""
    blocks = {"stays": KEPT, "goes": Block({"w": np.full(3, step, np.float32)})}
    return {"algorithm": State({"w": np.full(5, step, np.float32)}, {"step": step}, blocks)}


#: What a buffer holds from one checkpoint to the next.
KEPT = Block({"w": np.arange(9, dtype=np.float32)})


def assert_whole(found: checkpoint_reader.Checkpoint | None) -> int:
    assert found is not None
    assert found.parts["algorithm"].values["step"] == found.step == found.info["step"]
    np.testing.assert_array_equal(found.parts["algorithm"].tensors["w"], np.full(5, found.step))
    for name, expected in (("stays", np.arange(9)), ("goes", np.full(3, found.step))):
        np.testing.assert_array_equal(found.parts["algorithm"].blocks[name].read()["w"], expected)
    return found.step


#: A system that lives for ever: the same seam without waiting for a disk.
LIVING = Dying(at=1 << 60, power_cut=False)


def crash_at(root: Path, at: int, power_cut: bool, keep: int) -> bool:
    """Two old checkpoints, then a third one (with ``keep`` 2 it pushes the first out) on a system that dies.

    False: it lived.
    """
    with CheckpointWriter(root, keep=keep, fs=LIVING) as writer:
        for step in (1, 2):
            path = writer.save(step, parts(step), {"step": step})
        assert (path / "algorithm.stays.safetensors").stat().st_nlink == 2
        assert writer.next_epoch() == 1
    dying = Dying(at, power_cut)
    writer = CheckpointWriter(root, keep=keep, fs=dying)
    writer.latest()  # as a learner that goes on
    returned, epoch = 0, 1
    try:
        epoch = writer.next_epoch()
        writer.save(3, parts(3), {"step": 3})
        returned = 3
        return False
    except Crash:
        return True
    finally:
        writer.close()
        newest = assert_whole(checkpoint_reader.latest(root))
        assert newest >= (returned or 2), "a save that returned is durable"
        with CheckpointWriter(root, keep=keep, fs=LIVING) as after:
            assert not list(root.glob("tmp-*")), "what the dead writer left is removed"
            assert after.next_epoch() > epoch, "a number that was given is not given again"
            after.save(4, parts(4), {"step": 4})
            assert assert_whole(after.latest()) == 4


@pytest.mark.parametrize("keep", [2, 9])
@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power_cut"])
def test_every_step_can_be_the_last(
    tmp_path: Path, power_cut: bool, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    for at in itertools.count(1):
        root = tmp_path / str(at)
        if not crash_at(root, at, power_cut, keep):
            break
    assert at > 40, "the seam sees every write, fsync, rename and removal"
    assert not caplog.records, "nothing damaged was ever seen"


WRITER = """
import sys, pathlib, numpy as np
from headrace.algorithms.base import Block, State
from headrace.learner.checkpoint_writer import CheckpointWriter
root = pathlib.Path(sys.argv[1])
with CheckpointWriter(root, keep=2) as writer:
    found = writer.latest()
    step = 0 if found is None else found.step
    blocks = {"stays": Block({"w": np.arange(9, dtype=np.float32)})}
    if found is not None:
        blocks["stays"] = found.parts["algorithm"].blocks["stays"]
    while True:
        step += 1
        tensors = {"w": np.full(5, step, np.float32), "bulk": np.zeros(200_000)}
        blocks["goes"] = Block({"w": np.full(3, step, np.float32)})
        writer.save(step, {"algorithm": State(tensors, {"step": step}, blocks)}, {"step": step})
        print(step, flush=True)
"""


def test_sigkill_at_any_moment_leaves_a_whole_one(tmp_path: Path) -> None:
    chance, last = random.Random(5), 0
    for _ in range(10):
        child: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert child.stdout is not None
            said = int(child.stdout.readline())
            assert said == last + 1, "it goes on from the newest"
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(chance.uniform(0, 0.1))
        finally:
            child.send_signal(signal.SIGKILL)
            rest: Any = child.communicate(timeout=10)[0]
        newest = assert_whole(checkpoint_reader.latest(tmp_path))
        acknowledged = [said, *map(int, rest.split())]
        assert acknowledged[-1] <= newest <= acknowledged[-1] + 1
        last = newest
