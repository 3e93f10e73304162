"""Compiling the CPU kernel and running it on PyTorch's own threads."""

from __future__ import annotations

import ctypes
import hashlib
import math
import mmap
import shutil
import warnings
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseattn.backends.kernels.tiles import Tiles
from sparseattn.errors import first_line, reason
from sparseattn.files import cache_folder

#: What the kernel computes with for each input type.
DTYPES = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
}
#: Bytes from which a tensor gets large pages. glibc takes none so large from the heap: its memory
#: comes from the system with the tensor and goes back with it, at a fault for each 4 KB. Those were
#: a quarter of a forward pass over 32,768 tokens, together with the processor's look-ups of pages:
#: in a wide model each row of a head lies on a page of its own.
LARGE = 1 << 25
#: Whether scratch memory starts as NaN; for tests.
POISON = False


def uninstalled() -> str | None:
    """Why nothing can be compiled, or None."""
    if find_spec("numba") is None:
        return "numba is not installed: pip install 'sparseattn[fast]'"
    return None


@cache
def missing(dtype: torch.dtype = torch.float32, trains: bool = True) -> str | None:
    """Why the kernel cannot run on this machine, or None.

    Args:
        dtype: The type of the inputs; one of `DTYPES`.
        trains: Whether the backward pass is needed, too.
    """
    if (reason := uninstalled()) is not None:
        return reason
    bits = DTYPES[dtype].itemsize * 8
    try:
        for direction in ("forward", "backward")[: 1 + trains]:
            compiled(f"{direction}{bits}")
    except Exception as error:  # numba raises many kinds, and none may stop the portable path
        return f"numba cannot compile it here: {type(error).__name__}: {first_line(error)}"
    return None


@cache
def compiled(name: str) -> Any:
    """A function of `kernel` as machine code, from the disk if it was compiled before."""
    folder = _code_cache()
    try:
        return _compile(name, folder)
    except Exception:
        if folder is None or not folder.is_dir():
            raise
    shutil.rmtree(folder, ignore_errors=True)  # a file there may be damaged
    return _compile(name, _code_cache())


def _compile(name: str, folder: Path | None) -> Any:
    # numba carries no types.
    numba: Any = import_module("numba")
    config: Any = import_module("numba.core.config")

    from sparseattn.backends.kernels.cpu import kernel

    before, keep = config.CACHE_DIR, folder is not None
    config.CACHE_DIR = str(folder or "")
    try:
        compile_ = numba.cfunc("void(CPointer(int64))", cache=keep, error_model="numpy")
        return compile_(getattr(kernel, name))
    finally:
        config.CACHE_DIR = before


