"""Memory for the results of an attention: laid out as transformers wants it, in large pages."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

__all__ = ["LARGE", "result"]

#: Bytes from which a tensor gets large pages. glibc takes none so large from the heap: its memory
#: comes from the system with the tensor and goes back with it, at a fault for each 4 KB. Those were
#: a quarter of a forward pass over 32,768 tokens, together with the processor's look-ups of pages:
#: in a wide model each row of a head lies on a page of its own.
LARGE = 1 << 25


def result(like: Tensor, zero: bool) -> Tensor:
    """A tensor of the same shape, each token's heads side by side.

    Args:
        like: Shape: [batch, heads, length, width].
        zero: Whether it starts as zeros; otherwise with anything.

    Returns:
        Shape: [batch, heads, length, width]; contiguous as [batch, length, heads, width].
    """
    batch, heads, length, width = like.shape
    made = torch.empty(batch, length, heads, width, dtype=like.dtype)
    if made.nbytes >= LARGE:
        page = mmap.PAGESIZE
        begin = -(-made.data_ptr() // page) * page
        # Advice: where it is not taken, the pages are small and the results the same.
        _advise()(begin, (made.data_ptr() + made.nbytes - begin) // page * page)
    # After the advice: writing is what makes pages, and `torch.zeros` writes at once.
    return (made.zero_() if zero else made).transpose(1, 2)


@cache
def _advise() -> Callable[[int, int], object]:
    """Asks Linux for large pages: (address, bytes)."""
    advice: int | None = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None:
        return lambda _address, _size: None
    call = ctypes.CDLL(None).madvise
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return lambda address, size: call(address, size, advice)
