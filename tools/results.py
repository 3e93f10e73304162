"""Rebuilds every published table and figure from the packed studies in results/.

python tools/results.py

    results/NAME.tar.xz        a study, as `sparseattn study pack` writes it
    results/trials.csv         a row for each trial of all of them
    docs/results/NAME/         its report in Markdown, and its figures
    docs/results/overview.svg  the figure of docs/results.md, and -dark.svg
    README.md, docs/results.md, docs/results/*.md
                               the text is written by hand; what stands between a comment and
                               `<!-- end -->` is written here:
                               `<!-- claims -->`    the table of claims
                               `<!-- headline -->`  degrees learned over several kinds
                               `<!-- all kinds -->`  the same with all targets and arms
                               `<!-- twelve layers -->`  the model of 12 layers
                               `<!-- all tasks -->`  the two tables of patterns and degrees
                               `<!-- contrasts NAME -->`  the comparisons that a study declared, or
                               some: `<!-- contrasts NAME seeds 5: questions 1,3 -->`

Nothing is trained, and running it again changes nothing.
"""

from __future__ import annotations

import html
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
from claims import CLAIMS, claims
from headline import (
    BASELINES,
    POST_HOC,
    STUDIES,
    Dense,
    Published,
    all_kinds,
    all_tasks,
    headline,
    twelve_layers,
)
from overview import overview

from sparseattn.report import StudyData, load_study, questions, summarise, write_report
from sparseattn.report.comparison import Question, over_page
from sparseattn.report.tables import Table, comparisons_table
from sparseattn.report.text import markdown
from sparseattn.study import unpack
from sparseattn.study.results import ordered

ROOT = Path(__file__).parents[1]
PACKED, FOLDERS = ROOT / "results", ROOT / "docs" / "results"

#: A study, its seeds and the numbers of its questions, as a page writes them.
Key = tuple[str, ...]

PLACE = re.compile(
    r"(<!-- contrasts ([\w-]+)(?: seeds ([\d:,]+))?(?: questions ([\d,]+))? -->\n)"
    r".*?(<!-- end -->)",
    re.DOTALL,
)
TABLE = re.compile(
    r"(<!-- (claims|headline|all tasks|all kinds|twelve layers) -->\n).*?(<!-- end -->)", re.DOTALL
)
#: Studies whose forest plot is published: each takes a tenth of a megabyte.
FORESTS = ("kinds-mrpc", "kinds-squad", "base-sst2")
FOREST = re.compile(r'<picture>[^\n]*src="forest\.svg"></picture>\n\n[^\n]*\n\n')


def grid(table: Table, raw: bool = False) -> str:
    """A table in Markdown; `raw` cells are Markdown themselves."""
    heads = [f"{c.label} ({c.explain})" if c.explain else c.label for c in table.columns]
    rules = ["---:" if column.number else "---" for column in table.columns]
    rows = [list(map(str if raw else markdown, row)) for row in [heads, *table.rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rules, *rows[1:]]) + "\n"


@contextmanager
def opened(name: str) -> Iterator[StudyData]:
    """A packed study, as long as its trials can be read."""
    with tempfile.TemporaryDirectory() as place:
        unpack(PACKED / f"{name}.tar.xz", Path(place) / name)
        data = load_study(Path(place) / name)
        late = {question: data.contrasts[question] for question in POST_HOC.get(name, ())}
        yield replace(data, added=late)


def publish(data: StudyData, folder: Path, dense: Dense | None) -> Published:
    """Writes a study's report."""
    summary = summarise(data)
    with tempfile.TemporaryDirectory() as written:
        for path in write_report(summary, written):
            if path.suffix not in (".md", ".svg"):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            if folder.name in FORESTS:
                shutil.copyfile(path, folder / path.name)
            elif path.suffix == ".md":
                text = FOREST.sub("", path.read_text(encoding="utf-8"))
                (folder / path.name).write_text(text, encoding="utf-8")
            elif not path.name.startswith("forest"):
                shutil.copyfile(path, folder / path.name)
    based = summarise(dense.under(data)) if dense else summary
    return Published(summary, questions(data), based)


