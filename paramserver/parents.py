"""The parameter servers that a relay may follow, and how it comes to one of them."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from headrace.common.weights.client import CHANNEL_OPTIONS
from headrace.common.weights.tls import Tls
from headrace.common.weights.tokens import Token


@dataclass(frozen=True)
class Parents:
    """``addresses``: the preferred one first. ``token``, ``tls``: what the relay of ``run_id`` shows them, as its files
    are at each connection."""

    addresses: tuple[str, ...]
    run_id: str
    token: Token = lambda: ""
    tls: Tls | None = None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Goes with every call."""
        token = self.token()
        return (("authorization", f"Bearer {token}"),) if token else ()

    def channel(self, address: str) -> grpc.aio.Channel:
        """Raises :class:`UsageError` for files that cannot be right."""
        if self.tls is None:
            return grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(address, self.tls.credentials(), CHANNEL_OPTIONS)


async def connected(channel: grpc.aio.Channel) -> None:
    """Raises :class:`TimeoutError` where nobody is."""
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise TimeoutError("nobody answers there")
        await channel.wait_for_state_change(state)
