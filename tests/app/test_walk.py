"""The views in a real browser, walked as a user would, beside values computed apart."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import uvicorn

import sparseattn as sa
from sparseattn.app import masks as masks_view
from sparseattn.app.answers import Answers
from sparseattn.app.server import make_app
from sparseattn.app.sources import Sources
from sparseattn.errors import UnsupportedModelError
from sparseattn.models.interface import Pass
from sparseattn.models.names import DEFAULT
from sparseattn.report import load_study, questions
from tests.app.conftest import ARMS, HOSTILE
from tests.app.test_heads_and_studies import LINES

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
expect.set_options(timeout=60_000)

TEXT = "The quick brown fox jumps over the lazy dog."


@pytest.fixture(scope="module")
def address(study_folder, reader) -> Iterator[str]:
    answers = Answers(Sources({"tiny": study_folder}, (DEFAULT,), {"lines.tsv": LINES}))
    answers._readers[DEFAULT] = reader
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(answers), log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)
    answers.jobs.close()
    listening.close()


@pytest.fixture
def page(browser, address) -> Iterator[Any]:
    """A page that fails the test for a console error, or for a request to anywhere else."""
    opened = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    opened.set_default_timeout(60_000)
    troubles: list[str] = []
    opened.on("console", lambda message: message.type == "error" and troubles.append(message.text))
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    allowed = (address, "data:", "blob:")
    opened.on(
        "request",
        lambda request: request.url.startswith(allowed) or troubles.append(request.url),
    )
    yield opened
    assert troubles == []
    opened.context.close()


def visit(page, address: str, fragment: str = "") -> None:
    page.goto("about:blank")
    page.goto(address + fragment)
    page.wait_for_selector("#view[data-ready]")


def settled(page) -> None:
    """A view is busy from an input, or a click that asks for more, until it is drawn."""
    page.wait_for_selector("#view[aria-busy=false]")


def counted_as(page, row: str) -> list[str]:
    cells = page.locator(f"tr:has(th:text-is('{row}')) td").all_inner_texts()
    return [cell.strip() for cell in cells]


def test_masks_as_a_user_walks_them(page, address, reader) -> None:
    visit(page, address, "#masks")
    page.get_by_label("Second text of a pair").fill("")
    page.get_by_label("Text", exact=True).fill(TEXT)
    page.get_by_label("Pattern or plan").fill("neighbor(radius=1) | similarity(k=1)")
    settled(page)
    with sa.sparsified(reader.encoder, "neighbor(radius=1) | similarity(k=1)"):
        columns = reader.read(TEXT, None, frozenset()).columns
        report = sa.describe(reader.encoder, columns)
        own = reader.state.compile(reader.state.tokens(columns)).layers[0].dense[0, 0, 4]
    assert counted_as(page, "all layers and heads")[:3] == [
        f"{report.allowed:,}",
        f"{report.valid:,}",
        f"{report.sparsity:.1%}",
    ]
    # Hover in the text: its keys and queries light up there and in the matrix.
    fox = page.get_by_role("option", name="fox")
    fox.hover()
    labels = ["", *TEXT.removesuffix(".").split(), ".", ""]
    lit = [labels[at] for at in own.nonzero()[:, 0].tolist()]
    expect(page.locator(".token.key")).to_have_text(lit, use_inner_text=True)
    expect(page.locator(".token.key[style*=kind-near]")).to_have_count(3)
    expect(page.locator(".readout")).to_contain_text(f"may attend to {len(lit)} of")
    over = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)"
    assert page.locator("canvas.over").evaluate(f"canvas => ({over})(canvas).data.some(Boolean)")
    # A click pins it, and the table says what the picture shows.
    fox.click()
    table = page.get_by_role("region", name="Keys of the chosen token")
    expect(table).to_contain_text("neighbor(radius=1)")
    expect(table).to_contain_text("similarity(k=1)")
    page.get_by_label("Pattern or plan").fill("neighbor(radius=2)")
    expect(table, "the token stays pinned under another pattern").to_contain_text("radius=2")
    # The link brings it back, on another head.
    head = page.get_by_role("button", name="layer 2, head 3:")
    head.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("head=3"))
    settled(page)
    expect(head, "drawn anew, it keeps the focus").to_be_focused()
    link = page.url
    visit(page, address, link.removeprefix(address))
    expect(page.get_by_label("Text", exact=True)).to_have_value(TEXT)
    expect(page.locator(".token.chosen")).to_have_text("fox")
    expect(page.locator("figcaption")).to_contain_text("layer 2, head 3")
    # By the keyboard.
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#view")).to_be_focused()
    expect(page, "the view is the same").to_have_url(link)
    page.locator(".token.chosen").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".token.chosen")).to_have_text("jumps")
    page.locator("canvas.matrix").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".readout")).not_to_be_empty()


def test_pixels_are_the_executed_pairs(page, address, reader) -> None:
    """The canvas itself, cell by cell, beside a mask compiled apart."""
    plan = "neighbor(radius=1) | global(cls)"
    visit(page, address, f"#masks?text={TEXT}&pair=&plan={plan}&show=mask")
    found = page.locator("canvas.matrix").evaluate(
        """(canvas) => {
            const count = 12, cell = 20, edge = 78, side = count * cell;
            const { data } = canvas.getContext('2d').getImageData(edge, edge, side, side);
            const at = (row, col) => 4 * ((row * cell + 9) * side + col * cell + 9);
            const line = Array.from({ length: count }, (_, place) => place);
            return line.map((row) =>
                line.map((col) => data.slice(at(row, col), at(row, col) + 3).join()));
        }"""
    )
    band = "234,238,242"
    tokens = sa.TokenBatch(
        torch.ones(1, 12, dtype=torch.bool), separators=torch.zeros(1, 12, dtype=torch.bool)
    )
    mask = sa.Plan.of(plan).compile(tokens, [12] * 6).layers[0].dense[0, 0]
    assert [[colour != band for colour in row] for row in found] == mask.tolist()


def test_two_plans_filters_and_what_is_wrong(page, address, monkeypatch) -> None:
    visit(page, address, "#masks?beside=full()&layer=1&arcs=1")
    expect(page.locator("canvas.matrix")).to_have_count(2)
    expect(page.get_by_role("region", name="gives each head")).to_have_count(2)
    expect(page.get_by_role("region", name="Dependency arcs")).to_be_visible()
    second = page.locator("canvas.matrix").nth(1)
    expect(second).to_have_attribute("aria-label", re.compile("25 queries by 25 keys, 625 pairs"))
    first = page.locator(".board-box").first
    expect(first).to_contain_text("global tokens")
    page.get_by_label("Queries", exact=True).select_option("text 0")
    page.get_by_label("Keys", exact=True).select_option("text 1")
    expect(second).to_have_attribute("aria-label", re.compile("10 queries by 12 keys, 120 pairs"))
    expect(page.get_by_text("Arcs join tokens that are both")).to_be_visible()
    expect(first, "none is in this part").not_to_contain_text("global tokens")
    page.get_by_label("Pattern or plan").fill("neighbour(1)")
    page.get_by_text("did you mean 'neighbor'?").wait_for()
    page.get_by_label("Pattern or plan").fill("self()")
    settled(page)
    expect(page.locator(".trouble"), "it goes on").to_be_empty()

    def lost(*_):
        raise UnsupportedModelError("its scores are not kept")

    monkeypatch.setattr(Pass, "weights", lost)
    page.get_by_label("Pattern or plan").fill("neighbor(radius=1)")
    page.get_by_text("this model gives no attention: its scores are not kept").first.wait_for()
    expect(first.locator("canvas"), "the mask is there all the same").to_have_count(2)


@pytest.mark.parametrize(
    "view",
    ["masks?token=3&field=1&arcs=1", "heads?source=file:lines.tsv&layer=1&head=1", "studies"],
)
def test_everybody_can_use_it(browser, address, view) -> None:
    """No rule of axe-core is broken seriously, on a telephone, light or dark."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    size = {"width": 390, "height": 900}
    opened = browser.new_context(viewport=size, bypass_csp=True).new_page()
    opened.set_default_timeout(60_000)
    visit(opened, address, f"#{view}")
    if view == "studies":
        opened.get_by_role("heading", name="Contrasts").wait_for()
        opened.locator("path.mark").first.focus()
        opened.keyboard.press("Enter")
        opened.get_by_role("region", name="Changed examples").wait_for()
    for scheme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        opened.emulate_media(color_scheme=scheme)
        broken = axe.run(opened, options=options).response["violations"]
        serious = [each for each in broken if each["impact"] in ("serious", "critical")]
        found = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in serious]
        assert found == [], scheme
    assert opened.evaluate("document.documentElement.scrollWidth") <= size["width"]
    opened.context.close()


