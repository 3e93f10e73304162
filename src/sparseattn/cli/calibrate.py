"""`sparseattn calibrate`. Light to import: see `sparseattn.cli.main`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparseattn.cli import options
from sparseattn.models.names import DEFAULT

EXAMPLES = options.examples(
    "calibrate --text texts.txt --sparsity 0.8 --out plan.json",
    "calibrate --task sst2 --sparsity 0.9 --model bert-base-uncased",
)


def calibrate(
    sparsity: Annotated[float, typer.Option(help="The target on these texts, such as 0.8.")],
    task: options.TaskTexts = None,
    text: Annotated[
        Path | None, typer.Option(help="Or unlabelled text, a text a line (.txt or .tsv).")
    ] = None,
    out: Annotated[Path, typer.Option(help="The plan's file, JSON.")] = Path("plan.json"),
    model: options.Model = None,
    over: options.Over = options.DEFAULT_RANKINGS,
    granularity: options.Granularity = "head",
    global_tokens: options.Globals = "cls",
    dense_layers: options.DenseLayers = "",
    changes: options.Changes = None,
) -> None:
    """Find the degrees that keep the most of a model's own attention. No training."""
    options.check_source(task, text, changes)
    options.check_file(out, "plan", ".json")
    from sparseattn.annotations import PARSED
    from sparseattn.counting import MeasuredSparsity
    from sparseattn.degrees.calibrate import calibrate_rows
    from sparseattn.degrees.cost import check_sparsity
    from sparseattn.degrees.result import kind_lines, sparsity_lines
    from sparseattn.degrees.settings import Settings
    from sparseattn.degrees.texts import Texts, tokenize
    from sparseattn.models.load import load_part
    from sparseattn.study.resolve import Sample
    from sparseattn.study.trial_cache import TrialCache
    from sparseattn.words import counted

    settings = Settings(
        over, granularity, options.globals_of(global_tokens), dense_layers=dense_layers
    )
    check_sparsity(sparsity)
    if text is None:
        study = options.study_of(str(task), model, changes)
        sample = Sample(study, settings.needs & PARSED, TrialCache())
        encoder, tokenizer = sample.model, sample.tokenizer
        rows, collator = sample.texts.evaluation, sample.texts.collator
    else:
        name, texts = model or DEFAULT, options.read_texts(text)
        encoder, tokenizer = load_part(name, "AutoModel"), load_part(name, "AutoTokenizer")
        rows, collator = tokenize(encoder, texts, tokenizer, settings.needs)
    with options.working(f"looking at the attention in {counted(len(rows), 'text')}"):
        result = calibrate_rows(encoder, rows, collator, sparsity, settings, tokenizer)
    result.plan.save(out)
    tokens = Texts(encoder, rows, collator).tokens(result.plan, tokenizer)
    measured = MeasuredSparsity.of(result.plan, tokens, result.costs.heads, result.costs.windows)
    counted_on = f"{counted(len(measured.lengths), 'text')} of {text or task}"
    for line in (*sparsity_lines(sparsity, measured, counted_on), *kind_lines(result)):
        typer.echo(line)
    typer.echo(str(result.plan))
    typer.echo(f"wrote {out}")
