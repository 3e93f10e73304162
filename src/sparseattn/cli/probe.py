"""`sparseattn probe`. Light to import: see `sparseattn.cli.main`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparseattn.cli import options
from sparseattn.errors import DataError
from sparseattn.files import write_whole
from sparseattn.models.names import DEFAULT

EXAMPLES = options.examples(
    "probe 'similarity(k=1) - sentence()' --text pairs.tsv --pairs",
    "probe 'neighbor(radius=2)' --task sst2 --out heads.csv",
)


def probe(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Such as 'similarity(k=3) - sentence()'.")
    ],
    task: options.TaskTexts = None,
    text: Annotated[
        Path | None, typer.Option(help="Or a file, a text a line (.txt or .tsv): 512 of them.")
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="The first two columns of --text are a pair.")
    ] = False,
    model: options.Model = None,
    out: Annotated[Path | None, typer.Option(help="Also write all heads into this CSV.")] = None,
    png: options.Png = None,
    svg: options.Svg = None,
    html: options.Html = None,
    changes: options.Changes = None,
) -> None:
    """Measure how much of a model's own attention falls on a pattern's pairs, head by head."""
    options.check_source(task, text, changes)
    if text is None and pairs:
        raise DataError("--pairs goes with --text; a task says itself what its texts are")
    if out is not None:
        options.check_file(out, "table", ".csv")
    files = options.picture_files(png, svg, html)
    from sparseattn.degrees.probe import pattern_of, probe_texts
    from sparseattn.degrees.probe import probe as probe_attention
    from sparseattn.degrees.texts import Texts
    from sparseattn.models.load import load_part
    from sparseattn.study.resolve import TEXTS, Sample
    from sparseattn.study.trial_cache import TrialCache

    wanted, looking = pattern_of(pattern), options.working("looking at the attention")
    if text is None:
        study = options.study_of(str(task), model, changes)
        sample = Sample(study, wanted.needs, TrialCache())
        rows = Texts(sample.model, sample.texts.evaluation, sample.texts.collator, TEXTS)
        with looking:
            result = probe_texts(rows, wanted, sample.tokenizer)
    else:
        texts = [columns[: 1 + pairs] for columns in options.read_lines(text, 1 + pairs)]
        name = model or DEFAULT
        encoder, tokenizer = load_part(name, "AutoModel"), load_part(name, "AutoTokenizer")
        with looking:
            result = probe_attention(encoder, wanted, texts, tokenizer=tokenizer)
    options.show(result)
    if out is not None:
        import pandas as pd

        write_whole(out, pd.DataFrame(result.rows()).to_csv(index=False))
        typer.echo(f"wrote {out}")
    for file in files:
        typer.echo(f"wrote {result.drawing.save(file)}")