def test_a_long_text_is_walked_by_its_tokens(page, address, monkeypatch) -> None:
    """A token beyond the part that is shown brings its part, and says what is counted there."""
    monkeypatch.setattr(masks_view, "WHOLE", 16)
    monkeypatch.setattr(masks_view, "TILE", 16)
    text = " ".join(["fox", "dog"] * 150)
    visit(page, address, f"#masks?pair=&plan=neighbor(radius=1)&text={text}")
    shown = page.locator("canvas.matrix")
    expect(shown).to_have_attribute("aria-label", re.compile("16 queries by 16 keys"))
    page.locator(".token").nth(250).click()
    settled(page)
    expect(page.locator(".token.chosen")).to_have_attribute("data-token", "250")
    words = "may attend to 3 of the 16 keys that are shown"
    expect(page.locator(".readout")).to_contain_text(words)
    expect(page).to_have_url(re.compile("top=242&left=242|left=242&top=242"))
    page.get_by_role("button", name="Receptive field").click()
    fields = page.get_by_role("region", name="Receptive field").locator("text")
    expect(fields).to_have_text([f"layer {layer}: {2 * layer + 3} of 302" for layer in range(6)])


def test_hostile_texts_are_texts(page, address) -> None:
    text = f"{HOSTILE} שלום 🙂 {'x' * 5000} end"
    visit(page, address, "#masks?pair=")
    page.get_by_label("Text", exact=True).fill(text)
    settled(page)
    shown = page.locator(".text p").all_inner_texts()
    assert "".join(shown).replace("[CLS]", "").replace("[SEP]", "").strip() == text
    assert page.locator(".text script, .text img").count() == 0
    assert page.title() == "Masks – sparseattn"
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.get_by_label("Text", exact=True).fill("  ")
    page.get_by_text("the text is empty").wait_for()


