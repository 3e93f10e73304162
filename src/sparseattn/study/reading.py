"""Reading a study file: YAML 1.2, and errors that say where in the file."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

from sparseattn.errors import StudyError, first_line, reason, unknown

Model = TypeVar("Model", bound=BaseModel)

#: Characters that a study file may have, and its values with all aliases filled in; about 1,500
#: arms. Reading them takes a second.
_MOST = 1 << 17

#: Characters of a wrong value that a message shows.
_SHOWN = 200


class _Constructor(SafeConstructor):
    """Leaves dates as the text that they are, and refuses text that no file can hold."""

    _keys = 0

    def flatten_mapping(self, node: Any) -> None:
        """Merges mappings (`<<`); a `ValueError` if that multiplies them without end."""
        super().flatten_mapping(node)
        self._keys += len(node.value)
        if self._keys > _MOST:
            raise ValueError(f"its merges (<<) come to more than {_MOST:,} keys")

    def construct_scalar(self, node: Any) -> Any:
        """A scalar; a `UnicodeEncodeError` for half a character."""
        value = super().construct_scalar(node)
        str(value).encode()
        return value


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def _load(text: str, where: str) -> Any:
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = _Constructor
    try:
        value = reader.load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or first_line(error)
        at = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise StudyError(f"{where}: not YAML: {what}{at}") from None
    except RecursionError:
        raise StudyError(f"{where}: not YAML: it is nested too deeply") from None
    except ValueError as error:  # a tag that does not fit, a number of thousands of digits
        raise StudyError(f"{where}: not YAML: {first_line(error)}") from None
    _check_extent(value, where)
    return value


def _check_extent(value: Any, where: str) -> None:
    """A few lines of aliases can stand for more than any message or check could walk through."""
    size, inner = 0, [value]
    while inner:
        each = inner.pop()
        parts = [*each, *each.values()] if isinstance(each, Mapping) else each
        if isinstance(parts, list | tuple | set):
            inner.extend(parts)
        if isinstance(parts, Sized):
            size += len(parts)
        if size > _MOST:
            raise StudyError(f"{where}: its aliases stand for more than {_MOST:,} characters")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file that holds one mapping, in which no key stands twice."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(_MOST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"cannot read the study {path}: {reason(error)}") from None
    if len(text) > _MOST:
        raise StudyError(
            f"{path}: a study file has at most {_MOST:,} characters; arms that differ in a number "
            "are one arm with a grid"
        )
    values = _load(text, str(path))
    if not isinstance(values, dict):
        raise StudyError(f"{path}: a study is a mapping of keys such as model, task and arms")
    return values


def changed(values: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Replaces values of a study file; changes are places and values as in it.

    >>> changed({"training": {"epochs": 2}}, ["training.epochs=1", "seeds=[3, 4]"])
    {'training': {'epochs': 1}, 'seeds': [3, 4]}
    """
    result = copy.deepcopy(dict(values))
    for change in changes:
        where, equals, text = change.partition("=")
        *parents, key = where.strip().split(".")
        if not equals or not key:
            raise StudyError(f"{change!r}: expected KEY=VALUE, such as training.epochs=1")
        inner: Any = result
        for name in parents:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise StudyError(f"{change!r}: {name} has no keys; give all of it: {name}=...")
        inner[key] = _load(text, repr(change))
    return result


def place(where: Sequence[Any]) -> str:
    """Spells a place in a file.

    >>> place(("arms", 2, "pattern"))
    'arms[2].pattern'
    """
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def validated(
    model: type[Model],
    data: Any,
    where: tuple[Any, ...] = (),
    context: Mapping[str, Any] | None = None,
) -> Model:
    """Makes a record of plain values; a `StudyError` names the place, the value and what fits.

    Args:
        model: The record's class.
        data: Its values.
        where: Where they stand in the file, for messages.
        context: What its validators need to know besides.
    """
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A misspelt key often leaves a required one missing: the cause before its effect.
        problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
        raise StudyError(_message(model, data, where, dict(problems[0]))) from None


#: What pydantic calls valid, in the words of a study file.
_EXPECTED = {
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "dict_type": "expected a mapping",
    "float_type": "expected a number",
    "int_type": "expected a whole number",
    "invalid_key": "expected keys that are text; write them in quotes",
    "model_type": "expected a mapping",
    "string_type": "expected text",
    "too_short": "expected at least one value",
    "tuple_type": "expected a list",
}


def _message(
    model: type[BaseModel], data: Any, where: tuple[Any, ...], error: dict[str, Any]
) -> str:
    within = _within(data, error["loc"])
    spelled = place((*where, *within))
    if error["type"] == "extra_forbidden":
        return f"{spelled}: {unknown('key', within[-1], _keys(model, within[:-1]))}"
    if error["type"] == "missing":
        return f"{spelled + ': ' if spelled else ''}the key {error['loc'][-1]!r} is missing"
    message = _EXPECTED.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "expected")
    value = error["input"]
    if error["type"] == "value_error":
        return f"{spelled}: {message}" if spelled else message
    shown = repr(value) if len(repr(value)) <= _SHOWN else f"{repr(value)[:_SHOWN]}..."
    if message.startswith("expected") and shown not in message:
        message += f", got {shown}"
    if isinstance(value, bool | int | float) and error["type"] == "string_type":
        message += "; write it in quotes if text is meant"
    return f"{spelled}: {message}" if spelled else message


def _within(data: Any, loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """The parts of a pydantic location that are keys of the data, not names of union members."""
    parts: list[Any] = []
    for part in loc:
        among = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if among or (isinstance(data, dict) and part in data):
            parts.append(part)
            data = data[part]
    return tuple(parts)


def _keys(model: type[BaseModel], within: tuple[Any, ...]) -> list[str]:
    """The keys that a record takes at a place inside it."""
    models = [model]
    for part in within:
        if isinstance(part, str):
            fields = [m.model_fields[part] for m in models if part in m.model_fields]
            models = [inner for field in fields for inner in _models(field.annotation)]
    return sorted({name for m in models for name in m.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
