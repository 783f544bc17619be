"""Which rollout workers am I? Asked by an actor that was not told: the parameter server gives numbers nobody uses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

import grpc

from headrace.common.errors import Closed, Finished
from headrace.common.waiting import Waiting
from headrace.common.weights.client import Client
from headrace.common.wire import paramserver_pb2 as pb

PAUSE_S = 0.5


def join(
    client: Client,
    run_id: str,
    incarnation: int,
    workers: int,
    away: Waiting,
    stop: Callable[[], bool] = lambda: False,
) -> Sequence[int]:
    """The numbers of ``workers`` workers; waits while the server is away or has not as many to give (in lockstep there
    are just so many). Raises :class:`Closed` once ``stop()``, :class:`Finished`, :class:`TransportError` when ``away``
    gives up, and what else :meth:`Client.final` makes of the server's refusal."""
    request = pb.JoinRequest(run_id=run_id, incarnation=incarnation, workers=workers).SerializeToString()
    while not stop():
        began_s, what = time.monotonic(), f"waiting for parameter server {client.address} to answer"
        with contextlib.suppress(_Away):
            reply = _ask(client, request)
            if reply.finished:
                raise Finished(f"run {run_id} has come to its end")
            if len(reply.actor_id) == workers:
                away.over()
                return list(reply.actor_id)
            of = f" of {reply.of_workers}" if reply.of_workers else ""
            what = f"waiting for {workers} worker numbers{of} that no living actor has"
        away.goes_on(began_s, what)
        time.sleep(PAUSE_S)
    raise Closed("told to stop")


class _Away(Exception):
    """The server does not answer."""


def _ask(client: Client, request: bytes) -> pb.JoinReply:
    try:
        return pb.JoinReply.FromString(client.unary("Join")(request, timeout=5.0, metadata=client.metadata))
    except grpc.RpcError as error:
        if (final := client.final(error) or client.refusal()) is not None:
            raise final from error
        client.turn()
        raise _Away from error
