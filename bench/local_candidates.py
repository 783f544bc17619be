"""Ways to carry frames between processes of one machine, each as small as a fair comparison allows.

Every candidate does the whole path: encode, hand over, crc, decode, a bounded queue before the reader. A ``send`` runs
in a producer process, a ``receive`` starts the consumer's reader thread(s). bench/local_carrier.py measures them.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import queue
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

try:
    import zmq
except ImportError:  # not a dependency: `pip install pyzmq` to see it beside the others
    zmq = None

from headrace.common import codec
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, open_sink, open_source
from headrace.common.types import Trajectory

CAP = 8 << 20
DEADLINE_S = 60.0
DEPTH = 8  # records the reader holds ahead of get()
WINDOW = 8  # records a producer may have under way, where the candidate itself sets no bound

Send = Callable[[Trajectory], None]
Get = Callable[[], Trajectory]


def _serve(path: str, producers: int, read: Callable[[socket.socket, Any], None]) -> Get:
    """Accept ``producers`` connections, each with a thread that runs ``read(connection, queue)``."""
    ready: queue.Queue[Trajectory] = queue.Queue(DEPTH)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def accept() -> None:
        for _ in range(producers):
            threading.Thread(target=read, args=(listener.accept()[0], ready), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return lambda: ready.get(timeout=DEADLINE_S)


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def _exactly(connection: socket.socket, view: memoryview) -> bool:
    while view:
        try:
            got = connection.recv_into(view, len(view), socket.MSG_WAITALL)
        except ConnectionResetError:  # gone with our last answers unread
            got = 0
        if got == 0:
            return False
        view = view[got:]
    return True


# --- a stream socket, frames behind their length ---------------------------------------------------------------------


def socket_send(path: str, sndbuf: int = 0) -> Send:
    connection = _connect(path)
    if sndbuf:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)

    def send(trajectory: Trajectory) -> None:
        parts = codec.encode_parts(trajectory, CAP)
        views = [memoryview(struct.pack("<Q", sum(len(p) for p in parts))), *map(memoryview, parts)]
        while views:
            sent = connection.sendmsg(views)
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if sent:
                views[0] = views[0][sent:]

    return send


def socket_large_send(path: str) -> Send:
    return socket_send(path, 4 << 20)


def socket_receive(path: str, producers: int) -> Get:
    def read(connection: socket.socket, ready: queue.Queue[Trajectory]) -> None:
        head = bytearray(8)
        while _exactly(connection, memoryview(head)):
            data = bytearray(struct.unpack("<Q", head)[0])
            if _exactly(connection, memoryview(data)):
                ready.put(codec.decode(data, CAP))

    return _serve(path, producers, read)


# --- pyzmq PUSH/PULL over ipc ----------------------------------------------------------------------------------------


def zmq_send(path: str) -> Send:
    push = zmq.Context.instance().socket(zmq.PUSH)
    push.sndhwm = WINDOW
    push.connect(f"ipc://{path}")

    def send(trajectory: Trajectory) -> None:
        push.send(codec.encode(trajectory, CAP), copy=False)

    return send


def zmq_receive(path: str, producers: int) -> Get:
    pull = zmq.Context.instance().socket(zmq.PULL)
    pull.rcvhwm = WINDOW
    pull.bind(f"ipc://{path}")
    ready: queue.Queue[Trajectory] = queue.Queue(DEPTH)

    def read() -> None:
        while True:
            ready.put(codec.decode(pull.recv(copy=False).buffer, CAP))

    threading.Thread(target=read, daemon=True).start()
    return lambda: ready.get(timeout=DEADLINE_S)


# --- a slab of shared memory per producer, slot numbers over a socket ------------------------------------------------


def slab_send(path: str) -> Send:
    connection = _connect(path)
    fd = os.memfd_create("slab")
    os.truncate(fd, WINDOW * CAP)
    slab = memoryview(mmap.mmap(fd, WINDOW * CAP))
    socket.send_fds(connection, [b"s"], [fd])
    free = deque(range(WINDOW))

    def send(trajectory: Trajectory) -> None:
        while not free:
            free.extend(connection.recv(WINDOW))
        slot = free.popleft()
        at = slot * CAP
        for part in codec.encode_parts(trajectory, CAP):
            slab[at : at + len(part)] = part
            at += len(part)
        connection.sendall(struct.pack("<QB", at - slot * CAP, slot))

    return send


def slab_receive(path: str, producers: int) -> Get:
    def read(connection: socket.socket, ready: queue.Queue[Any]) -> None:
        fds = socket.recv_fds(connection, 1, 1)[1]
        slab = memoryview(mmap.mmap(fds[0], WINDOW * CAP, mmap.MAP_SHARED, mmap.PROT_READ))
        head = bytearray(9)
        while _exactly(connection, memoryview(head)):
            length, slot = struct.unpack("<QB", head)
            data = slab[slot * CAP : slot * CAP + length]
            ready.put((codec.decode(data, CAP), connection, slot))

    take = _serve(path, producers, read)
    held: list[Any] = []

    def get() -> Trajectory:  # the best case: a record's arrays are done with when the next is asked for
        if held:
            _, connection, slot = held.pop()
            connection.send(bytes([slot]))
        held.append(take())
        return held[0][0]

    return get


# --- a sealed memory file per record, its descriptor over a socket ---------------------------------------------------

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def memfd_send(path: str) -> Send:
    connection = _connect(path)
    under_way = [0]

    def send(trajectory: Trajectory) -> None:
        while under_way[0] >= WINDOW:
            under_way[0] -= len(connection.recv(WINDOW))
        parts = codec.encode_parts(trajectory, CAP)
        fd = os.memfd_create("record", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        length = os.writev(fd, parts)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        socket.send_fds(connection, [struct.pack("<Q", length)], [fd])
        os.close(fd)
        under_way[0] += 1

    return send


def _memfd_receive(path: str, producers: int, load: Callable[[int, int], Any]) -> Get:
    def read(connection: socket.socket, ready: queue.Queue[Trajectory]) -> None:
        while True:
            try:
                head, fds, _, _ = socket.recv_fds(connection, 8, 1)
            except ConnectionResetError:  # gone with our last answers unread
                return
            if not head:
                return
            data = load(fds[0], struct.unpack("<Q", head)[0])
            os.close(fds[0])
            with contextlib.suppress(ConnectionError):
                connection.send(b"\1")
            ready.put(codec.decode(data, CAP))

    return _serve(path, producers, read)


def memfd_map_receive(path: str, producers: int) -> Get:
    def load(fd: int, length: int) -> Any:
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == SEALS
        return memoryview(mmap.mmap(fd, length, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ))

    return _memfd_receive(path, producers, load)


def memfd_read_receive(path: str, producers: int) -> Get:
    def load(fd: int, length: int) -> Any:
        data = bytearray(length)
        assert os.preadv(fd, [data], 0) == length
        return data

    return _memfd_receive(path, producers, load)


# --- memory files used again, their descriptor over a socket; the reader copies --------------------------------------


def reused_send(path: str) -> Send:
    connection = _connect(path)
    spare: list[int] = []
    under_way: deque[int] = deque()

    def send(trajectory: Trajectory) -> None:
        if under_way:
            with contextlib.suppress(BlockingIOError):
                said = connection.recv(WINDOW, 0 if len(under_way) == WINDOW else socket.MSG_DONTWAIT)
                spare.extend(under_way.popleft() for _ in said)
        parts = codec.encode_parts(trajectory, CAP)
        fd = spare.pop() if spare else os.memfd_create("record")
        length = os.pwritev(fd, parts, 0)
        socket.send_fds(connection, [struct.pack("<Q", length)], [fd])
        under_way.append(fd)

    return send


def reused_receive(path: str, producers: int) -> Get:
    def load(fd: int, length: int) -> Any:
        data = memoryview(np.empty(length, np.uint8))
        assert os.preadv(fd, [data], 0) == length
        return data

    return _memfd_receive(path, producers, load)


# --- what was built of it ---------------------------------------------------------------------------------------------


def built_send(path: str) -> Send:
    return open_sink(f"local://{path}", limits=Limits(), metrics=Metrics("actor"), key="bench").put


def built_receive(path: str, producers: int) -> Get:
    source = open_source(
        f"local://{path}", limits=Limits(), metrics=Metrics("learner"), dead_letter=Path(f"{path}.dead"), group="bench"
    )

    def get() -> Trajectory:
        received = source.get(DEADLINE_S)
        assert received is not None, "nothing came"
        return received.trajectory

    return get


CANDIDATES: dict[str, tuple[Callable[[str], Send], Callable[[str, int], Get]]] = {
    "socket": (socket_send, socket_receive),
    "socket, 4 MB buffer": (socket_large_send, socket_receive),
    "zmq ipc": (zmq_send, zmq_receive),
    "shared slab": (slab_send, slab_receive),
    "memfd, mapped": (memfd_send, memfd_map_receive),
    "memfd, read": (memfd_send, memfd_read_receive),
    "memfd, used again": (reused_send, reused_receive),
    "local:// as built": (built_send, built_receive),
}
if zmq is None:
    del CANDIDATES["zmq ipc"]
