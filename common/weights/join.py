"""Which rollout workers am I? Asked by an actor that was not told: the parameter server gives numbers nobody uses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from headrace.common.errors import Closed, Finished, TransportError
from headrace.common.weights.client import Client
from headrace.common.wire import paramserver_pb2 as pb

PAUSE_S = 0.5
#: When who waits says so for the first time, and how often after that.
SAY_AFTER_S, SAY_EVERY_S = 5.0, 30.0


def join(
    client: Client,
    run_id: str,
    incarnation: int,
    workers: int,
    timeout_s: float,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], Any] = print,
) -> Sequence[int]:
    """The numbers of ``workers`` workers; waits while the server is away or has not as many to give (in lockstep there
    are just so many). Raises :class:`Closed` once ``stop()``, :class:`Finished`, :class:`TransportError` when
    ``timeout_s`` has passed, and what else :meth:`Client.final` makes of the server's refusal."""
    began_s = time.monotonic()
    say_at_s, why = began_s + SAY_AFTER_S, f"parameter server {client.address} to answer"
    request = pb.JoinRequest(run_id=run_id, incarnation=incarnation, workers=workers).SerializeToString()
    while not stop():
        with contextlib.suppress(_Away):
            reply = _ask(client, request)
            if reply.finished:
                raise Finished(f"run {run_id} has come to its end")
            if len(reply.actor_id) == workers:
                return list(reply.actor_id)
            of = f" of {reply.of_workers}" if reply.of_workers else ""
            why = f"{workers} worker numbers{of} that no living actor has"
        now_s = time.monotonic()
        if now_s - began_s >= timeout_s:
            raise TransportError(f"waited {timeout_s:.0f} s for {why}")
        if now_s >= say_at_s:
            say(f"waiting for {why}")
            say_at_s = now_s + SAY_EVERY_S
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
        raise _Away from error
