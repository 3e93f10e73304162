"""What the commands' helps share."""

from __future__ import annotations

from typing import Any

__all__ = ["CONTEXT", "examples"]

#: For `context_settings`: `-h` does what `--help` does.
CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def examples(*lines: str) -> str:
    """The end of a command's help: lines to paste, for `epilog`."""
    return "Examples:\n\n" + "\n\n".join(f"  sparseattn {line}" for line in lines)