def _code_cache() -> Path | None:
    """Where machine code is kept; None where nobody but this user can be kept from writing.

    Numba looks for changes in one source file only, so the folder is named after all of them. Its
    index is a pickle, which can run code.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    folder = cache_folder() / "kernels" / digest.hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # an error, if it is another user's
    except OSError as error:
        warnings.warn(
            f"kernels are compiled anew by every process: {folder}: {reason(error)}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return folder


@cache
def _team() -> Callable[[int, int, int], None]:
    """Runs a compiled function in every thread of a team: (its address, its argument, threads).

    PyTorch's OpenMP threads where they can be reached, because threads of our own would compete
    with them: they spin for a while after each operation.
    """
    try:
        parallel = ctypes.CDLL(None).GOMP_parallel
    except (OSError, AttributeError, TypeError):
        return _pooled
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None

    def run(address: int, argument: int, threads: int) -> None:
        parallel(address, argument, threads, 0)

    return run


def _pooled(address: int, argument: int, threads: int) -> None:
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(call, argument) for _ in range(threads)]:
            job.result()


@dataclass(frozen=True)
class Setting:
    """The numbers of one attention.

    Attributes:
        scale: Factor of the scores.
        dropout: Chance that a weight is dropped, in [0, 1).
        seed: Of the dropout.
    """

    scale: float
    dropout: float
    seed: int


def run(direction: str, tiles: Tiles, setting: Setting, **tensors: Tensor | None) -> None:
    """Runs the kernel on as many threads as PyTorch uses.

    Args:
        direction: `forward` or `backward`.
        tiles: What to compute.
        setting: Its numbers.
        tensors: States and results by their names in `arguments`, of one type; None for none.
            Shape: [batch, heads, length, width], with a width that is a multiple of 16; of LSE
            [batch, heads, length], of BIAS and DBIAS [batch, heads, numbers].
    """
    from sparseattn.backends.kernels.cpu import arguments, kernel

    places, threads = vars(arguments), torch.get_num_threads()
    query: Any = tensors["Q"]
    numbers = [setting.scale, 1 / (1 - setting.dropout), 0.0, 1.0, -1e30, -math.inf]
    # The kernel has addresses only: what they point to must live as long as it runs.
    arrays = {
        "NUMBERS": torch.tensor(numbers, dtype=query.dtype),
        "QUERIES": tiles.queries,
        "STARTS": tiles.shared.starts,
        "COUNTS": tiles.shared.counts,
        "KEYS": tiles.shared.keys,
        "BITS": tiles.shared.marks,
        "PAIR_STARTS": tiles.scattered.starts,
        "PAIR_COUNTS": tiles.scattered.counts,
        "PAIR_KEYS": tiles.scattered.keys,
        "PAIR_PLACES": tiles.scattered.marks,
        "FIRST": tiles.first,
        "GROUP": tiles.group,
    }
    counts = {
        "TEXTS": tiles.texts,
        "HEADS": tiles.heads,
        "LENGTH": tiles.length,
        "WIDTH": query.shape[-1],
        "LONGEST": tiles.longest,
        "PAIR_ROWS": tiles.pair_rows,
        "PAIRS": len(tiles.scattered.keys),
        "CHUNKS": -(-tiles.most_tiles // kernel.CHUNK),
        "SEED": setting.seed,
        "THRESHOLD": round(setting.dropout * 2**32),
        "SIZE": query.dtype.itemsize,
        "POISON": int(POISON),
    }
    if direction == "backward":
        arrays["ORDER"], arrays["SHARE_STARTS"] = tiles.shares(threads)
        counts["SHARES"] = len(arrays["SHARE_STARTS"]) - 1
    # Not a tensor: setting its numbers one by one takes longer than a short attention.
    values = array("q", bytes(8 * arguments.ARGUMENTS))
    for name, count in counts.items():
        values[places[name]] = count
    for name, entries in arrays.items():
        values[places[name]] = entries.data_ptr()
    for name, tensor in tensors.items():
        if tensor is not None:
            at = places[name]
            values[at : at + 4] = array("q", (tensor.data_ptr(), *tensor.stride()[:3]))
    function = compiled(f"{direction}{query.dtype.itemsize * 8}")
    _team()(function.address, values.buffer_info()[0], threads)


def empty_result(like: Tensor, zero: bool) -> Tensor:
    """A tensor of the same shape, each token's heads side by side.

    Args:
        like: Shape: [batch, heads, length, width].
        zero: Whether it starts as zeros; otherwise with anything.

    Returns:
        Shape: [batch, heads, length, width]; contiguous as [batch, length, heads, width].
    """
    batch, heads, length, width = like.shape
    out = torch.empty(batch, length, heads, width, dtype=like.dtype)
    if out.nbytes >= LARGE:
        page = mmap.PAGESIZE
        begin = -(-out.data_ptr() // page) * page
        # Advice: where it is not taken, the pages are small and the results the same.
        _advise()(begin, (out.data_ptr() + out.nbytes - begin) // page * page)
    # After the advice: writing is what makes pages, and `torch.zeros` writes at once.
    return (out.zero_() if zero else out).transpose(1, 2)


@cache
def _advise() -> Callable[[int, int], object]:
    """Asks Linux for large pages: (address, bytes)."""
    advice: int | None = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None:
        return lambda _address, _size: None
    call = ctypes.CDLL(None).madvise
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return lambda address, size: call(address, size, advice)
