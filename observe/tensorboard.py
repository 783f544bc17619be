"""metrics.jsonl rows, evaluations and hyper-parameters as TensorBoard events, without TensorFlow and without torch.

An events file is a sequence of framed protobuf messages (TensorFlow's TFRecord): length, masked CRC32C of the length,
message, masked CRC32C of the message. The messages are the tensorboard package's own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import crc32c

from headrace.common.appender import Appender
from headrace.observe.rows import Row
from headrace.observe.scalars import evaluation_scalars, scalars

_SERIAL = itertools.count()


class TensorBoardWriter:
    """Writes rows into one events file under ``folder``. The step on TensorBoard's axis is ``env_steps``.

    A file that begins behind step 0 tells TensorBoard to forget what older files hold beyond the checkpoint it goes on
    from. A disk that is full holds events up and ends nothing.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        self._event, self._session = event_pb2.Event, event_pb2.SessionLog
        self._summary = summary_pb2.Summary
        self._clock = clock
        self._began = False
        with contextlib.suppress(OSError):  # the first event says so
            folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(clock()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_SERIAL)}"
        self._file = Appender(folder / name)
        self._write(self._event(wall_time=clock(), file_version="brain.Event:2"))

    def show(self, rows: Sequence[Row]) -> None:
        """Add rows, oldest first."""
        for row in rows:
            step, now = row["env_steps"], self._clock()
            if not self._began and step > 0:
                start = self._session(status=self._session.START)
                begun = row.get("resumed_at_steps", step - 1) + 1  # TensorBoard forgets from this step on
                self._write(self._event(wall_time=now, step=begun, session_log=start))
            self._began = True
            self._scalars(step, scalars(row))

    def evaluated(self, evaluations: Sequence[Mapping[str, Any]]) -> None:
        """Add evaluations (observe/evaluations.py), each at the step of its version; where that is known."""
        for found in evaluations:
            if found.get("env_steps") is not None:
                self._scalars(found["env_steps"], evaluation_scalars(found))

    def hyper_parameters(self, values: Mapping[str, Any], run_id: str) -> None:
        """Add what the run was started with, for the tab HPARAMS; anything but a number or a truth value as text."""
        from tensorboard.plugins.hparams import summary_v2  # api.py, its public face, needs TensorFlow

        plain = {name: v if isinstance(v, bool | int | float) else str(v) for name, v in values.items()}
        self._write(self._event(wall_time=self._clock(), summary=summary_v2.hparams_pb(plain, trial_id=run_id)))

    def close(self) -> None:
        self._file.close()

    def _scalars(self, step: int, values: Iterable[tuple[str, float]]) -> None:
        summary = self._summary(value=[self._summary.Value(tag=tag, simple_value=value) for tag, value in values])
        self._write(self._event(wall_time=self._clock(), step=step, summary=summary))

    def _write(self, event: object) -> None:
        data: bytes = event.SerializeToString()  # type: ignore[attr-defined]
        length = struct.pack("<Q", len(data))
        self._file.add(length + _masked(length) + data + _masked(data))


def _masked(data: bytes) -> bytes:
    """The CRC32C of ``data``, rotated and shifted so that a CRC of data that holds CRCs stays a good one."""
    crc = crc32c.crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
