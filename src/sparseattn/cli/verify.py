"""`sparseattn verify`: whether what runs keeps to a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparseattn.cli.options import examples, read_texts, working

EXAMPLES = examples(
    "verify mine.onnx",
    "verify http://localhost:8080 --model learned/model --text texts.txt",
)

#: Texts that are looked at: each is run some 80 times, and more show the same.
_TEXTS = 16


def verify(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A model (a folder, a Hub name or package:NAME), an exported file, or a URL that "
            "answers like OpenAI's embeddings or text-embeddings-inference.",
        ),
    ],
    plan: Annotated[
        str | None,
        typer.Option(help="A pattern or a plan's file.", show_default="that of the model or file"),
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="A file with a text a line.", show_default="random tokens")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model that should be running: its layers, plan and tokenizer."),
    ] = None,
    changes: Annotated[int, typer.Option(min=1, help="Tokens to change in each text.")] = 16,
) -> None:
    """Change tokens and see whether only what the plan lets them reach changes.

    Exit status: 0 if the plan is kept; 1 if it is not, or if that cannot be proven; 2 for bad
    input.
    """
    from sparseattn.degrees.texts import spread_indices
    from sparseattn.plan import Plan
    from sparseattn.verifying.verify import verify as verify_plan

    texts = None if text is None else read_texts(text)
    if texts is not None and len(texts) > _TEXTS:
        typer.echo(f"note: {_TEXTS} of the {len(texts):,} texts are looked at, spread evenly")
        texts = [texts[at] for at in spread_indices(len(texts), _TEXTS)]
    wanted = None if plan is None else Plan.read(plan)
    with working("changing tokens, and looking at what changes"):
        found = verify_plan(target, wanted, texts, model=model, changes=changes)
    typer.echo(found)
    if not found:
        raise typer.Exit(1)
