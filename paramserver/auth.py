"""Who may publish, who may only subscribe: by bearer token, by the role in the client's certificate, or both.

The role is a URI among the certificate's alternative names: ``headrace:learner`` publishes and subscribes,
``headrace:actor`` subscribes (actors and evaluators). The health service asks for nothing (probes carry no token).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

PUBLISHING = frozenset({"Publish", "Admit"})
LEARNER, ACTOR = b"headrace:learner", b"headrace:actor"
_MAKE = {
    (True, False): grpc.stream_unary_rpc_method_handler,
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
}


class Access(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends every call of our service that may not ask what it asks. No tokens: none are asked for; ``by_certificate``:
    the certificate, which TLS has verified by then, must name a role that may."""

    def __init__(self, service: str, publish_token: str, subscribe_token: str, by_certificate: bool) -> None:
        self._prefix, self._by_certificate = f"/{service}/", by_certificate
        self._publish, self._subscribe = publish_token.encode(), subscribe_token.encode()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith(self._prefix):
            return handler
        publishing = details.method.removeprefix(self._prefix) in PUBLISHING
        shown = next((v for k, v in details.invocation_metadata if k == "authorization"), "")
        answer = handler.stream_unary or handler.unary_unary or handler.unary_stream

        async def guarded(request: Any, context: Any) -> Any:
            if not self._token_allows(shown, publishing):
                why = "the token is missing or does not allow this call"
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, why)
            if self._by_certificate and not _role_allows(context.auth_context().get("peer_uri", ()), publishing):
                why = "the certificate names no role that allows this call"
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
            return await answer(request, context)

        return _MAKE[handler.request_streaming, handler.response_streaming](guarded)

    def _token_allows(self, shown: str, publishing: bool) -> bool:
        if not self._publish:
            return True
        token = shown.removeprefix("Bearer ").encode()
        publisher = hmac.compare_digest(token, self._publish)
        subscriber = hmac.compare_digest(token, self._subscribe)
        return publisher or (subscriber and not publishing)


def _role_allows(uris: Any, publishing: bool) -> bool:
    return LEARNER in uris or (ACTOR in uris and not publishing)
