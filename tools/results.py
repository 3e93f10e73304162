"""Rebuilds every published table and figure from the packed studies in results/.

python tools/results.py

    results/NAME.tar.xz            a study, as `sparseattn study pack` writes it
    results/trials.csv             a row a trial of all of them
    docs/results/NAME/             its report in Markdown, and its figures
    docs/results.md                the text is written by hand; what stands between a comment
                                   `<!-- contrasts NAME -->` and `<!-- end -->` is written here. It
                                   may name some of the study's seeds (`seeds 5:`) and questions
                                   (`questions 1,3`)
    README.md, docs/results.md     the two tables behind `<!-- headline -->`

Nothing is trained, and running it again changes nothing.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd
from headline import STUDIES, headline

from sparseattn.report import StudyData, summarise, write_report
from sparseattn.report.contrasts import questions
from sparseattn.report.load import load_study
from sparseattn.report.results import ordered
from sparseattn.report.summary import Summary
from sparseattn.report.tables import Table, contrasts_table
from sparseattn.report.text import markdown
from sparseattn.study import unpack

ROOT = Path(__file__).parents[1]
PACKED, PAGES, TEXT = ROOT / "results", ROOT / "docs" / "results", ROOT / "docs" / "results.md"

PLACE = re.compile(
    r"(<!-- contrasts ([\w-]+)(?: seeds ([\d:,]+))?(?: questions ([\d,]+))? -->\n)"
    r".*?(<!-- end -->)",
    re.DOTALL,
)
HEADLINE = re.compile(r"(<!-- headline -->\n).*?(<!-- end -->)", re.DOTALL)


def grid(table: Table) -> str:
    """A table in Markdown."""
    lines = [
        "| " + " | ".join(markdown(column.label) for column in table.columns) + " |",
        "| " + " | ".join("---:" if column.number else "---" for column in table.columns) + " |",
    ]
    lines += ["| " + " | ".join(map(markdown, row)) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"


def opened(file: Path, place: Path) -> StudyData:
    """A packed study."""
    unpack(file, place)
    return load_study(place)


def publish(data: StudyData, folder: Path) -> None:
    """Writes a study's report."""
    with tempfile.TemporaryDirectory() as made:
        for path in write_report(data, made):
            if path.suffix in (".md", ".svg"):
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / path.name)


def tables_of(data: StudyData, text: str) -> dict[tuple[str, ...], str]:
    """The tables of a study that the text shows, by the study, its seeds and questions."""
    found = {}
    for _, name, seeds, numbers, _ in PLACE.findall(text):
        if name == data.name:
            found[name, seeds, numbers] = contrasts(data.only(seeds) if seeds else data, numbers)
    return found


def contrasts(data: StudyData, numbers: str = "") -> str:
    """The comparisons that the study declared, a table a question; of some questions, from 1."""
    wanted = [int(number) for number in numbers.split(",")] if numbers else None
    found = [each for at, each in enumerate(questions(data), 1) if not wanted or at in wanted]
    return "\n".join(
        f"*{markdown(each.text)}*\n\n{grid(contrasts_table(data, each.contrasts))}"
        for each in found
    )


def main() -> int:
    """Rebuilds everything."""
    frames: list[pd.DataFrame] = []
    tables: dict[tuple[str, ...], str] = {}
    summaries: dict[str, Summary] = {}
    text = TEXT.read_text(encoding="utf-8")
    packed = {file.name.removesuffix(".tar.xz"): file for file in sorted(PACKED.glob("*.tar.xz"))}
    wanted = {*STUDIES, *(name for _, name, *_ in PLACE.findall(text))}
    if lacking := sorted(wanted - packed.keys()):
        print(f"{TEXT.name} shows {', '.join(lacking)}: not in {PACKED}", file=sys.stderr)
        return 1
    for name, file in packed.items():
        with tempfile.TemporaryDirectory() as made:
            data = opened(file, Path(made) / name)
            if name in STUDIES:
                summaries[name] = summarise(data)
            publish(data, PAGES / name)
            tables |= tables_of(data, text)
            frames.append(ordered(data.rows, data.metrics).assign(study=name))
            print(f"{name}: {len(data.rows)} trials")
    whole = pd.concat(frames)
    whole = whole[["study", *(c for c in whole.columns if c != "study")]]
    whole.to_csv(PACKED / "trials.csv", index=False, lineterminator="\n")
    text = PLACE.sub(
        lambda m: f"{m[1]}\n{tables[tuple(part or '' for part in m.groups()[1:4])]}\n{m[5]}", text
    )
    TEXT.write_text(text, encoding="utf-8")
    top = "\n".join(map(grid, headline(summaries)))
    for page in (TEXT, ROOT / "README.md"):
        text = page.read_text(encoding="utf-8")
        text = HEADLINE.sub(lambda m: f"{m[1]}\n{top}\n{m[2]}", text)
        page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
