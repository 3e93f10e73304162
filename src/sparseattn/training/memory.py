"""Memory between trials."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

__all__ = ["give_back"]


def give_back() -> None:
    """Hands what the last trial freed back to the system.

    glibc keeps freed memory in pieces, and a trial with batches of other shapes cannot use all of
    them: workers would grow from trial to trial. Elsewhere only what refers to itself is collected.
    """
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
