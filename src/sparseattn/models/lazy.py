"""Registers the attention with transformers when transformers is imported, and not before.

`from_pretrained(..., attn_implementation="sparseattn")` must find the name in transformers'
registries, and `import sparseattn` must not import transformers. So a finder waits for the module
that owns the registries and runs `register()` once it has been executed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_OWNER = "transformers.modeling_utils"


def register_when_imported() -> None:
    """Registers at once if transformers' models are loaded, otherwise as soon as they are."""
    if _OWNER in sys.modules:
        _register()
    elif not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())


def _register() -> None:
    from sparseattn.models.interface import register
    from sparseattn.models.replaced import watch

    register()
    watch()


class _Watcher(MetaPathFinder):
    """Finds nothing itself; has the one module that it waits for register when it is executed."""

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        if fullname != _OWNER:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute: Callable[[ModuleType], None] = spec.loader.exec_module

            def then_register(module: ModuleType) -> None:
                execute(module)
                _register()

            spec.loader.exec_module = then_register  # type: ignore[method-assign]
        return spec
