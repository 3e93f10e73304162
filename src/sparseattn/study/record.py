"""A finished trial as the files of its folder, and back, with checksums that notice damage."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sparseattn.errors import StudyError
from sparseattn.selection import select_indices
from sparseattn.study.arms import DENSE

FORMAT = "sparseattn-trial-1"

#: The file that says how a trial ended, and what the other files must be.
RESULT = "result.json"

DONE, FAILED = "done", "failed"

#: What a file of a trial may be called.
NAME = re.compile(r"[a-z]+\.(json|jsonl|parquet)")

#: The largest whole number that a float holds exactly.
_LARGEST = 2**53

#: Parts of a `TrialResult` that have a file of their own.
_FILES = ("predictions", "environment", "plan")


def _number(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError("should be a number")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError("is too large")
    return value


#: A number, or null for one that was not finite.
Number = Annotated[Any, AfterValidator(_number)]


class _Schema(BaseModel):
    model_config = ConfigDict(strict=True)


class _Spec(_Schema):
    """What is read of a trial's `spec.json`."""

    arm: str
    pattern: str
    layers: str
    model: str
    backend: str
    seed: Annotated[int, Field(ge=0, le=_LARGEST)]


Record = TypeVar("Record", bound=_Schema)


class _File(_Schema):
    """What another file of the trial must be."""

    bytes: int
    sha256: str


class _Result(_Schema):
    """What is read of a trial's `result.json`."""

    format: Literal["sparseattn-trial-1"]
    digest: str
    checksum: str
    files: dict[Annotated[str, Field(pattern=f"^{NAME.pattern}$")], _File]
    status: Literal["done", "failed"]
    reason: str
    headline: str | None = None
    sparsity: Number = None
    layer_sparsity: Number = None
    block_density: Number = None
    mean_degree: Number = None
    metrics: dict[str, Number] = Field(default_factory=dict)
    counts: dict[str, Annotated[float, Field(ge=0, le=_LARGEST)]] = Field(default_factory=dict)
    seconds: dict[str, Number] = Field(default_factory=dict)
    phases: dict[str, Number] = Field(default_factory=dict)
    history: list[dict[str, Number]] = Field(default_factory=list)


class _Environment(_Schema):
    """A trial's `environment.json`: an object."""


def finished(spec: Mapping[str, Any], digest: str, result: Any, log: bytes) -> dict[str, bytes]:
    """The files of a trial that came to its end with a `TrialResult`."""
    from pyarrow import parquet

    table = io.BytesIO()
    parquet.write_table(result.predictions, table, compression="zstd")
    files = {
        "spec.json": encode(spec),
        "environment.json": encode(result.environment),
        "log.jsonl": log,
        "predictions.parquet": table.getvalue(),
    }
    if result.plan is not None:
        files["plan.json"] = encode(result.plan)
    names = [each.name for each in dataclasses.fields(result) if each.name not in _FILES]
    values = {name: getattr(result, name) for name in names}
    values["layer_sparsity"] = _layer_sparsity(result.sparsity_by_layer, spec)
    return files | {RESULT: _result(digest, {"status": DONE, "reason": "", **values}, files)}


def failed(
    spec: Mapping[str, Any], digest: str, reason: str, environment: Mapping[str, Any], log: bytes
) -> dict[str, bytes]:
    """The files of a trial that did not, for a reason in one line."""
    files = {
        "spec.json": encode(spec),
        "environment.json": encode(environment),
        "log.jsonl": log,
    }
    return files | {RESULT: _result(digest, {"status": FAILED, "reason": reason}, files)}


def _layer_sparsity(by_layer: Sequence[float], spec: Mapping[str, Any]) -> float | None:
    """Sparsity over the layers that carry the pattern; every layer has as many pairs."""
    if not by_layer or spec["pattern"] == DENSE:
        return None
    chosen = [by_layer[index] for index in select_indices(spec["layers"], len(by_layer), "layer")]
    return sum(chosen) / len(chosen) if chosen else None


def _result(digest: str, values: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    sums = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
    }
    result = {"format": FORMAT, "digest": digest, **plain(values), "files": sums}
    return encode({**result, "checksum": _checksum(result)})


def _checksum(values: Mapping[str, Any]) -> str:
    compact = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(compact.encode()).hexdigest()


def check(digest: str, read: Callable[[str], bytes], where: str | Path) -> dict[str, bytes]:
    """Reads the files of a trial, `result.json` first, and checks all of them against it.

    Args:
        digest: The trial's digest.
        read: Gives a file by its name; raises an `OSError` or a `KeyError` if it cannot.
        where: What messages call the place.

    Returns:
        The files by name; others that lie there are left out.

    Raises:
        StudyError: A file is missing, cut short or changed; the message names it.
    """

    def checked(name: str) -> bytes:
        try:
            return read(name)
        except (KeyError, OSError) as error:
            why = getattr(error, "strerror", "it is missing")
            raise StudyError(f"{where}/{name} is damaged: {why}") from None

    files = {RESULT: checked(RESULT)}
    values, result = _parsed(f"{where}/{RESULT}", files[RESULT], _Result)
    del values["checksum"]
    if result.checksum != _checksum(values) or result.digest != digest:
        raise StudyError(f"{where}/{RESULT} is damaged: its checksum does not match")
    for name, expected in result.files.items():
        data = files[name] = checked(name)
        if len(data) != expected.bytes:
            problem = f"{len(data)} bytes instead of {expected.bytes}"
            raise StudyError(f"{where}/{name} is damaged: {problem}")
        if hashlib.sha256(data).hexdigest() != expected.sha256:
            raise StudyError(f"{where}/{name} is damaged: its checksum does not match")
    _parsed(f"{where}/spec.json", files.get("spec.json", b""), _Spec)
    _parsed(f"{where}/environment.json", files.get("environment.json", b""), _Environment)
    return files


def _parsed(where: str, data: bytes, schema: type[Record]) -> tuple[dict[str, Any], Record]:
    """What a file says; a `StudyError` if it is not what is read of it."""
    try:
        values = json.loads(data.decode(), parse_constant=int, parse_float=_finite)
        return values, schema.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise StudyError(f"{where} is damaged: {place or 'it'}: {problem['msg']}") from None
    except (ValueError, RecursionError):
        raise StudyError(f"{where} is damaged: cut short or not JSON") from None


def _finite(text: str) -> float:
    """A number; a `ValueError` for one like 1e999."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large")
    return number


def encode(values: Any) -> bytes:
    """Plain values as JSON text."""
    return (json.dumps(plain(values), indent=1, allow_nan=False) + "\n").encode()


def plain(value: Any) -> Any:
    """Plain values that JSON can hold: numbers that are not finite become null.

    >>> plain({"loss": float("nan"), "layers": (0, 1)})
    {'loss': None, 'layers': [0, 1]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    number = float(value)  # numpy's and torch's scalars too
    return number if math.isfinite(number) else None
