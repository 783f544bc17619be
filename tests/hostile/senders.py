"""Ways to put a record into a carrier by hand, and to overhear what an honest actor puts.

The socket of local:// is not written down either; seen from outside it is SOCK_SEQPACKET, a packet a record: its length
(u64) and the descriptor of a memory file; answered by 8 bytes (a double: a time) once it is taken.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import time
from pathlib import Path
from typing import Protocol

from .roles import Run

LENGTH = struct.Struct("<Q")


class Sender(Protocol):
    """Puts records."""

    def put(self, data: bytes) -> None:
        """Put one; returns when it was taken, or refused without a word."""

    def close(self) -> None:
        """Close the connection."""


class LocalSender:
    """Into local://."""

    def __init__(self, path: str):
        self._path = path
        self._socket = self._connect()

    def _connect(self) -> socket.socket:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.settimeout(10.0)
        s.connect(self._path)
        return s

    def put(self, data: bytes) -> None:
        """Hand a memory file over; connects anew where the learner closed on us."""
        self.put_raw(data, LENGTH.pack(len(data)))

    def put_raw(self, data: bytes, packet: bytes, n_files: int = 1) -> None:
        """Hand memory files with ``data`` over with any packet."""
        fds = [os.memfd_create("hostile") for _ in range(n_files)]
        try:
            for fd in fds:
                os.truncate(fd, len(data))
                os.pwrite(fd, data, 0)
            self.send(packet, fds)
            self._socket.recv(16)
        except (ConnectionError, TimeoutError):
            self._socket.close()
            self._socket = self._connect()
        finally:
            for fd in fds:
                os.close(fd)

    def send(self, packet: bytes, fds: list[int]) -> None:
        """One packet with descriptors."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._socket.sendmsg([packet], control)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class KafkaSender:
    """Into kafka://."""

    def __init__(self, url: str):
        from kafka import KafkaProducer

        server, self._topic = url.removeprefix("kafka://").partition("?")[0].split("/")
        self._producer = KafkaProducer(bootstrap_servers=server, max_request_size=64 << 20, linger_ms=0)

    def put(self, data: bytes) -> None:
        """Produce and wait for the broker's word; what the broker itself refuses is no matter of ours."""
        from kafka.errors import KafkaError

        with contextlib.suppress(KafkaError):
            self._producer.send(self._topic, value=data).get(20.0)

    def close(self) -> None:
        """Close the producer."""
        self._producer.close()


def sender(url: str) -> Sender:
    """The one for an address."""
    return LocalSender(url.removeprefix("local://")) if url.startswith("local:") else KafkaSender(url)


def overhear(run: Run, index: int) -> bytes:
    """An honest record: an actor of the run is sent to a carrier that is us."""
    path = run.root / "ear"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(60.0)
        config = Path(run.root / "ear.toml")
        config.write_text(run.write_config().read_text().replace(f'"{run.url}"', f'"local://{path}"'))
        process = run.role("actor", "--index", str(index), key="ear", config=config)
        try:
            connection, _ = listener.accept()
            with connection:
                packet, fds, _, _ = socket.recv_fds(connection, 64, 4)
                data = os.pread(fds[0], LENGTH.unpack(packet)[0], 0)
                for fd in fds:
                    os.close(fd)
                connection.send(struct.pack("<d", time.time()))
        finally:
            process.kill()
            process.wait()
            del run.roles["ear"]
            path.unlink()
    return data
