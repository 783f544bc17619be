"""Who may publish, who may only subscribe: by bearer token, by the role in the client's certificate, or both.

The role is a URI among the certificate's alternative names: ``headrace:learner`` publishes and subscribes,
``headrace:actor`` subscribes (actors and evaluators). The health service asks for nothing (probes carry no token).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from headrace.common.errors import UsageError
from headrace.common.reloaded import Reloaded
from headrace.common.weights.tokens import read_tokens

PUBLISHING = frozenset({"Publish", "Admit"})
LEARNER, ACTOR = b"headrace:learner", b"headrace:actor"
_MAKE = {
    (True, False): grpc.stream_unary_rpc_method_handler,
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
}
_NO_TOKEN = (
    "the token is missing or does not allow this call (the learner's is in weights.publish_token_file, that of actors "
    "and evaluators in weights.token_file)"
)
_NO_ROLE = "the certificate names no role that allows this call (weights.tls_client_cert)"


@dataclass(frozen=True)
class Tokens:
    """Those of ``publish`` let publish and subscribe, those of ``subscribe`` subscribe only."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    @staticmethod
    def read(publish_file: Path, subscribe_file: Path) -> Tokens:
        """Raises :class:`UsageError` for files that hold none, or have one in common."""
        publish = read_tokens(publish_file, "weights.publish_token_file")
        subscribe = read_tokens(subscribe_file, "weights.token_file")
        if set(publish) & set(subscribe):
            raise UsageError(
                f"weights.publish_token_file {publish_file} and weights.token_file {subscribe_file} hold the same "
                "token; with it every actor could publish"
            )
        return Tokens(publish, subscribe)

    def allow(self, shown: str, publishing: bool) -> bool:
        """Every token is compared, whichever fits: time tells nothing of them."""
        publisher, subscriber = (
            any([hmac.compare_digest(shown.encode(), known.encode()) for known in tokens])
            for tokens in (self.publish, self.subscribe)
        )
        return publisher or (subscriber and not publishing)


class Access(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends every call of our service that may not ask what it asks. ``tokens`` None: none are asked for;
    ``by_certificate``: the certificate, which TLS has verified by then, must name a role that may."""

    def __init__(self, service: str, tokens: Reloaded[Tokens] | None, by_certificate: bool) -> None:
        self._prefix, self._tokens, self._by_certificate = f"/{service}/", tokens, by_certificate

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith(self._prefix):
            return handler
        publishing = details.method.removeprefix(self._prefix) in PUBLISHING
        shown = next((v for k, v in details.invocation_metadata if k == "authorization"), "").removeprefix("Bearer ")
        answer = handler.stream_unary or handler.unary_unary or handler.unary_stream

        async def guarded(request: Any, context: Any) -> Any:
            if self._tokens is not None and not self._tokens.now().allow(shown, publishing):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, _NO_TOKEN)
            if self._by_certificate and not _role_allows(context.auth_context().get("peer_uri", ()), publishing):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, _NO_ROLE)
            return await answer(request, context)

        return _MAKE[handler.request_streaming, handler.response_streaming](guarded)


def _role_allows(uris: Any, publishing: bool) -> bool:
    return LEARNER in uris or (ACTOR in uris and not publishing)
