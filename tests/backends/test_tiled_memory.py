"""Where the results of the tiled backend lie in memory: what the system says of it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

from sparseattn.backends.kernels.cpu import memory

MAPS = Path("/proc/self/smaps")

pytestmark = pytest.mark.skipif(
    not (MAPS.exists() and Path("/sys/kernel/mm/transparent_hugepage").exists()),
    reason="no large pages to ask for on this system",
)


def mapping(address):
    """The lines about the mapping that an address lies in, by their first word."""
    found, lines = False, {}
    for words in map(str.split, MAPS.read_text().splitlines()):
        if not words[0].endswith(":"):
            begin, end = (int(x, 16) for x in words[0].split("-"))
            found = begin <= address < end
        elif found:
            lines[words[0].removesuffix(":")] = words[1:]
    assert lines, "the address lies in no mapping"
    return lines


def result(size, zero):
    made = memory.result(torch.empty(1, 1, size // 64, 16), zero)
    assert made.shape == (1, 1, size // 64, 16)
    return made


@pytest.mark.parametrize(
    ("size", "large"), [(memory.LARGE, True), (memory.LARGE // 1024, False)], ids=["large", "small"]
)
def test_large_results_have_large_pages(size, large):
    made = result(size, zero=True)
    assert not made.any()
    assert ("hg" in mapping(made.data_ptr() + size // 2)["VmFlags"]) == large


def test_they_are_asked_for_before_anything_is_written(monkeypatch):
    """Pages that are there already stay small.

    What is written while they are asked for would last if the zeros came first. Whether the pages
    are in memory would say less: the allocator may hand out some that an earlier tensor used.
    """
    asked = []

    def advise(address, size):
        asked.append(size)
        ctypes.memset(address, 0xFF, size)

    monkeypatch.setattr(memory, "_advise", lambda: advise)
    made = result(memory.LARGE, zero=True)
    assert len(asked) == 1
    assert not made.any()
