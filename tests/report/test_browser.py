"""The page in a real browser: narrow and wide, light and dark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparseattn.report import write_report
from tests.report.fake import study

#: A question that tries to be something else, and an arm whose name no line can break.
HOSTILE = "<script>alert(1)</script> \u202eabc 🙂 " * 9
LONG = "neighbor-with-a-very-long-name-that-does-not-break-anywhere-at-all"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    effects = {"neighbor": (0.05, 0.4), "random": (0.1, 0.9), LONG: (0.2, 1.0)}
    data = replace(study(effects, failures=1), contrasts={HOSTILE: [("neighbor", "random")]})
    return write_report(data, tmp_path_factory.mktemp("report"))[0]


def _opened(browser: Any, page_file: Path, width: int, scheme: str) -> tuple[Any, list[str]]:
    size = {"width": width, "height": 900}
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: troubles.append(request.url))
    page.goto(page_file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert troubles.pop(0) == page_file.as_uri()
    return page, troubles


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_page_in_a_browser(browser, page_file, width: int, scheme: str) -> None:
    page, troubles = _opened(browser, page_file, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figures = page.locator("figure img:visible")
    assert figures.count() == 3
    for each in figures.all():
        assert len(each.get_attribute("alt")) > 10
        assert each.evaluate("each => each.complete && each.naturalWidth > 300")
        assert each.evaluate("each => each.currentSrc").startswith("data:image/svg+xml")
        assert each.bounding_box()["width"] > 300
    assert page.get_by_role("img", name="accuracy against sparsity:").count() == 1
    assert troubles == []


def test_the_table_of_arms_needs_no_scrolling(browser, undrawn, tmp_path) -> None:
    effects = {"matched_random dependency": (0.05, 0.4), "neighbor": (0.1, 0.9)}
    page, _ = _opened(browser, write_report(study(effects), tmp_path)[0], 1000, "light")
    table = page.locator(".scroll[aria-label=Arms]")
    assert table.evaluate("each => each.scrollWidth - each.clientWidth") <= 0
    assert table.locator("thead th").count() == 15, "no column is left out"


def test_dark_is_dark_and_figures_follow(browser, page_file) -> None:
    found = {}
    for scheme in ("light", "dark"):
        page, _ = _opened(browser, page_file, 1280, scheme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        source = page.locator("figure img").first.evaluate("each => each.currentSrc")
        found[scheme] = ground, source
    assert found["light"][0] == "rgb(255, 255, 255)"
    assert found["light"][0] != found["dark"][0]
    assert found["light"][1] != found["dark"][1]


def test_no_text_of_a_figure_is_cut_off(browser, page_file) -> None:
    """Texts are set by the browser's font, not by the one that laid the figure out."""
    for name in ("sparsity", "sparsity-dark", "placement", "forest"):
        page = browser.new_context().new_page()
        page.goto((page_file.parent / f"{name}.svg").as_uri())
        cut = page.evaluate(
            """() => {
                const frame = document.documentElement.getBoundingClientRect();
                return [...document.querySelectorAll('text')].filter(text => {
                    const box = text.getBoundingClientRect();
                    return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1);
                }).map(text => text.textContent);
            }"""
        )
        assert cut == []
