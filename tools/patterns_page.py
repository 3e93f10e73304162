"""Writes docs/patterns.md from the patterns themselves.

python tools/patterns_page.py
"""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from sparseattn.pattern import catalogue, parse
from sparseattn.show import picture

TEXT = "The quick brown fox doesn't jump."
#: For patterns that tell the texts of a pair apart.
PAIR = ("Who jumps?", "The quick brown fox doesn't jump.")
HEAD = """# Patterns

Written by `tools/patterns_page.py` from the patterns themselves; `sparseattn patterns` prints them
without the pictures, and what else a spec string may say. `allowed` means: query q may attend to
key k. A token's own place is always allowed and padding never is, whatever a pattern says. The
degree counts the keys of one query, itself included, away from the borders. Patterns join with
`|`, `&` and `-`, which bind as in Python; `str(pattern)` parses back.
"""
BLIND = "neighbor(radius=4) & segment(query=1) | segment(key=0) | global(cls, columns=false)"
PAIRS = f"""## For re-ranking

The plan of Sparse Cross-Encoders ([arXiv 2312.17649](https://arxiv.org/abs/2312.17649)) for a query
and a document: everybody sees the query, a token of the document sees 4 neighbours to each side,
and `[CLS]` sees everything. The query does not see `[CLS]`, through which it would hear of the
document. It needs `sparsify(model, plan, tokenizer=tokenizer)` and is fast: the query's columns,
the window and the row of `[CLS]` are computed without a mask.

`{BLIND}`:

```
{{blind}}
```

With `| segment(query=0)` the query sees the document, too: without it a short fine-tune on SQuAD
[lost 18 points](results/rerank.md).
"""


def drawn(spec: str, *texts: str) -> str:
    """The mask of a pattern as text."""
    console = Console(width=80, record=True, file=StringIO(), color_system=None)
    console.print(picture(spec, *texts))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def main() -> None:
    """Writes a section a pattern."""
    parts = [HEAD]
    for name, kind in catalogue.items():
        summary = (kind.__doc__ or "").strip().splitlines()[0]
        texts = PAIR if name == "segment" else (TEXT,)
        needs = ", ".join(sorted(parse(kind.example).needs)) or "tokens only"
        parts.append(f"## {name}\n\n{summary}\n")
        parts.append(
            f"- call: `{kind.signature()}`\n- pairs: `{kind.formula}`\n"
            f"- degree: {kind.degrees}\n- needs: {needs}"
        )
        spelled = " and ".join(f'"{text}"' for text in texts)
        parts.append(f"- source: {kind.source}\n\n`{kind.example}` on {spelled}:\n")
        parts.append(f"```\n{drawn(kind.example, *texts)}\n```\n")
    parts.append(PAIRS.format(blind=drawn(BLIND, *PAIR)))
    path = Path(__file__).parents[1] / "docs" / "patterns.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
