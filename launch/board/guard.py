"""Who may use the board: the person to whom it printed its address, and no page of anybody else's that is open in the
same browser.

    Host      names this machine: an outside name that was made to lead here (DNS rebinding) is refused
    Origin    is the board itself, in every call that can change something and for the socket
    token     in the printed address; from then on in a cookie that scripts cannot read and other sites do not send
    answers   tell the browser to load nothing from anywhere else, and to show the page in nobody's frame

Stands around the whole application, the socket through which the page talks included.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HERE = ("127.0.0.1", "localhost")
_SAFE = ("GET", "HEAD")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """``cookie``: its name; boards of several ports share the cookies of one browser."""

    def __init__(self, app: ASGIApp, token: str, cookie: str) -> None:
        self._app, self._token, self._cookie = app, token.encode(), cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = self._answer(HTTPConnection(scope))
        if answer is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        else:
            await answer(scope, receive, _with_headers(send))

    def _answer(self, call: HTTPConnection) -> Response | None:
        """What to say instead of letting the call through."""
        if said := _foreign(call):
            return PlainTextResponse(f"refused: {said}\n", 403)
        shown = call.query_params.get("token")
        if shown is not None and call.scope["type"] == "http" and self._is_token(shown):
            answer = RedirectResponse(call.url.path, 303, {"Cache-Control": "no-store"})
            answer.set_cookie(self._cookie, shown, httponly=True, samesite="lax", path="/")
            return answer
        if not self._is_token(call.cookies.get(self._cookie, "")):
            return PlainTextResponse("refused: open the address that `headrace board` printed, token included\n", 401)
        return None

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token)


def _foreign(call: HTTPConnection) -> str:
    """Why a call is somebody else's; "" for one that may be ours."""
    headers: Headers = call.headers
    hosts = headers.getlist("host")
    host = hosts[0] if len(hosts) == 1 else ""
    if host.partition(":")[0] not in _HERE:
        return "the board answers under 127.0.0.1 and localhost only"
    changes = call.scope["type"] == "websocket" or call.scope["method"] not in _SAFE
    origins = headers.getlist("origin")
    if (changes or origins) and origins != [f"http://{host}"]:
        return "the call comes from another page"
    return ""


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return sending
