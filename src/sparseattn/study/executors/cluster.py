"""The connection to a Ray cluster."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from sparseattn.errors import MissingExtraError, StudyError
from sparseattn.study.spec import ExecutorSpec

__all__ = ["imported", "joined"]

#: The address that stands for a cluster of this machine alone, begun for the study.
_LOCAL = "local"


@contextmanager
def joined(spec: ExecutorSpec) -> Iterator[ModuleType]:
    """Joins a cluster for the length of a block, unless this process has joined one before.

    Args:
        spec: The cluster and what a trial takes of it.

    Yields:
        The module `ray`.

    Raises:
        MissingExtraError: Ray is not installed.
        StudyError: There is no cluster at the address, or this machine has not what a trial takes.
    """
    ray = imported()
    if ray.is_initialized():
        yield ray
        return
    _join(ray, spec.address)
    try:
        if spec.address == _LOCAL:
            _check_room(ray, spec)
        yield ray
    finally:
        ray.shutdown()


def _join(ray: ModuleType, address: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == _LOCAL:
        options["include_dashboard"] = False
    # Ray asks for this to become its default.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        _knock(address)
        ray.init(address=address, **options)
    # Ray raises an AssertionError about an address that it cannot read.
    except (AssertionError, OSError, OverflowError, ValueError, RuntimeError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StudyError(
            f"executor.address: no Ray cluster at {address!r} ({why}); start one with "
            "`ray start --head` and give its HOST:PORT, or auto for the one on this machine, or "
            "local to start one for the study"
        ) from None


def _check_room(ray: ModuleType, spec: ExecutorSpec) -> None:
    """A trial that no node has room for would wait for ever; only a real cluster may grow."""
    have = ray.cluster_resources()
    for key, name, asked in (("cpus", "CPU", spec.cpus), ("gpus", "GPU", spec.gpus)):
        if asked > have.get(name, 0.0):
            raise StudyError(
                f"executor.{key}: a trial asks for {asked:g}, and this machine has "
                f"{have.get(name, 0.0):g}; ask for no more, or join a cluster"
            )


def imported() -> ModuleType:
    """The module `ray`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
            import ray.exceptions
            import ray.util.scheduling_strategies
    except ImportError:
        raise MissingExtraError(
            'the ray executor needs Ray: pip install "sparseattn[ray]"'
        ) from None
    module: ModuleType = ray
    return module


def _spelt_out(address: str) -> str:
    """What `auto` stands for, as Ray finds it; a cluster that has died leaves its address there."""
    if address != "auto":
        return address
    if given := os.environ.get("RAY_ADDRESS"):
        return given
    folder = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()))
    try:
        return (folder / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _knock(address: str) -> None:
    """Makes sure that somebody listens at an address: Ray would wait for minutes."""
    host, _, port = _spelt_out(address).rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
