"""Who may ask? Whoever holds the token, from this machine, from a page of ours.

Loopback alone does not protect: any page in the user's browser can send requests to 127.0.0.1, a name that an attacker
controls can be made to point there (DNS rebinding), and other users of the machine can connect. So each request must
name a loopback host, come from no other origin, and carry the cookie that the opened address's token is changed for.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import secrets
import urllib.parse
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 64_000
"""Of a request: the settings of a study."""
ADDRESS_BYTES = 8_000
"""Of a request's path and query."""

CLOSED = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Guard:
    """Refuses whatever does not come from a page of this server, and seals every answer.

    Args:
        app: what is guarded.
        token: of the address that is opened.
        name: of the cookie; cookies are shared between ports, so that each server has its own.
    """

    def __init__(self, app: ASGIApp, *, token: str, name: str = "superscope") -> None:
        self.app, self.token, self.name = app, token, name
        self._pass = hmac.new(token.encode(), secrets.token_bytes(32), hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # There are no sockets here, whoever asks.
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for key, value in {**_HEADERS, "content-security-policy": CLOSED}.items():
                    answer.setdefault(key, value)
            await send(message)

        query = scope["query_string"]
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(sealed, *refusal)
            return
        given = urllib.parse.parse_qs(query.decode("latin-1"), max_num_fields=100).get("token", [""])[0]
        if scope["method"] == "GET" and given and not scope["path"].startswith("/api/"):
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                await _answer(sealed, 401, _CLOSED_DOOR)
                return
            rest = [(k, v) for k, v in urllib.parse.parse_qsl(query.decode("latin-1")) if k != "token"]
            there = (
                "/" + urllib.parse.quote(scope["path"].lstrip("/")) + (f"?{urllib.parse.urlencode(rest)}" * bool(rest))
            )
            cookie = f"{self.name}={self._pass}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(sealed, 303, "", {"location": there, "set-cookie": cookie})
            return
        if not self._knows(headers):
            await _answer(sealed, 401, _CLOSED_DOOR)
            return
        await self._bounded(scope, receive, sealed)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """What is wrong with a request, whoever sends it."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not is_loopback(host):
            return 421, "This server answers to 127.0.0.1 and localhost alone. Open the address that it printed."
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return 403, "This request comes from a page of another origin."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            if scope["path"].startswith("/api/") or headers.get("sec-fetch-mode") != "navigate":
                return 403, "This request comes from a page of another origin."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "This server knows GET and POST."
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > ADDRESS_BYTES:
            return 414, f"The address is longer than {ADDRESS_BYTES} bytes."
        if scope["method"] == "POST":
            if origin is None:
                return 403, "A request that changes something must say which page it comes from (Origin)."
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return 415, "Send JSON: content-type application/json."
        return None

    def _knows(self, headers: Headers) -> bool:
        for line in headers.getlist("cookie"):
            try:
                cookie = SimpleCookie(line).get(self.name)
            except CookieError:
                continue
            if cookie is not None and secrets.compare_digest(cookie.value.encode(), self._pass.encode()):
                return True
        return False

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads the body, up to its limit, before anyone else does."""
        body = b""
        if scope["method"] == "POST":
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                if len(body) > BODY_BYTES:
                    await _answer(send, 413, f"A request may hold {BODY_BYTES:,} bytes.")
                    return
                if not message.get("more_body"):
                    break
        handed = False

        async def again() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


_CLOSED_DOOR = "Open the address that `superscope studio` printed: it holds the key to this server."


def is_loopback(host: str) -> bool:
    """Whether a Host header names this machine from within, at any port: a tunnel may have another one.

    Example:
        >>> is_loopback("127.0.0.1:8745"), is_loopback("[::1]:80"), is_loopback("evil.example")
        (True, True, False)
    """
    try:
        parts = urllib.parse.urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.netloc != host or parts.username is not None or not name:
        return False
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _answer(send: Send, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": sentence}).encode() if sentence else b""
    named = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(key.encode(), value.encode("latin-1")) for key, value in named.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
