"""The pictures of docs/app.md, taken of the explorer itself.

    SPARSEATTN_DATA=~/data python tools/tour.py

Unpacks results/kinds-mrpc.tar.xz, serves it with the packaged MiniLM, and drives a Chromium.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn
from playwright.sync_api import sync_playwright

from sparseattn.app.answers import Answers
from sparseattn.app.server import make_app
from sparseattn.app.sources import Sources
from sparseattn.models.names import DEFAULT
from sparseattn.report import load_study
from sparseattn.study.archive import unpack

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"

#: A pair of MRPC, and the heads that match words in it.
PAIR = (
    "They had published an advertisement on the Internet on June 10, offering the cargo for sale.",
    "On June 10, the ship's owners had published an advertisement on the Internet.",
)
LAYER, HEAD = 2, 9


def main() -> None:
    """Serves the study and takes the pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "kinds-mrpc"
        unpack(ROOT / "results" / "kinds-mrpc.tar.xz", folder)
        answers = Answers(Sources({"kinds-mrpc": folder}, (DEFAULT,)))
        rows = load_study(folder).rows
        (digest,) = rows[(rows["arm"] == "union s=0.9") & (rows["seed"] == 0)]["digest"]
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(make_app(answers), log_level="error", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
        with sync_playwright() as driver:
            flags = ["--no-sandbox", "--disable-gpu"]
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
            size = {"width": 1240, "height": 900}
            page = browser.new_context(viewport=size).new_page()
            page.set_default_timeout(300_000)
            take(page, f"http://127.0.0.1:{listening.getsockname()[1]}/", digest)
            browser.close()
        server.should_exit = True
        answers.jobs.close()


def take(page: Any, address: str, digest: str) -> None:
    """Four pictures: heads, one of them, what a plan keeps of it, and what that cost."""

    def visit(view: str, **state: object) -> None:
        page.goto("about:blank")
        page.goto(f"{address}#{view}?{urlencode(state)}")
        page.wait_for_selector("#view[data-ready]")

    visit("heads", layer=LAYER, head=HEAD)
    shot(page, ".wait", "app-heads")
    plan = page.request.post(
        f"{address}api/trial", data={"study": "kinds-mrpc", "digest": digest}
    ).json()["plan"]
    visit(
        "masks", text=PAIR[0], pair=PAIR[1], plan="full()", beside=plan, layer=LAYER, head=HEAD,
        queries="text 0", keys="text 1",
    )  # fmt: skip
    shot(page, ".boards", "app-words")
    visit("studies", study="kinds-mrpc", trial=digest, off="\n".join(
        ("windows retrained", "union retrained", "four retrained", "four kinds",
         "shuffled a", "shuffled b", "shuffled c")))  # fmt: skip
    shot(page, "svg.plot", "app-cost")
    shot(page, "section:has(> div > .heads)", "app-plan", ".heads")


def shot(page: Any, place: str, name: str, inner: str = "") -> None:
    """One picture of the first element at a place."""
    found = page.locator(f"{place} {inner}".strip()).first
    found.screenshot(path=IMAGES / f"{name}.png")
    print(name, (IMAGES / f"{name}.png").stat().st_size)


if __name__ == "__main__":
    main()
