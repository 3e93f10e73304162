"""The report as HTML and Markdown."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from sparseattn.report import StudyData, questions, summarise, write_report
from sparseattn.report.changed import changed_examples
from sparseattn.report.findings import findings
from tests.report.fake import DATA, SPEC, changed, study

ENDINGS = (".svg", "-dark.svg", ".png")
NASTY = [
    "<script>alert(1)</script>",
    'a" onload="alert(1)',
    "pipe | `code` *star* _under_",
    "$x_{$ and \\ and #",
    "{{ 1234 * 4321 }}",
    "名前 \x00\x1b[31m 🙂",
]


class Page(HTMLParser):
    """Tags, attributes, ids and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data) -> None:
        self.words.append(data)


def _written(data: StudyData, folder) -> tuple[Page, str]:
    html, text = write_report(data, folder)[:2]
    return Page(html.read_text(encoding="utf-8")), text.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory) -> tuple[Page, str, str]:
    """A study with failures: its page parsed, its page, its Markdown."""
    folder = tmp_path_factory.mktemp("report")
    page, text = _written(study(failures=2), folder)
    return page, (folder / "report.html").read_text(encoding="utf-8"), text


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> tuple[Page, str]:
    """A study whose every text tries to be something else."""
    data = study({name: (0.1, 0.4) for name in NASTY}, seeds=2, examples=60, failures=1)
    rows = data.rows.assign(
        pattern=NASTY[0], reason=data.rows["reason"].map(lambda r: NASTY[0] if r else r)
    )
    task = {**SPEC["task"], "name": NASTY[2]}
    spec = {**SPEC, "model": NASTY[0], "task": task, NASTY[1]: NASTY[4]}
    where = ({NASTY[0]: NASTY[0]},)
    data = replace(data, rows=rows, spec=spec, name=NASTY[0], question=NASTY[1], environments=where)
    return _written(data, tmp_path_factory.mktemp("report"))


def test_whatever_users_write_stays_text(nasty) -> None:
    page, text = nasty
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    said = "".join(page.words)
    for name in NASTY[:5]:
        assert name in said
    prose, _, spec = text.partition("## Spec")
    assert "<script" not in prose
    assert {line[:4] for line in spec.split("Made by")[0].splitlines() if line} == {"    "}
    assert "5332114" not in text + said


def test_markdown_tables_stay_whole(nasty) -> None:
    _, text = nasty
    table = text.split("## Arms")[1].split("Layers are counted")[0].strip().splitlines()
    assert len(table) == 2 + 1 + 2 * len(NASTY)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {16}
    assert r"pipe \| \`code\` \*star\* \_under\_" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_page_needs_nothing_else(ordinary) -> None:
    page, html, _ = ordinary
    for tag, attrs in page.tags:
        for name in ("src", "srcset", "href", "action"):
            target = attrs.get(name) or ""
            assert target.startswith(("data:", "#")) or not target, (tag, target)
        assert "http" not in (attrs.get("style") or "")
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"@import|url\(", html)


def test_ids_are_unique_and_figures_have_words(ordinary) -> None:
    page, _, _ = ordinary
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a} <= set(ids)
    words = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert len(words) == 3
    assert "neighbor, layers all against dense: −" in words.pop()
    for text in words:
        assert "neighbor, layers all: 88.8 ± 2.0 at sparsity 80.0%" in text
    dark = [attrs["media"] for tag, attrs in page.tags if tag == "source"]
    assert dark == ["(prefers-color-scheme: dark)"] * 3


def test_headings_of_markdown_say_what_is_counted_after_a_space(ordinary) -> None:
    heading = next(line for line in ordinary[2].splitlines() if "| Arm |" in line)
    assert "| Accuracy (mean over seeds ± 95%) |" in heading
    assert "| Seeds (finished) |" in heading


