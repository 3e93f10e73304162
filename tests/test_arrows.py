"""Who may import whom: the arrows of CONTRIBUTING.md, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparseattn

ROOT = Path(sparseattn.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offenders(room: str, forbidden: tuple[str, ...], but: tuple[str, ...] = ()) -> list[str]:
    """Files of a room that import something forbidden."""
    out = []
    for path in SOURCES:
        inside = path.relative_to(ROOT).as_posix()
        if not inside.startswith(room) or inside in but:
            continue
        for name in imports(path):
            if any(name == one or name.startswith(f"{one}.") for one in forbidden):
                out.append(f"{inside} imports {name}")
    return out


def test_patterns_know_neither_models_nor_backends():
    forbidden = ("transformers", "sparseattn.models", "sparseattn.backends", "sparseattn.plan")
    assert offenders("patterns/", forbidden) == []


def test_backends_know_neither_patterns_nor_models():
    forbidden = ("transformers", "sparseattn.models", "sparseattn.patterns", "sparseattn.plan")
    assert offenders("backends/", forbidden) == []


def test_the_core_does_not_know_transformers():
    for room in ("tokens.py", "rules.py", "plan.py", "counting.py", "errors.py", "backends/"):
        assert offenders(room, ("transformers",)) == []


@pytest.mark.parametrize("room", ["report/", "stats/"])
def test_reports_never_import_torch(room):
    assert offenders(room, ("torch", "transformers")) == []


def test_only_models_reaches_into_transformers():
    """Others use its public top level; its modules are for `models/` alone."""
    inside = [
        line
        for line in offenders("", ("transformers",))
        if not line.startswith("models/") and "imports transformers." in line
    ]
    private = ("modeling_utils", "masking_utils", "integrations", "models.")
    reached = [line for line in inside if any(p in line.split(" imports ")[1] for p in private)]
    assert reached == []


def test_no_pickles_and_no_unsafe_yaml():
    assert offenders("", ("pickle", "dill", "cloudpickle", "joblib", "shelve")) == []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert "yaml.load(" not in text, path
        assert "trust_remote_code=True" not in text, path


@pytest.mark.parametrize(
    "code",
    [
        "import sparseattn",
        "import sparseattn; dir(sparseattn); sparseattn.errors",
        "import sparseattn.stats",
        "import sparseattn.report",
    ],
)
def test_importing_is_light(code):
    heavy = "[m for m in ('torch', 'transformers', 'spacy', 'datasets') if m in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print({heavy})"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_public_names():
    assert sorted(sparseattn.__all__) == dir(sparseattn)
    for name in sparseattn.__all__:
        assert getattr(sparseattn, name) is not None
    assert sparseattn.neighbor(radius=2) == sparseattn.parse("neighbor(2)")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sparseattn.nothing
