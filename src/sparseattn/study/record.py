"""A finished trial as the files of its folder, and back, with checksums that notice damage."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparseattn.errors import StudyError
from sparseattn.selection import select_indices
from sparseattn.study.arms import DENSE

__all__ = [
    "DONE",
    "FAILED",
    "NAME",
    "RESULT",
    "check",
    "check_files",
    "encode",
    "failed",
    "finished",
    "names",
    "plain",
]

FORMAT = "sparseattn-trial-1"

#: The file that says how a trial ended, and what the other files must be.
RESULT = "result.json"

DONE, FAILED = "done", "failed"

#: What a file of a trial may be called.
NAME = re.compile(r"[a-z]+\.(json|jsonl|parquet)")

#: What `result.json` takes over from a `TrialResult`.
_FIELDS = (
    "metrics",
    "headline",
    "sparsity",
    "block_density",
    "mean_degree",
    "allowed_pairs",
    "valid_pairs",
    "sparsity_by_layer",
    "counts",
    "seconds",
    "history",
    "phases",
)


def finished(spec: Mapping[str, Any], digest: str, result: Any, log: bytes) -> dict[str, bytes]:
    """The files of a trial that came to its end.

    Args:
        spec: The trial's spec as plain values.
        digest: Its digest.
        result: A `TrialResult`.
        log: Its log, a JSON object a line.
    """
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
    values = {name: getattr(result, name) for name in _FIELDS}
    values["layer_sparsity"] = _on_its_layers(result.sparsity_by_layer, spec)
    return files | {RESULT: _result(digest, {"status": DONE, "reason": "", **values}, files)}


def failed(
    spec: Mapping[str, Any], digest: str, reason: str, environment: Mapping[str, Any], log: bytes
) -> dict[str, bytes]:
    """The files of a trial that did not.

    Args:
        spec: The trial's spec as plain values.
        digest: Its digest.
        reason: Why, in one line.
        environment: Where it ran.
        log: Its log, a JSON object a line.
    """
    files = {
        "spec.json": encode(spec),
        "environment.json": encode(environment),
        "log.jsonl": log,
    }
    return files | {RESULT: _result(digest, {"status": FAILED, "reason": reason}, files)}


def _result(digest: str, values: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    sums = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
    }
    whole = {"format": FORMAT, "digest": digest, **plain(dict(values)), "files": sums}
    return encode({**whole, "checksum": _checksum(whole)})


def check(folder: Path) -> dict[str, Any]:
    """Reads a trial's result and checks every file of its folder against it.

    Raises:
        StudyError: A file is missing, cut short or changed; the message names it.
    """
    return check_files(folder.name, lambda name: (folder / name).read_bytes(), folder)


def check_files(digest: str, read: Callable[[str], bytes], where: str | Path) -> dict[str, Any]:
    """The same for files that may lie elsewhere than in a folder.

    Args:
        digest: The trial's digest.
        read: Gives a file by its name; raises an `OSError` if it cannot.
        where: What messages call the place.

    Raises:
        StudyError: See `check`.
    """
    try:
        result = json.loads(read(RESULT))
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "cut short or not JSON"
        raise StudyError(f"{where}/{RESULT} is damaged: {what}") from None
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise StudyError(f"{where}/{RESULT} is damaged: it does not say {FORMAT!r}")
    said = result.pop("checksum", None)
    try:
        right = said == _checksum(result) and result["digest"] == digest
        listed = {name: (sums["bytes"], sums["sha256"]) for name, sums in result["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):  # a NaN, or not what we write
        right = False
    if not right:
        raise StudyError(f"{where}/{RESULT} is damaged: its checksum does not match")
    for name, (size, digits) in listed.items():
        if not NAME.fullmatch(name):
            raise StudyError(f"{where}/{RESULT} is damaged: it lists {name!r}")
        try:
            data = read(name)
        except OSError as error:
            raise StudyError(f"{where}/{name} is damaged: {error.strerror}") from None
        if len(data) != size:
            found = f"{len(data)} bytes instead of {size}"
            raise StudyError(f"{where}/{name} is damaged: {found}")
        if hashlib.sha256(data).hexdigest() != digits:
            raise StudyError(f"{where}/{name} is damaged: its checksum does not match")
    return result


def names(result: Mapping[str, Any]) -> list[str]:
    """The files of a trial, as its checked `result.json` lists them, that one included."""
    return sorted([RESULT, *result["files"]])


def _on_its_layers(by_layer: Sequence[float], spec: Mapping[str, Any]) -> float | None:
    """Sparsity over the layers that carry the pattern; every layer has as many pairs."""
    if not by_layer or spec["pattern"] == DENSE:
        return None
    chosen = [by_layer[index] for index in select_indices(spec["layers"], len(by_layer), "layer")]
    return sum(chosen) / len(chosen) if chosen else None


def _checksum(values: Mapping[str, Any]) -> str:
    compact = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(compact.encode()).hexdigest()


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
