"""Things that are found by name: patterns, backends, methods, kinds of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from threading import RLock
from typing import Any, ClassVar, TypeVar

from sparseattn.errors import SparseAttnError, unknown

T = TypeVar("T")


class Registered:
    """A base whose subclasses are found by their name.

    Attributes:
        registry: Where they are.
        name: Empty for one that is not to be found, such as an abstract one.
    """

    registry: ClassVar[Registry[Any]]
    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name := cls.__dict__.get("name"):
            cls.registry.add(name, cls, cls._entry())

    @classmethod
    def _entry(cls) -> Any:
        """What the name stands for."""
        return cls


class Registry(Mapping[str, T]):
    """What is registered under a name; whatever can be found is imported on the first look-up.

    Args:
        kind: What one of them is called in messages.
        package: A package whose modules each hold one. Those that begin with an underscore are not
            imported.
        error: Raised for a name that is not there.

    The modules that other distributions name in the entry-point group `package` are imported, too.
    """

    def __init__(self, kind: str, package: str, error: Callable[[str], SparseAttnError]) -> None:
        self.kind, self.package, self.error = kind, package, error
        self._known: dict[str, T] = {}
        self._owners: dict[str, tuple[str, str]] = {}
        self._looked = self._looking = False
        self._lock = RLock()

    def add(self, name: str, owner: type, value: T) -> None:
        """Registers a value.

        Args:
            name: Its name.
            owner: The class that it is, or is made from.
            value: What the name stands for.

        Raises:
            SparseAttnError: A class of another module or name has it already. (A class may be
                defined twice: by `slots=True`, or where a module is imported again.)
        """
        place = owner.__module__, owner.__qualname__
        if self._owners.setdefault(name, place) != place:
            there = self._owners[name][0]
            raise self.error(f"two {self.kind}s are called {name!r}: {there} and {place[0]}")
        self._known[name] = value

    def discard(self, name: str) -> None:
        """Forgets a name: of what was lent for a while."""
        self._known.pop(name, None)
        self._owners.pop(name, None)

    def find(self, name: str, others: tuple[str, ...] = ()) -> T:
        """What is called `name`.

        Args:
            name: The name.
            others: More choices, for the message.

        Raises:
            SparseAttnError: Nothing is; the message lists the names.
        """
        if name not in self:
            raise self.error(unknown(self.kind, name, [*self, *others]))
        return self[name]

    def _look(self) -> None:
        if self._looked:
            return
        with self._lock:  # other threads wait until everything is known
            # What is imported here may ask for what is known so far.
            if self._looked or self._looking:
                return
            self._looking = True
            try:
                for module in iter_modules(import_module(self.package).__path__):
                    if not module.name.startswith("_"):
                        import_module(f"{self.package}.{module.name}")
                for point in entry_points(group=self.package):
                    point.load()
                self._looked = True
            finally:
                self._looking = False

    def __getitem__(self, name: str) -> T:
        self._look()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        self._look()
        return iter(sorted(self._known))

    def __len__(self) -> int:
        self._look()
        return len(self._known)
