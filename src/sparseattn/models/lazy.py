"""Registers the attention with transformers when transformers is imported, and not before.

`from_pretrained(..., attn_implementation="sparseattn")` must find the name in transformers'
registries, and `import sparseattn` must not import transformers. So a finder waits for the module
that owns the registries and runs `register()` once it has been executed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

__all__ = ["register_when_imported"]

_OWNER = "transformers.modeling_utils"


def register_when_imported() -> None:
    """Registers at once if transformers' models are loaded, otherwise as soon as they are."""
    if _OWNER in sys.modules:
        _register()
    elif not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())


def _register() -> None:
    from sparseattn.models.interface import register

    register()


class _Watcher(MetaPathFinder):
    """Finds nothing itself; wraps the loader of the one module it waits for."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname != _OWNER:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(Loader):
    """Executes a module with its own loader, then registers."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _register()
