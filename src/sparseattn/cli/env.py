"""`sparseattn env`: what a report of a problem should say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from sparseattn.cli.options import examples

EXAMPLES = examples("env", "env learned/model")


def env(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Say what this model is, too, and its plan."),
    ] = None,
) -> None:
    """Print versions, machine and backends, for an issue."""
    import torch

    from sparseattn.auto import processor
    from sparseattn.models.load import load_part
    from sparseattn.show import backend_lines
    from sparseattn.training.environment import environment, has_bf16

    config = None if model is None else load_part(model, "AutoConfig")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, value in environment(device, precision="").items():
        if value:
            typer.echo(f"{name}: {value}")
    instructions = torch.backends.cpu.get_cpu_capability()
    instructions += ", VNNI" * torch.cpu._is_vnni_supported() + ", bf16" * has_bf16()
    typer.echo(f"processor: {processor()} ({instructions})")
    for line in backend_lines():
        typer.echo(f"backend {line}")
    for line in () if config is None else _model_lines(config):
        typer.echo(line)


def _model_lines(config: object) -> Iterator[str]:
    from sparseattn.models.config import FIELD, SparsityConfig

    yield f"model: {getattr(config, 'model_type', type(config).__name__)}"
    data = getattr(config, FIELD, None)
    if data is None:
        yield "plan: none"
        return
    found = SparsityConfig.from_json(data)
    yield f"plan, backend {found.backend}:"
    yield from (f"  {line}" for line in str(found.plan).splitlines())
