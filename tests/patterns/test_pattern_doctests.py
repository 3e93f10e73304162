"""The examples in the patterns' docstrings print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pkgutil import iter_modules

import pytest

import sparseattn.patterns

MODULES = [module.name for module in iter_modules(sparseattn.patterns.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = import_module(f"sparseattn.patterns.{name}")
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_some_examples_were_found():
    modules = (import_module(f"sparseattn.patterns.{name}") for name in MODULES)
    assert sum(doctest.testmod(m, optionflags=doctest.ELLIPSIS).attempted for m in modules) > 40
