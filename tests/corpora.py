"""Published data sets that the tests read and the project does not carry."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared(*parts: str) -> Path:
    """A file or folder of `$SPARSEATTN_DATA`, or of `shared/data` beside the checkout.

    Skips the calling test, with the reason, where it is not there.
    """
    named = os.environ.get("SPARSEATTN_DATA")
    root = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {Path(*parts)} in $SPARSEATTN_DATA or in ../shared/data: {path}")
    return path
