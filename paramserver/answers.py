"""Between the service and the wire: our errors as the statuses a client understands, our records as its messages."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError

from headrace.common.errors import Fenced, HeadraceError, Rejected, UsageError
from headrace.common.weights.base import LedgerState, Progress
from headrace.common.wire import paramserver_pb2 as pb
from headrace.paramserver.store import Version
from headrace.paramserver.workers import Busy

#: How our errors travel; common/weights/client.py reads them back.
STATUS = {
    Fenced: grpc.StatusCode.ABORTED,
    UsageError: grpc.StatusCode.FAILED_PRECONDITION,
    Rejected: grpc.StatusCode.INVALID_ARGUMENT,
    DecodeError: grpc.StatusCode.INVALID_ARGUMENT,
}

#: Not now; another time.
BUSY = int(grpc.StatusCode.UNAVAILABLE.value[0])
_CODES = {int(status.value[0]): status for status in (*STATUS.values(), grpc.StatusCode.UNAVAILABLE)}

Context = Any  # grpc.aio.ServicerContext; grpc ships no types


class Answered(HeadraceError):
    """What the parent of a relay answered to a question that was passed on: its status code, and its words."""

    def __init__(self, code: int, details: str) -> None:
        super().__init__(details)
        self.code = code if code in _CODES else BUSY


class answer_errors:
    """Turns our errors into the status a client understands; every other error is a defect and stays one."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, TimeoutError):
            await self._context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the transfer took too long")
        if isinstance(error, Busy):
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        if isinstance(error, Answered):
            await self._context.abort(_CODES[error.code], str(error))
        if kind is not None and (status := STATUS.get(kind)) is not None:
            await self._context.abort(status, str(error))


def machine(context: Context) -> str:
    """Which machine calls; empty where that says nothing (a socket of this machine's own)."""
    kind, _, rest = context.peer().partition(":")
    return rest.rpartition(":")[0] if kind in ("ipv4", "ipv6") else ""


def progress(message: pb.Progress) -> Progress:
    spent = tuple((run.first, run.end) for run in message.spent)
    return Progress(
        message.admit_until, message.next_lease, message.accepted, spent, message.backlog, message.complete,
        message.finished,
    )  # fmt: skip


def ledger_state(message: pb.LedgerState) -> LedgerState:
    out = tuple((lease.number, lease.actor_id, lease.incarnation) for lease in message.out)
    return LedgerState(message.next_lease, message.begun, message.limit, out, message.workers)


def state(current: Version[Any] | None, ledger: LedgerState) -> bytes:
    """What the learner is told after every call: the version served, and where the ledger stands."""
    epoch, number = current.order if current else (0, -1)
    told = pb.LedgerState(
        next_lease=ledger.next_lease,
        begun=ledger.begun,
        limit=ledger.limit,
        out=[pb.Lease(number=n, actor_id=a, incarnation=i) for n, a, i in ledger.out],
        workers=ledger.workers,
    )
    return pb.ServerState(learner_epoch=epoch, version=number, ledger=told).SerializeToString()
