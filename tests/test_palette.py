"""Whether every eye can tell the colours apart, and read them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from sparseattn.degrees.ranking import rankings
from sparseattn.palette import DARK, KINDS, LIGHT, kind_of
from sparseattn.pattern import catalogue

KIND_COLOURS = {
    "light": [kind.light for kind in KINDS.values() if kind.name != "none"],
    "dark": [kind.dark for kind in KINDS.values() if kind.name != "none"],
}


def _luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


#: What a full-strength lack of one kind of cone makes of linear RGB, after Machado, Oliveira and
#: Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009.
VISION = {
    "whole": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def _lab(colour: str, vision: list[list[float]]) -> np.ndarray:
    """Oklab (Ottosson, 2020), in which equal steps look equally large."""
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(vision) @ linear, 0, 1)
    cones = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
    to_lab = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    return np.array(to_lab) @ np.cbrt(np.array(cones) @ seen)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("page", [LIGHT, DARK], ids=["light", "dark"])
def test_each_series_differs_for_every_eye(page, vision) -> None:
    assert _closest(page.series, vision) > 0.095


def _closest(colours, vision: str) -> float:
    labs = [_lab(colour, VISION[vision]) for colour in colours]
    return min(float(np.linalg.norm(a - b)) for a, b in combinations(labs, 2))


@pytest.mark.parametrize("page", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_stand_out_from_the_page(page) -> None:
    least = dict.fromkeys(page.series, 3.0) | {page.ink: 7.0, page.quiet: 4.5}
    for colour, ratio in least.items():
        one, two = sorted((_luminance(colour), _luminance(page.page)))
        assert (two + 0.05) / (one + 0.05) >= ratio, colour


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scheme", KIND_COLOURS)
def test_kinds_differ_for_every_eye(scheme: str, vision: str) -> None:
    assert _closest(KIND_COLOURS[scheme], vision) > 0.07


def test_kinds_differ_in_grey_print_by_their_marks() -> None:
    marks = [kind.marker for kind in KINDS.values() if kind.name != "dense"]
    assert len(set(marks)) == len(marks)


def test_every_pattern_and_ranking_has_a_kind_but_the_mixes() -> None:
    mixes = {"bigbird", "longformer"}
    assert {name for name in catalogue if kind_of(name).name == "other"} == mixes
    assert not [name for name in rankings if kind_of(name).name == "other"]
