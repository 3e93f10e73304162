"""Studies: a grid of trials, run once each, stored, compared.

>>> from sparseattn import study
>>> study.run("studies/smoke.yaml", "runs/smoke")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparseattn.study.file.spec import StudySpec as StudySpec
    from sparseattn.study.file.spec import load_spec as load_spec
    from sparseattn.study.folder.loading import load_study as load_study
    from sparseattn.study.folder.packing import pack as pack
    from sparseattn.study.folder.packing import unpack as unpack
    from sparseattn.study.runs.planning import plan as plan
    from sparseattn.study.runs.session import Options as Options
    from sparseattn.study.runs.session import Outcome as Outcome
    from sparseattn.study.runs.session import resume as resume
    from sparseattn.study.runs.session import run as run

_PUBLIC = {
    "Options": "runs.session",
    "Outcome": "runs.session",
    "StudySpec": "file.spec",
    "load_spec": "file.spec",
    "load_study": "folder.loading",
    "pack": "folder.packing",
    "plan": "runs.planning",
    "resume": "runs.session",
    "run": "runs.session",
    "unpack": "folder.packing",
}

__all__ = [
    "Options",
    "Outcome",
    "StudySpec",
    "load_spec",
    "load_study",
    "pack",
    "plan",
    "resume",
    "run",
    "unpack",
]


def __getattr__(name: str) -> Any:
    """Imports a public name on first use."""
    if name in _PUBLIC:
        return getattr(import_module(f"sparseattn.study.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'sparseattn.study' has no attribute {name!r}")
