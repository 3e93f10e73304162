"""Spec strings: patterns and methods as calls joined by operators. Loads no torch.

```
expression = term { "|" term }            binds least
term       = factor { "&" factor }
factor     = atom { "-" atom }            binds most, as in Python
atom       = name "(" [ argument { "," argument } ] ")" | "(" expression ")"
argument   = [ name "=" ] value
value      = number | true | false | word | "text" | [ value, ... ] | expression
```
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable
from typing import Any

from sparseattn.errors import PatternError, SparseAttnError, SpecError, unknown
from sparseattn.registry import Registry

_OPERATORS = {"|": operator.or_, "&": operator.and_, "-": operator.sub}

_TOKEN = re.compile(
    r"""(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)
    |(?P<text>"[^"]*"|'[^']*')|(?P<symbol>[()\[\],=|&-])|(?P<space>\s+)""",
    re.VERBOSE,
)


def parse_with(registry: Registry[Any], text: str) -> Any:
    """Reads a spec string whose calls are those of a registry.

    Args:
        registry: What may be called, by name: dataclasses. Operators join what has them.
        text: The spec string.

    Raises:
        SpecError: It does not parse, or names something unknown; the message points at the column.
        PatternError: An argument is unknown, missing or given twice.
    """
    try:
        return _Parser(text, registry).whole()
    except RecursionError:
        raise SpecError("brackets are nested too deeply", text[:40], 0) from None


def build(kind: type[Any], positional: list[Any], named: dict[str, Any]) -> Any:
    """Makes an instance of a dataclass from the arguments of a spec string.

    Raises:
        PatternError: An argument is unknown, missing or given twice.
    """
    if hasattr(kind, "from_arguments"):
        return kind.from_arguments(positional, named)
    fields = [field.name for field in dataclasses.fields(kind)]
    if len(positional) > len(fields):
        raise PatternError(
            f"{kind.name}() takes at most {len(fields)} argument{'' if len(fields) == 1 else 's'} "
            f"({', '.join(fields) or 'none'}); got {len(positional)}"
        )
    values = dict(zip(fields, positional, strict=False))
    for name, value in named.items():
        if name not in fields:
            raise PatternError(f"{kind.name}(): {unknown('argument', name, fields)}")
        if name in values:
            raise PatternError(f"{kind.name}(): argument {name!r} is given twice")
        values[name] = value
    for field in dataclasses.fields(kind):
        bare = field.default is field.default_factory is dataclasses.MISSING
        if bare and field.name not in values:
            raise PatternError(f"{kind.name}() needs the argument {field.name!r}")
    return kind(**values)


def spell(value: object) -> str:
    """Writes an argument the way a spec string reads it."""
    if isinstance(value, tuple):
        return f"[{', '.join(spell(item) for item in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not value.isidentifier():  # such as the layers ':2'
        return repr(value)
    return str(value)


def spell_arguments(called: Any) -> list[str]:
    """Writes those arguments of a dataclass that are not its defaults."""
    values = ((field, getattr(called, field.name)) for field in dataclasses.fields(called))
    return [f"{field.name}={spell(value)}" for field, value in values if value != field.default]


class _Parser:
    """Recursive descent over the tokens of one spec string."""

    def __init__(self, text: str, registry: Registry[Any]) -> None:
        self.text, self.registry = text, registry
        self.tokens: list[tuple[str, str, int]] = []
        column = 0
        while column < len(text):
            match = _TOKEN.match(text, column)
            if match is None:
                raise SpecError(f"unexpected {text[column]!r}", text, column)
            if match.lastgroup != "space":
                self.tokens.append((str(match.lastgroup), match.group(), column))
            column = match.end()
        self.tokens.append(("end", "", len(text)))
        self.at = 0

    @property
    def token(self) -> tuple[str, str, int]:
        return self.tokens[self.at]

    def take(self, symbol: str) -> bool:
        kind, value, _ = self.token
        if kind == "symbol" and value == symbol:
            self.at += 1
            return True
        return False

    def expect(self, symbol: str) -> None:
        if not self.take(symbol):
            raise self.error(f"expected {symbol!r}")

    def error(self, message: str) -> SpecError:
        kind, value, column = self.token
        found = "the end" if kind == "end" else repr(value)
        return SpecError(f"{message}, found {found}", self.text, column)

    def whole(self) -> Any:
        pattern = self.expression()
        if self.token[0] != "end":
            raise self.error("expected an operator (|, & or -)")
        return pattern

    def expression(self) -> Any:
        return self.chain("|", lambda: self.chain("&", lambda: self.chain("-", self.atom)))

    def chain(self, symbol: str, part: Callable[[], Any]) -> Any:
        pattern = part()
        while self.take(symbol):
            right = part()
            try:
                pattern = _OPERATORS[symbol](pattern, right)
            except TypeError:
                raise self.error(f"{symbol!r} does not join {self.registry.kind}s") from None
        return pattern

    def atom(self) -> Any:
        if self.take("("):
            inside = self.expression()
            self.expect(")")
            return inside
        kind, name, column = self.token
        if kind != "name":
            raise self.error(f"expected a {self.registry.kind}")
        self.at += 1
        if not self.take("("):
            raise self.error(f"expected '(' after {name!r}")
        try:
            kind = self.registry.find(name)
        except SparseAttnError as error:
            raise SpecError(str(error), self.text, column) from None
        return build(kind, *self.arguments())

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        positional: list[Any] = []
        named: dict[str, Any] = {}
        while not self.take(")"):
            if positional or named:
                self.expect(",")
            kind, name, column = self.token
            if kind == "name" and self.tokens[self.at + 1][1] == "=":
                if name in named:
                    raise SpecError(f"argument {name!r} is given twice", self.text, column)
                self.at += 2
                named[name] = self.value()
            elif named:
                raise self.error("expected a named argument")
            else:
                positional.append(self.value())
        return positional, named

    def value(self) -> Any:
        kind, value, _ = self.token
        if kind == "number":
            self.at += 1
            # Python refuses to read whole numbers of thousands of digits; none is a valid argument.
            whole = value.lstrip("-").isdigit() and len(value) < 1000
            return int(value) if whole else float(value)
        if kind == "text":
            self.at += 1
            return value[1:-1]
        if kind == "name" and self.tokens[self.at + 1][1] != "(":
            self.at += 1
            return {"true": True, "false": False}.get(value.lower(), value)
        if self.take("["):
            return self.items()
        return self.expression()

    def items(self) -> tuple[Any, ...]:
        items: list[Any] = []
        while not self.take("]"):
            if items:
                self.expect(",")
            items.append(self.value())
        return tuple(items)