def test_declared_comparisons_stand_on_the_pages(undrawn, tmp_path) -> None:
    pairs = [("neighbor", "similarity"), ("no such", "dense")]
    write_report(replace(DATA, contrasts={"Does it matter which?": pairs}), tmp_path)
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "Declared comparisons" in text
        assert "Does it matter which?" in text
        assert "is not compared: it has no trial yet" in text
    assert 'download="contrasts.csv"' in (tmp_path / "report.html").read_text()
    write_report(DATA, tmp_path)
    assert "Declared comparisons" not in (tmp_path / "report.html").read_text()


def test_the_report_says_it_all(ordinary) -> None:
    page, _, text = ordinary
    said = " ".join("".join(page.words).split())
    for part in (
        "Which connections can go, and from which layers?",
        "Of 8 arms compared with dense in accuracy, 3 are lower and for 5 no difference was found",
        "4,000 training examples, 872 evaluation examples",
        "epochs: 2, learning_rate: 5e-05",
        "3 (0, 1, 2)",
        "25 finished, 2 failed",
        "loss is nan at step 41",
        "bfloat16",
        "p is, after Holm, for the 8 comparisons of this table",
        "with one seed the test covers other examples, not another training run",
    ):
        assert part in said
        assert part.replace("_", r"\_") in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        f"## {name}" for name in ("Setting", "Arms", "Each arm", "Failures", "Environment", "Spec")
    ]
    assert (
        'srcset="sparsity-dark.svg"><img alt="accuracy against sparsity" src="sparsity.svg">'
        in text
    )


def test_tables_can_be_downloaded(ordinary) -> None:
    page, data = ordinary[0], study(failures=2)
    links = {a["download"]: a["href"] for t, a in page.tags if t == "a"}
    frames = {
        name: pd.read_csv(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))
        for name, uri in links.items()
    }
    assert len(frames["arms.csv"]) == 9
    assert list(frames["results.csv"]["digest"]) == list(data.rows["digest"])


def test_a_table_that_is_too_long_for_the_page_is_named(undrawn, tmp_path, monkeypatch) -> None:
    note = "The table of all trials is too long for this page"
    data = replace(study(examples=60), contrasts={"Which?": [("neighbor", "random")]})
    for limit, told in ((10**6, False), (4000, True)):
        monkeypatch.setattr("sparseattn.report.page._EMBEDDED", limit)
        write_report(data, tmp_path)
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert (note in page, 'download="results.csv"' in page) == (told, not told)


def test_the_same_study_gives_the_same_bytes(tmp_path) -> None:
    paths = write_report(DATA, tmp_path)
    assert [path.name for path in paths] == [
        "report.html",
        "report.md",
        *(f"{name}{ending}" for name in ("sparsity", "placement", "forest") for ending in ENDINGS),
    ]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_report(DATA, tmp_path)] == first


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.assign(status="failed", accuracy=float("nan")),
        lambda rows: rows.iloc[:0],
        lambda rows: rows[rows["arm"] != "dense"],
        lambda rows: rows[rows["arm"] == "dense"],
        lambda rows: rows.drop(columns=["sparsity", "seconds"]),
        lambda rows: rows.assign(status="failed", headline=None).drop(columns=["accuracy"]),
        None,
    ],
    ids=["failed", "empty", "no baseline", "baseline only", "few columns", "no metric", "bare"],
)
def test_what_is_missing_is_left_out(tmp_path, change) -> None:
    data = study(examples=60)
    if change is None:
        data = replace(data, environments=(), question="")
    else:
        data = replace(data, rows=change(data.rows))
    page, text = _written(data, tmp_path)
    assert "nan" not in re.findall(r"\w+", "".join(page.words).lower())
    assert "nan" not in re.findall(r"\w+", text.lower())
    assert "None" not in text


def test_different_environments_stand_side_by_side(undrawn, tmp_path) -> None:
    data = replace(study(examples=60), environments=[{"torch": "2.12"}, {"torch": "2.13"}] * 9)
    _, text = _written(data, tmp_path)
    assert "| torch | 2.12 | 2.13 |" in text


