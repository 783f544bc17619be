"""Who may do what: by bearer token, by the role in the client's certificate, or both.

The role is a URI among the certificate's alternative names: ``headrace:learner`` publishes, ``headrace:relay`` speaks
for others, ``headrace:actor`` for itself (actors and evaluators); the first two may do what the third may. The health
service asks for nothing (probes carry no token).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import grpc

from headrace.common.errors import UsageError
from headrace.common.reloaded import Reloaded
from headrace.common.weights.tokens import read_tokens

PUBLISH, RELAY, SUBSCRIBE = "publish", "relay", "subscribe"
#: What a call needs; the others subscribe.
NEEDS = {"Publish": PUBLISH, "Admit": PUBLISH, "Relay": RELAY}
_ROLES = {b"headrace:learner": PUBLISH, b"headrace:relay": RELAY, b"headrace:actor": SUBSCRIBE}
_MAKE = {
    (True, False): grpc.stream_unary_rpc_method_handler,
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
_NO_TOKEN = (
    "the token is missing or does not allow this call (the learner's is in weights.publish_token_file, a relay's in "
    "weights.relay_token_file, that of actors and evaluators in weights.token_file)"
)
#: Where the tokens of each kind are.
SETTINGS = {
    PUBLISH: "weights.publish_token_file",
    RELAY: "weights.relay_token_file",
    SUBSCRIBE: "weights.token_file",
}
_NO_ROLE = "the certificate names no role that allows this call (weights.tls_client_cert)"


@dataclass(frozen=True)
class Tokens:
    """Those that allow each kind of call; each of them lets subscribe."""

    allow: Mapping[str, tuple[str, ...]]

    @staticmethod
    def read(files: Mapping[str, Path]) -> Tokens:
        """``files``: kind -> file. Raises :class:`UsageError` for files that hold none, or have one in common."""
        found = {kind: read_tokens(path, SETTINGS[kind]) for kind, path in files.items()}
        for (one, its), (other, others) in combinations(found.items(), 2):
            if set(its) & set(others):
                raise UsageError(
                    f"{SETTINGS[one]} {files[one]} and {SETTINGS[other]} {files[other]} hold the same token; each "
                    "is to allow something else"
                )
        return Tokens(found)

    def permit(self, shown: str, need: str) -> bool:
        """Every token is compared, whichever fits: time tells nothing of them."""
        held = {
            kind: any([hmac.compare_digest(shown.encode(), known.encode()) for known in tokens])
            for kind, tokens in self.allow.items()
        }
        return any(held.values()) if need == SUBSCRIBE else held.get(need, False)


class Access(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends every call of our service that may not ask what it asks. ``tokens`` None: none are asked for;
    ``by_certificate``: the certificate, which TLS has verified by then, must name a role that may."""

    def __init__(self, service: str, tokens: Reloaded[Tokens] | None, by_certificate: bool) -> None:
        self._prefix, self._tokens, self._by_certificate = f"/{service}/", tokens, by_certificate

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith(self._prefix):
            return handler
        need = NEEDS.get(details.method.removeprefix(self._prefix), SUBSCRIBE)
        shown = next((v for k, v in details.invocation_metadata if k == "authorization"), "").removeprefix("Bearer ")
        answer = handler.stream_unary or handler.unary_unary or handler.unary_stream or handler.stream_stream

        async def guarded(request: Any, context: Any) -> Any:
            if self._tokens is not None and not self._tokens.now().permit(shown, need):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, _NO_TOKEN)
            if self._by_certificate and not _role_allows(context.auth_context().get("peer_uri", ()), need):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, _NO_ROLE)
            return await answer(request, context)

        return _MAKE[handler.request_streaming, handler.response_streaming](guarded)


def _role_allows(uris: Any, need: str) -> bool:
    held = {_ROLES[uri] for uri in uris if uri in _ROLES}
    return need in held or (need == SUBSCRIBE and bool(held))
