"""Where the results of the tiled backend lie in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparseattn.backends._cpu import memory


def test_large_results_have_large_pages():
    """What the kernel of the system says of the mapping that a result lies in."""
    maps = Path("/proc/self/smaps")
    if not (maps.exists() and Path("/sys/kernel/mm/transparent_hugepage").exists()):
        pytest.skip("no large pages to ask for on this system")
    for size, large in ((memory.LARGE, True), (memory.LARGE // 1024, False)):
        made = memory.result(torch.empty(1, 1, size // 64, 16), zero=True)
        assert made.shape == (1, 1, size // 64, 16)
        assert not made.any()
        assert _advised(maps.read_text(), made.data_ptr() + made.nbytes // 2) == large


def _advised(maps, address):
    found = False
    for line in maps.splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            begin, end = (int(x, 16) for x in first.split("-"))
            found = begin <= address < end
        elif found and first == "VmFlags:":
            return "hg" in line.split()
    raise AssertionError("the address lies in no mapping")
