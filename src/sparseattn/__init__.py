"""Evaluate and optimise sparse attention in pretrained Transformer encoders.

>>> import sparseattn as sa
>>> print(sa.parse("neighbor(8)") | sa.parse("global(cls)"))
neighbor(radius=8) | global(cls)

Nothing heavy is imported before it is used: `import sparseattn` loads neither torch nor
transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparseattn import errors
from sparseattn.models.lazy import register_when_imported

if TYPE_CHECKING:
    from sparseattn import plots as plots
    from sparseattn.counting import SparsityReport as SparsityReport
    from sparseattn.degrees.calibrate import calibrate as calibrate
    from sparseattn.degrees.learn import learn_degrees as learn_degrees
    from sparseattn.degrees.probe import probe as probe
    from sparseattn.exporting.files import export as export
    from sparseattn.models.describe import describe as describe
    from sparseattn.models.int8 import quantize as quantize
    from sparseattn.models.lengthen.lengthening import lengthen as lengthen
    from sparseattn.models.load import load as load
    from sparseattn.models.names import resolve as resolve
    from sparseattn.models.packing import packed as packed
    from sparseattn.models.sparsify import plan_of as plan_of
    from sparseattn.models.sparsify import restore as restore
    from sparseattn.models.sparsify import sparsified as sparsified
    from sparseattn.models.sparsify import sparsify as sparsify
    from sparseattn.pattern import Pattern as Pattern
    from sparseattn.pattern import parse as parse
    from sparseattn.plan import Plan as Plan
    from sparseattn.show import picture as picture
    from sparseattn.syntax import Annotator as Annotator
    from sparseattn.syntax import Collator as Collator
    from sparseattn.tokens import TokenBatch as TokenBatch
    from sparseattn.verifying.verify import verify as verify

__version__ = "0.1.0"

_PUBLIC = {
    "Annotator": "syntax",
    "Collator": "syntax",
    "Pattern": "pattern",
    "Plan": "plan",
    "SparsityReport": "counting",
    "TokenBatch": "tokens",
    "calibrate": "degrees.calibrate",
    "describe": "models.describe",
    "export": "exporting.files",
    "learn_degrees": "degrees.learn",
    "lengthen": "models.lengthen.lengthening",
    "load": "models.load",
    "packed": "models.packing",
    "parse": "pattern",
    "picture": "show",
    "plan_of": "models.sparsify",
    "probe": "degrees.probe",
    "quantize": "models.int8",
    "resolve": "models.names",
    "restore": "models.sparsify",
    "sparsified": "models.sparsify",
    "sparsify": "models.sparsify",
    "verify": "verifying.verify",
}

__all__ = ["__version__", "errors", "plots", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Imports a public name, or a pattern by the name it has in spec strings."""
    if name == "plots":
        return import_module("sparseattn.plots")
    if name in _PUBLIC:
        return getattr(import_module(f"sparseattn.{_PUBLIC[name]}"), name)
    if not name.startswith("_"):
        from sparseattn.pattern import catalogue

        if name in catalogue:
            return catalogue[name]
    raise AttributeError(f"module 'sparseattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


register_when_imported()
