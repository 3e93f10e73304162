"""The server: a page, its files, and answers to what the page asks. Loopback only."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sparseattn.app import page
from sparseattn.app.answers import Answers
from sparseattn.app.asked import Asked
from sparseattn.errors import SparseAttnError
from sparseattn.study.record import plain

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


class _Guard(BaseHTTPMiddleware):
    """Adds the headers, and refuses what another site makes a browser send."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if origin in (None, f"http://{host}"):
            response = await call_next(request)
        else:
            response = PlainTextResponse("requests of other sites are refused", 403)
        response.headers.update(_HEADERS)
        return response


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
    made = [
        Route("/palette.css", _text(page.palette_css, "text/css")),
        Route("/saved.html", _text(page.single_page, "text/plain")),
    ]
    files = StaticFiles(packages=[("sparseattn.app", "static")], html=True)
    return Starlette(routes=[*asked, *made, Mount("/", files)], middleware=middleware)


def _text(text: Callable[[], str], kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def respond(_: Request) -> Response:
        return Response(text(), media_type=kind)

    return respond


def _answering(
    answer: Callable[[Asked], Awaitable[Any]],
) -> Callable[[Request], Awaitable[Response]]:
    """A route that answers an object with an object, and what is wrong with words.

    What a user can mend has status 200 all the same: a browser would call others failures.
    """

    async def respond(request: Request) -> Response:
        try:
            return JSONResponse(plain(await answer(Asked.of(await _body(request)))))
        except (SparseAttnError, ValueError) as error:
            return _wrong(str(error), 200)
        except Exception as error:
            _log.exception("a request failed")
            return _wrong(f"{type(error).__name__}: {error} (the terminal says more)", 500)

    return respond


async def _body(request: Request) -> bytes:
    """What was sent; a ValueError if it is no JSON or of no fair size."""
    if request.headers.get("content-type") != "application/json":
        raise ValueError("expected application/json")
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _BODY:
            raise ValueError(f"a request of more than {_BODY:,} bytes")
    return content


def _wrong(message: str, status: int) -> Response:
    return JSONResponse({"error": " ".join(message.split())}, status)
