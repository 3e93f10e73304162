"""What is found by name is found whole, whoever asks first."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from sparseattn.errors import PatternError
from sparseattn.registry import Registry


def test_threads_that_ask_at_once_both_find_what_is_there(tmp_path, monkeypatch) -> None:
    package = tmp_path / "slowly_imported"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("import time\ntime.sleep(0.3)\n")
    (package / "two.py").write_text(
        "from tests.test_registry import KNOWN\n"
        "assert 'last' not in KNOWN[0]\n"  # a module may ask while it is imported
        "KNOWN[0].add('last', type('Last', (), {}), 1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys.modules[__name__], "KNOWN", found := [])
    registry: Registry[int] = Registry("thing", "slowly_imported", PatternError)
    found.append(registry)
    together = Barrier(2)

    def ask(_: int) -> int:
        together.wait()
        return registry.find("last")

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(ask, range(2))) == [1, 1]


#: The registry of the test, for the module that it imports.
KNOWN: list[Registry[int]] = []
