"""The server: a page, its files, and answers to what the page asks. Loopback only."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sparseattn.app import page
from sparseattn.app.answers import Answers
from sparseattn.errors import AppError, SparseAttnError

#: Bytes of a request's body, at most.
_BODY = 2_000_000

#: What the page may load: nothing but itself.
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

_log = logging.getLogger("sparseattn.app")


class _Guard:
    """Adds the headers, and refuses what another site makes a browser send."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        request = Request(scope)
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if origin not in (None, f"http://{host}"):
            response = PlainTextResponse("requests of other sites are refused", 403)
            return await response(scope, receive, with_headers)
        await self.app(scope, receive, with_headers)


def make_app(answers: Answers) -> Starlette:
    """The web application that answers with what it was pointed at."""
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"]),
        Middleware(_Guard),
    ]
    asked = [
        Route(f"/api/{name}", _answering(answer), methods=["POST"])
        for name, answer in answers.routes.items()
    ]
    app = Starlette(
        routes=[
            Route("/", _file("index.html")),
            Route("/palette.css", _text(page.palette_css, "text/css")),
            Route("/saved.html", _text(page.single_page, "text/plain")),
            *(Route(f"/{name}", _file(name)) for name in page.TYPES),
            *asked,
        ],
        middleware=middleware,
    )
    return app


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    return _text(lambda: page.static(name), page.TYPES[name])


def _text(text: Callable[[], str], kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def respond(_: Request) -> Response:
        return Response(text(), media_type=kind)

    return respond


def _answering(
    answer: Callable[[dict[str, Any]], Awaitable[Any]],
) -> Callable[[Request], Awaitable[Response]]:
    """A route that answers an object with an object, and what is wrong with words."""

    async def respond(request: Request) -> Response:
        try:
            return JSONResponse(await answer(await _body(request)))
        except AppError as error:
            return _wrong(str(error), 503)
        except (SparseAttnError, ValueError) as error:
            return _wrong(str(error), 400)
        except Exception as error:
            _log.exception("a request failed")
            return _wrong(f"{type(error).__name__}: {error} (the terminal says more)", 500)

    return respond


async def _body(request: Request) -> dict[str, Any]:
    """What was asked; a ValueError if it is no object of a fair size."""
    if request.headers.get("content-type") != "application/json":
        raise ValueError("expected application/json")
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _BODY:
            raise ValueError(f"a request of more than {_BODY:,} bytes")
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("expected an object")
    return found


def _wrong(message: str, status: int) -> Response:
    return JSONResponse({"error": " ".join(message.split())}, status)
