"""The model card of a saved sparse model: its plan, where that was measured, how to load it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import sparseattn
from sparseattn.files import write_whole
from sparseattn.plan import Plan

#: A model of the Hub: `name` or `owner/name`.
_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


def write_card(folder: Path, plan: Plan, base: str, measured: Sequence[str] = ()) -> None:
    """Writes `README.md` beside a saved model, unless there is one.

    Args:
        folder: Where the model lies.
        plan: Its plan.
        base: The model that it was made from; named if it is one of the Hub's.
        measured: What is known of it, a line each, with what it was counted over.
    """
    path = folder / "README.md"
    if path.exists():
        return
    known = _HUB.fullmatch(base) and not Path(base).exists()
    front = ["---", "library_name: sparseattn", "tags: [sparse-attention]"]
    front += [f"base_model: {json.dumps(base)}"] if known else []
    lines = [
        *front,
        "---",
        "",
        "# A model with sparse attention",
        "",
        "Its layers and heads attend as follows; what no line names is dense.",
        "",
        *(f"    {line}" for line in str(plan).splitlines()),
        "",
        "```python",
        "import sparseattn",
        "",
        'model = sparseattn.load("this/folder")',
        "```",
        "",
        *(["## Measured", "", *(f"    {line}" for line in measured), ""] if measured else []),
        f"Made with sparseattn {sparseattn.__version__}.",
    ]
    write_whole(path, "\n".join(lines) + "\n")