def test_heads_as_a_user_walks_them(page, address, reader) -> None:
    visit(page, address, "#heads?source=file:lines.tsv")
    alone = sa.probe(reader.encoder, "similarity(k=1)", LINES, tokenizer=reader.tokenizer)
    best = alone.rows()[0]
    first = page.locator(".ranking tbody tr").first
    assert first.locator("th").inner_text() == f"{best['layer']}.{best['head']}"
    assert first.locator("td").nth(1).inner_text() == f"{100 * best['mass']:.0f}%"
    cell = page.get_by_role("button", name=f"layer {best['layer']}, head {best['head']}: ")
    assert cell.inner_text() == f"{100 * best['mass']:.0f}"
    cell.click()
    page.get_by_label("Plan to compare with").fill("similarity(k=1)")
    kept = page.get_by_text("of this head's attention in this text")
    kept.wait_for()
    share = float(re.search(r"([\d.]+)%", kept.inner_text()).group(1))
    assert 0 < share <= 100
    plan = page.get_by_label("Plan to compare with")
    plan.fill("neighbour(1)")
    page.get_by_text("did you mean 'neighbor'?").wait_for()
    expect(page.get_by_role("region", name="Texts with the largest share")).to_be_visible()
    plan.fill("similarity(k=1)")
    kept.wait_for()
    expect(page.get_by_role("link", name="open in Masks")).to_have_count(2)
    page.get_by_role("button", name="mixture").click()
    expect(page.locator("th[aria-sort=descending]")).to_have_text("mixture")
    page.get_by_role("link", name="open in Masks").last.click()
    page.wait_for_selector("#view[data-view=masks] .token")
    expect(page.get_by_label("Pattern or plan")).to_have_value("similarity(k=1)")
    # Back is back, also from a view that has changed nothing of its address.
    page.get_by_role("link", name="Heads").click()
    page.get_by_role("region", name="All heads").wait_for()
    page.go_back()
    page.wait_for_selector("#view[data-view=masks] .token")
    expect(page.get_by_label("Pattern or plan")).to_have_value("similarity(k=1)")


