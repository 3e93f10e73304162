"""The package as a whole: importing it is light, and its public names are these."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import sparseattn

ROOT = Path(sparseattn.__file__).parent
#: What users may rely on; a name that goes or comes is a line of CHANGELOG.md.
NAMES = [
    "Annotator",
    "Collator",
    "Pattern",
    "Plan",
    "SparsityReport",
    "TokenBatch",
    "__version__",
    "calibrate",
    "describe",
    "errors",
    "export",
    "learn_degrees",
    "lengthen",
    "load",
    "packed",
    "parse",
    "picture",
    "plan_of",
    "plots",
    "probe",
    "quantize",
    "resolve",
    "restore",
    "sparsified",
    "sparsify",
    "verify",
]


def test_only_models_reaches_into_the_insides_of_transformers():
    inside = ("modeling_utils", "masking_utils", "transformers.models")
    others = [p for p in ROOT.rglob("*.py") if "models" not in p.relative_to(ROOT).parts]
    assert [p.name for p in others if any(word in p.read_text("utf-8") for word in inside)] == []


def test_no_code_of_others_is_trusted():
    assert [p for p in ROOT.rglob("*.py") if "trust_remote_code=True" in p.read_text("utf-8")] == []


def test_importing_is_light():
    """The public names, the rooms that never load torch, studies and methods until they run."""
    code = """
        import sys
        import sparseattn
        dir(sparseattn), sparseattn.errors
        import sparseattn.stats, sparseattn.report
        import sparseattn.study.session, sparseattn.tasks.ready
        from sparseattn.degrees.method import is_method, parse_method
        is_method("bigbird(1, 2)")
        parse_method("shuffled(learned(0.8, over=[random]))")
        parse_method("calibrated(0.8, over='neighbor(degrees=[0, 1])')")
        print([m for m in ("torch", "transformers", "spacy", "datasets") if m in sys.modules])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_public_names():
    assert sorted(sparseattn.__all__) == dir(sparseattn) == NAMES
    for name in sparseattn.__all__:
        assert getattr(sparseattn, name) is not None
    assert sparseattn.neighbor(radius=2) == sparseattn.parse("neighbor(2)")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sparseattn.nothing
