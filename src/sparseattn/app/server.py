"""The server: a page, its files, and answers to what the page asks. Loopback only."""

from __future__ import annotations

import json
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
from sparseattn.errors import AppError, SparseAttnError
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
    answer: Callable[[dict[str, Any]], Awaitable[Any]],
) -> Callable[[Request], Awaitable[Response]]:
    """A route that answers an object with an object, and what is wrong with words."""

    async def respond(request: Request) -> Response:
        try:
            return JSONResponse(plain(await answer(await _body(request))))
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