def test_studies_as_a_user_walks_them(page, address, study_folder) -> None:
    visit(page, address)
    assert page.title() == "Studies – sparseattn"
    assert HOSTILE in page.locator("#view").inner_text()
    data = load_study(study_folder)
    (asked,) = questions(data)
    page.get_by_role("heading", name="Contrasts").wait_for()
    expect(page.locator("#view")).to_contain_text(asked.answer)
    # All arms stand on all layers: there is nothing to choose, and no legend of it.
    assert page.get_by_label("Layers", exact=True).count() == 0
    assert page.get_by_text("Layers: all.").count() == 1
    assert page.locator("svg.plot text", has_text="layers: all").count() == 0
    forest = page.locator(".forest").first.get_attribute("aria-label")
    assert str(asked.comparisons[0]) in forest
    assert asked.comparisons[0].declared
    mark = page.locator(".forest rect:not(.ground)").first  # filled, as in the report
    assert mark.get_attribute("fill") == mark.get_attribute("stroke")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save these contrasts as SVG").first.click()
    assert waiting.value.suggested_filename == "contrasts.svg"
    expect(page.locator("path.mark")).to_have_count(2)
    expect(page.locator("circle.seed")).to_have_count(6)
    page.get_by_label("Filter by name").fill("similar")
    expect(page.locator("path.mark")).to_have_count(1)
    page.get_by_label("Filter by name").fill("")
    # A point, its trial, an example that changed, and that one in Masks.
    near = page.locator("path.mark").first
    mean = 100 * data.rows[data.rows["arm"] == list(ARMS)[1]]["accuracy"].mean()
    assert f"accuracy {mean:.1f} " in near.get_attribute("aria-label")
    near.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Examples that are predicted otherwise").wait_for()
    page.get_by_role("region", name="Changed examples").wait_for()
    # The other seeds of the arm are a step away.
    second = page.get_by_label("The chosen trial").get_by_role("button", name="seed 1")
    second.click()
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("heading", name=", seed 1")).to_be_visible()
    shown = page.get_by_label("The chosen trial").get_by_text("neighbor(radius=1) | global(cls)")
    expect(shown.first).to_be_visible()
    assert page.locator("#view script, #view img").count() == 0
    page.get_by_role("link", name="Open example").first.click()
    page.wait_for_selector("#view[data-view=masks] .token")
    expect(page.get_by_label("Text", exact=True)).to_have_value(re.compile("^Text "))
    plan = "layers :: neighbor(radius=1) | global(cls)"
    expect(page.get_by_label("Pattern or plan")).to_have_value(plan)


@pytest.mark.parametrize(
    "view",
    [
        "masks?token=3",
        pytest.param("heads?source=file:lines.tsv&layer=1&head=1", marks=pytest.mark.slow),
        pytest.param("studies", marks=pytest.mark.slow),
    ],
)
def test_a_view_is_saved_as_a_page_and_as_a_picture(page, address, browser, tmp_path, view) -> None:
    visit(page, address, f"#{view}")
    saved = {}
    for name in ("SVG", "HTML"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Save {name}").click()
        saved[name] = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(saved[name])
    assert saved["HTML"].stat().st_size < 500_000
    words = page.locator("#view").inner_text()
    alone = browser.new_context().new_page()
    asked: list[str] = []
    alone.on("request", lambda request: asked.append(request.url))
    alone.on("console", lambda message: asked.append(message.text))
    alone.on("pageerror", lambda error: asked.append(str(error)))
    alone.goto(saved["HTML"].as_uri())
    alone.wait_for_selector("#view[data-ready]")
    assert [url for url in asked if not url.startswith("data:")] == [saved["HTML"].as_uri()]
    assert alone.locator("#view").inner_text() == words
    assert alone.locator("#view script, #view img").count() == 0
    picture = alone.context.new_page()
    picture.goto(saved["SVG"].as_uri())
    assert picture.locator("svg *").count() > 30
    assert picture.locator("svg text").count() > 5
    if view.startswith("masks"):
        expect(picture.get_by_text("similar words")).to_be_visible()  # what the colours mean
    if view == "studies":
        alone.get_by_role("button", name="Save these contrasts").first.wait_for()
        alone.evaluate("location.hash = '#masks'")
        expect(alone.get_by_role("status")).to_contain_text("this saved page holds what was shown")
    alone.context.close()
