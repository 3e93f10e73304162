"""Studies: a grid of trials, run once each, stored, compared.

>>> from sparseattn import study
>>> study.run("studies/smoke.yaml", "runs/smoke")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparseattn.study.archive import pack as pack
    from sparseattn.study.archive import unpack as unpack
    from sparseattn.study.planning import plan as plan
    from sparseattn.study.session import Options as Options
    from sparseattn.study.session import RunOutcome as RunOutcome
    from sparseattn.study.session import resume as resume
    from sparseattn.study.session import run as run
    from sparseattn.study.spec import StudySpec as StudySpec
    from sparseattn.study.spec import load_spec as load_spec

_PUBLIC = {
    "Options": "session",
    "RunOutcome": "session",
    "StudySpec": "spec",
    "load_spec": "spec",
    "pack": "archive",
    "plan": "planning",
    "resume": "session",
    "run": "session",
    "unpack": "archive",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Imports a public name on first use."""
    if name in _PUBLIC:
        return getattr(import_module(f"sparseattn.study.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'sparseattn.study' has no attribute {name!r}")
