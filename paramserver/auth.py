"""Bearer tokens: who may publish, who may subscribe. The health service asks for none (probes carry none)."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

PUBLISHING = frozenset({"Publish", "Admit"})


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends every call of our service that shows no token for what it asks."""

    def __init__(self, service: str, publish_token: str, subscribe_token: str) -> None:
        self._prefix = f"/{service}/"
        self._publish, self._subscribe = publish_token.encode(), subscribe_token.encode()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        if not details.method.startswith(self._prefix):
            return await continuation(details)
        shown = next((v for k, v in details.invocation_metadata if k == "authorization"), "")
        if self._allowed(details.method.removeprefix(self._prefix), shown):
            return await continuation(details)
        return grpc.unary_unary_rpc_method_handler(_refuse)

    def _allowed(self, method: str, shown: str) -> bool:
        token = shown.removeprefix("Bearer ").encode()
        publisher = hmac.compare_digest(token, self._publish)
        subscriber = hmac.compare_digest(token, self._subscribe)
        return publisher or (subscriber and method not in PUBLISHING)


async def _refuse(request: object, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or does not allow this call")