def some(asked: Sequence[Question], numbers: str) -> list[Question]:
    """The questions of a study, or some of them, counted from 1."""
    wanted = [int(number) for number in numbers.split(",")] if numbers else None
    return [each for at, each in enumerate(asked, 1) if not wanted or at in wanted]


def contrasts(asked: Mapping[Key, list[Question]]) -> dict[Key, str]:
    """The tables of a page, a table for each question, with q-values over all of them."""
    every = [question for questions in asked.values() for question in questions]
    tables = map(comparisons_table, over_page([question.comparisons for question in every]))
    return {
        key: "\n".join(folded(f"{key[0]}: {each.text}", next(tables)) for each in shown)
        for key, shown in asked.items()
    }


def folded(question: str, table: Table) -> str:
    """A study's question and how often a difference was found; its comparisons unfold."""
    at = [column.label for column in table.columns].index("Found")
    found = sum(row[at] != "none" for row in table.rows)
    summary = f"{html.escape(question)} A difference in {found} of {len(table.rows)}."
    head = f'<details markdown="1">\n<summary>{summary}</summary>\n\n'
    return f"{head}{grid(table)}\n</details>\n"


def filled(text: str, tables: Mapping[Key, str], top: Mapping[str, str]) -> str:
    """A page with its tables in their places."""
    text = PLACE.sub(lambda m: f"{m[1]}\n{tables[m.groups('')[1:4]]}\n{m[5]}", text)
    return TABLE.sub(lambda m: f"{m[1]}\n{top[m[2]]}\n{m[3]}", text)


def main() -> int:
    """Rebuilds everything."""
    pages = [ROOT / "README.md", ROOT / "docs" / "results.md", *sorted(FOLDERS.glob("*.md"))]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    keys = {
        page: [match.groups("")[1:4] for match in PLACE.finditer(text)]
        for page, text in texts.items()
    }
    places = [key for found in keys.values() for key in found]
    packed = {file.name.removesuffix(".tar.xz"): file for file in sorted(PACKED.glob("*.tar.xz"))}
    claimed = {study for claim in CLAIMS for _, study, *_ in (*claim.pairs, *claim.base_pairs)}
    if missing := sorted({*STUDIES, *claimed, *(name for name, *_ in places)} - packed.keys()):
        print(f"the pages show {', '.join(missing)}: not in {PACKED}", file=sys.stderr)
        return 1
    frames: list[pd.DataFrame] = []
    asked: dict[Key, list[Question]] = {}
    studies: dict[str, Published] = {}
    dense: dict[str, Dense] = {}
    for name in sorted(set(BASELINES.values())):
        with opened(name) as data:
            dense[name] = Dense(data)
    for name in packed:
        with opened(name) as data:
            studies[name] = publish(data, FOLDERS / name, dense.get(BASELINES.get(name, "")))
            for key in (key for key in places if key[0] == name):
                every = questions(data.only(key[1])) if key[1] else studies[name].questions
                asked[key] = some(every, key[2])
            frames.append(data.rows[ordered(data.rows, data.metrics)].assign(study=name))
            print(f"{name}: {len(data.rows)} trials")
    whole = pd.concat(frames)
    whole = whole[["study", *(column for column in whole.columns if column != "study")]]
    whole.to_csv(PACKED / "trials.csv", index=False, lineterminator="\n")
    for path in overview(studies).write(FOLDERS):
        if path.suffix != ".svg":
            path.unlink()
    top = {
        "claims": grid(claims(studies), raw=True),
        "headline": grid(headline(studies), raw=True),
        "all kinds": grid(all_kinds(studies), raw=True),
        "twelve layers": grid(twelve_layers(studies), raw=True),
        "all tasks": "\n".join(grid(table, raw=True) for table in all_tasks(studies)),
    }
    for page, text in texts.items():
        shown = contrasts({key: asked[key] for key in keys[page]})
        page.write_text(filled(text, shown, top), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
