"""Reading a study file: YAML without its traps, and errors that say where in the file."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from sparseattn.errors import StudyError, reason, unknown

__all__ = ["changed", "place", "read_yaml", "validated"]

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML without dates, without `no` for false (it may be a label), and without `1:3` for 63."""


#: What an unquoted word may be besides text, and the letters that it may start with.
_WORDS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "float": (r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9_]+)(?:[eE][-+][0-9]+)?", "-+.0123456789"),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
}


def _without_traps() -> None:
    tag = "tag:yaml.org,2002:"
    dropped = {f"{tag}{word}" for word in ("timestamp", *_WORDS)}
    _Loader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] not in dropped]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for word, (spelling, first) in _WORDS.items():
        _Loader.add_implicit_resolver(f"{tag}{word}", re.compile(f"^(?:{spelling})$"), list(first))


_without_traps()


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file that holds one mapping.

    Raises:
        StudyError: It cannot be read, is not such a mapping, or gives a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"cannot read the study {path}: {_plain(error)}") from None
    try:
        with _loading(text) as loader:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise StudyError(
                    f"{path}: a study is a mapping of keys such as model, task and arms"
                )
            for problem in _doubled(node, (), set()):
                raise StudyError(f"{path}: {problem}")
            return dict(loader.construct_document(node))
    except yaml.YAMLError as error:
        raise StudyError(f"{path}: not YAML: {_plain(error)}") from None


@contextmanager
def _loading(text: str) -> Iterator[_Loader]:
    loader = _Loader(text)  # raises for a character that YAML does not take
    try:
        yield loader
    finally:
        loader.dispose()


def changed(values: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Replaces values of a study file.

    Args:
        values: What the file says.
        changes: Each a place and a value, written as in the file: `training.epochs=1`.

    Raises:
        StudyError: One is not of that form, or its place lies inside something without keys.

    >>> changed({"training": {"epochs": 2}}, ["training.epochs=1", "seeds=[3, 4]"])
    {'training': {'epochs': 1}, 'seeds': [3, 4]}
    """
    made = copy.deepcopy(dict(values))
    for change in changes:
        where, equals, text = change.partition("=")
        *above, last = where.strip().split(".")
        if not equals or not last:
            raise StudyError(f"{change!r}: expected KEY=VALUE, such as training.epochs=1")
        inner: Any = made
        for name in above:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise StudyError(f"{change!r}: {name} has no keys; give all of it: {name}=...")
        try:
            with _loading(text) as loader:
                inner[last] = loader.get_single_data()
        except yaml.YAMLError as error:
            raise StudyError(f"{change!r}: not YAML: {_plain(error)}") from None
    return made


def _doubled(node: yaml.Node, where: tuple[Any, ...], seen: set[int]) -> Iterator[str]:
    """Keys that are given twice, of which YAML would keep the last, and keys that are no text."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _doubled(item, (*where, index), seen)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if not key.tag.endswith((":str", ":int", ":merge")):
                yield f"line {line}: the key {name} is not read as text; write it in quotes"
            if name in keys:
                yield f"{place((*where, name))} is given twice (line {line})"
            keys.add(name)
            yield from _doubled(value, (*where, name), seen)


def _plain(error: Exception) -> str:
    if isinstance(error, OSError):
        return reason(error)
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{what} (line {mark.line + 1}, column {mark.column + 1})" if mark else what


def place(where: tuple[Any, ...]) -> str:
    """Spells a place in a file.

    >>> place(("arms", 2, "pattern"))
    'arms[2].pattern'
    """
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def validated(model: type[Model], data: Any, where: tuple[Any, ...] = ()) -> Model:
    """Makes a record of plain values.

    Args:
        model: The record's class.
        data: Its values.
        where: Where they stand in the file, for messages.

    Raises:
        StudyError: One does not fit; the message names its place, the value and what would.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A misspelt key often leaves a required one missing: the cause before its effect.
        found.sort(key=lambda one: one["type"] != "extra_forbidden")
        raise StudyError(_line(model, data, where, dict(found[0]))) from None


#: What pydantic calls valid, in the words of a study file.
_WORDS_FOR = {
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "dict_type": "expected a mapping",
    "float_type": "expected a number",
    "int_type": "expected a whole number",
    "model_type": "expected a mapping",
    "string_type": "expected text",
    "too_short": "expected at least one value",
    "tuple_type": "expected a list",
}


def _line(model: Any, data: Any, where: tuple[Any, ...], error: dict[str, Any]) -> str:
    within = _within(data, error["loc"])
    spelt = place((*where, *within))
    if error["type"] == "extra_forbidden":
        fields = _fields(model, within[:-1])
        return f"{spelt}: {unknown('key', within[-1], fields)}"
    if error["type"] == "missing":
        above = place((*where, *within[:-1]))
        return f"{above + ': ' if above else ''}the key {within[-1]!r} is missing"
    message = _WORDS_FOR.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "expected")
    value = error["input"]
    if message.startswith("expected") and repr(value) not in message:
        message += f", got {value!r}"
    if isinstance(value, bool | int | float) and error["type"] == "string_type":
        message += "; write it in quotes if text is meant"
    return f"{spelt}: {message}" if spelt else message


def _within(data: Any, loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """The parts of a pydantic location that are keys of the data, not names of union members."""
    found: list[Any] = []
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(data, dict) and (part in data or last):
            found.append(part)
            data = data.get(part)
        elif isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data):
            found.append(part)
            data = data[part]
    return tuple(found)


def _fields(model: Any, within: tuple[Any, ...]) -> list[str]:
    """The keys that a record takes at a place inside it."""
    kinds = [model]
    for part in within:
        inner: list[Any] = []
        for kind in kinds:
            if isinstance(part, str) and part in kind.model_fields:
                inner += _records(kind.model_fields[part].annotation)
            elif isinstance(part, int):
                inner.append(kind)
        kinds = inner
    return sorted({name for kind in kinds for name in kind.model_fields})


def _records(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for inner in get_args(annotation) for kind in _records(inner)]
