"""Starting the explorer."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable
from importlib.util import find_spec

from sparseattn.app.sources import Sources
from sparseattn.errors import AppError, MissingExtraError, reason

#: This machine alone.
HOST = "127.0.0.1"


def check_installed() -> None:
    """A `MissingExtraError` if the server's packages are not there."""
    lacking = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if lacking:
        raise MissingExtraError(
            f'the explorer needs {" and ".join(lacking)}: pip install "sparseattn[app]"'
        )


def serve(sources: Sources, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Serves the explorer until it is interrupted.

    Args:
        sources: What it may read.
        port: Where; 0 for any that is free.
        browser: Whether to open a browser, too.
        say: Tells where it is.

    Raises:
        AppError: The port is in use.
    """
    listening = _listen(port)
    import uvicorn

    from sparseattn.app.answers import Answers
    from sparseattn.app.server import make_app

    address = f"http://{HOST}:{listening.getsockname()[1]}/"
    say(f"{address} shows {_named(sources)}; Ctrl+C ends it")
    answers = Answers(sources)
    config = uvicorn.Config(
        make_app(answers), log_level="warning", lifespan="off", ws="none", server_header=False
    )
    if browser:
        webbrowser.open(address)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        answers.jobs.close()
        listening.close()


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise AppError(
            f"cannot use port {port}: {reason(error)}; give another, or --port 0 for any"
        ) from None
    return listening


def _named(sources: Sources) -> str:
    names = [*sources.studies, *sources.models, *sources.texts]
    return ", ".join(names) or "nothing: name a study or a model"