def test_three_sentences_say_what_was_found(undrawn, tmp_path) -> None:
    pairs = [("neighbor", "similarity"), ("neighbor", "random")]
    data = replace(DATA, contrasts={"Does it matter which?": pairs})
    summary = summarise(data)
    first, second, third = findings(summary, questions(data))
    sparse = [each for each in summary.arms if each.comparison]
    kept = [each for each in sparse if each.comparison.result.low > -0.05]
    best = max(kept, key=lambda each: each.rows["sparsity"].mean())
    change = 100 * (best.rows["accuracy"].mean() - data.done_in(data.reference)["accuracy"].mean())
    assert (
        f"a loss of 5 points is {best.arm}, at sparsity {best.rows['sparsity'].mean():.1%}: "
        in first
    )
    assert f"{change:+.1f} points (95% interval ".replace("-", "−") in first
    (asked,) = questions(data)
    found = [each for each in asked.comparisons if each.differs]
    assert f"Of 4 declared comparisons a difference was found in {len(found)};" in second
    largest = max(found, key=lambda each: each.result.difference)
    assert f"{largest.a} is {largest.verdict} than {largest.b}, " in second
    assert third.startswith("Where no difference was found there may still be one: 80% of such")
    write_report(data, tmp_path)
    for sentence in (first, second, third):
        for file in ("report.html", "report.md"):
            assert sentence in (tmp_path / file).read_text(encoding="utf-8").replace("&lt;", "<")


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, 3.0])
def test_an_arm_is_recommended_only_if_its_interval_excludes_five_points(shift) -> None:
    data = study({"safe": (0.0,), "sparser": (shift,)}, layers=(":",), seeds=3)
    share = data.rows["arm"].map({"dense": 0.0, "safe": 0.1, "sparser": 0.9})
    summary = summarise(changed(data, sparsity=share))
    low = {each.arm.name: each.comparison.result.low for each in summary.arms if each.comparison}
    (first, *_) = findings(summary, [])
    assert low["safe"] > -0.05
    assert ("is sparser" in first) == (low["sparser"] > -0.05)
    assert ("is safe" in first) == (low["sparser"] <= -0.05)


def test_no_difference_is_never_called_equality(ordinary) -> None:
    page, _, text = ordinary
    said = " ".join("".join(page.words).split())
    assert not re.search(r"\b(equal to|identical|as good as|the same as dense)\b", said + text)
    assert "declared no comparison: all of these are post hoc" in said


def test_changed_examples_are_those_predicted_otherwise(undrawn, tmp_path) -> None:
    (first, second) = changed_examples(summarise(DATA))
    means = DATA.rows[DATA.rows["arm"] != "dense"].groupby(["arm", "layers"])["accuracy"].mean()
    best = means.sort_values(ascending=False, kind="stable").index[:2]
    assert [(each.arm.name, each.arm.layers) for each in (first, second)] == list(best)
    rows = DATA.rows.set_index(["arm", "layers", "seed"])["digest"]
    differs = pd.Series(0, index=[f"dev-{i}" for i in range(872)])
    for seed in range(3):
        here, dense = (
            DATA.predictions(rows[name, at, seed]).set_index("example")["prediction"]
            for name, at in ((first.arm.name, first.arm.layers), ("dense", ""))
        )
        differs += here != dense
    assert f": {(differs > 0).sum()} of 872 examples" in first.words
    assert first.table.left_out == (differs > 0).sum() - len(first.table.rows)
    assert len(first.table.rows) == 10
    for example, label, before, after, seeds, better, worse in first.table.rows:
        assert int(seeds) == differs[example]
        assert before != after
        assert (int(better) > int(worse)) == (after == label)
    page, _ = _written(DATA, tmp_path)
    assert "Changed examples" in page.words


def test_changed_examples_are_text_and_none_where_they_mean_nothing(undrawn, tmp_path) -> None:
    def hostile(digest: str) -> pd.DataFrame:
        frame = DATA.predictions(digest)
        return frame.assign(prediction=[f"<script>{p}</script>" for p in frame["prediction"]])

    page, _ = _written(replace(DATA, predictions=hostile), tmp_path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script>1</script>" in page.words
    regression = replace(DATA, spec={"task": {"kind": "regression"}})
    assert changed_examples(summarise(regression)) == []
