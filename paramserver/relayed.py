"""The parent's end of a relay's stream: each question is answered by itself, and answers travel together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from google.protobuf.message import DecodeError

from headrace.common.errors import Fenced, UsageError
from headrace.common.wire import paramserver_pb2 as pb
from headrace.paramserver.answers import BUSY, STATUS, Answered
from headrace.paramserver.leases import Leases
from headrace.paramserver.outbox import Outbox
from headrace.paramserver.workers import Busy


async def answer_relay(
    leases: Leases,
    messages: AsyncIterator[bytes],
    write: Callable[[bytes], Awaitable[None]],
    machine: str,
    max_open: int,
) -> None:
    """Answer the questions in ``messages`` (RelayAsks) until they end. ``machine``: the relay's own, for questions that
    name none. ``max_open``: how many may be open at once; what is beyond is told to try again."""
    outbox, open_ = Outbox[pb.RelayAnswer](), set[asyncio.Task[None]]()
    defect: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def send() -> None:
        await write(pb.RelayAnswers().SerializeToString())  # the relay may ask
        while True:
            await write(pb.RelayAnswers(answer=await outbox.take()).SerializeToString())

    async def reply(ask: pb.RelayAsk) -> None:
        outbox.put(await _answer(leases, ask, ask.peer or machine))

    def over(task: asyncio.Task[None]) -> None:
        open_.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not defect.done():
            defect.set_exception(error)

    async def receive() -> None:
        async for message in messages:
            for ask in pb.RelayAsks.FromString(message).ask:
                if len(open_) < max_open:
                    task = asyncio.create_task(reply(ask))
                    open_.add(task)
                    task.add_done_callback(over)
                else:
                    outbox.put(_refused(ask, BUSY, f"{max_open} questions of this relay are open; try again"))

    both = [asyncio.create_task(part) for part in (receive(), send())]
    try:
        done, _ = await asyncio.wait([*both, defect], return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            part.result()
    finally:
        for task in (*both, *open_):
            task.cancel()
        defect.cancel()


async def _answer(leases: Leases, ask: pb.RelayAsk, peer: str) -> pb.RelayAnswer:
    try:
        match ask.WhichOneof("what"):
            case "next":
                return pb.RelayAnswer(id=ask.id, header=await leases.next(ask.next, peer))
            case "heartbeat":
                await leases.heartbeat(ask.heartbeat, peer)
                return pb.RelayAnswer(id=ask.id)
            case "join":
                return pb.RelayAnswer(id=ask.id, joined=await leases.join(ask.join, peer))
        return _refused(ask, STATUS[DecodeError].value[0], "a question of a kind that is not known here")
    except Answered as error:
        return _refused(ask, error.code, str(error))
    except Busy as error:
        return _refused(ask, BUSY, str(error))
    except (Fenced, UsageError) as error:
        return _refused(ask, STATUS[type(error)].value[0], str(error))


def _refused(ask: pb.RelayAsk, code: int, details: str) -> pb.RelayAnswer:
    return pb.RelayAnswer(id=ask.id, code=code, details=details)
