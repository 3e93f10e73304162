"""What a plan allows, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

import sparseattn as sa
from sparseattn.counting import LayerCount, MeasuredSparsity, SparsityReport
from tests.patterns.batches import count_plan


def layer(**values):
    given = {
        "pattern": "self()", "heads": 2, "allowed": 6, "valid": 24, "degrees": {1: 2, 2: 2},
        "reaches_cls": 0.5, "receptive_field": 0.5,
    }  # fmt: skip
    return LayerCount(**given | values)


def test_numbers_of_a_layer():
    assert layer().sparsity == 0.75
    assert layer().mean_degree == 1.5
    assert layer().block_density is None
    assert layer(computed=36).block_density == 1.5


def test_numbers_of_all_layers():
    report = SparsityReport((layer(computed=12), layer(allowed=24, computed=36)), 1, 2)
    assert (report.allowed, report.valid, report.sparsity) == (30, 48, 1 - 30 / 48)
    assert report.density == 30 / 48
    assert report.mean_degree == 30 / 8
    assert report.degrees == {1: 4, 2: 4}
    assert report.block_density == 1.0
    assert SparsityReport((layer(computed=12), layer()), 1, 2).block_density is None


def test_nothing_to_count_is_not_sparse():
    empty = layer(allowed=0, valid=0, degrees={}, computed=0)
    assert (empty.sparsity, empty.mean_degree, empty.block_density) == (0.0, 0.0, None)
    report = SparsityReport((empty,), 0, 0)
    assert (report.sparsity, report.mean_degree, report.block_density) == (0.0, 0.0, None)
    report = count_plan(sa.Plan.of("self()"), sa.TokenBatch.of_lengths(0), [2])
    assert (report.tokens, report.sparsity, report.layers[0].receptive_field) == (0, 0.0, 0.0)


@pytest.mark.parametrize("lengths", [(4, 4), (4, 0)])
def test_a_text_of_padding_does_not_count(lengths):
    report = count_plan(sa.Plan.of("self()"), sa.TokenBatch.of_lengths(*lengths), [2])
    assert (report.layers[0].reaches_cls, report.layers[0].receptive_field) == (0.25, 0.25)


def test_how_far_information_travels():
    report = count_plan(sa.Plan.of("neighbor(1)"), sa.TokenBatch.of_lengths(5), [1, 1])
    assert [layer.reaches_cls for layer in report.layers] == pytest.approx([0.4, 0.6])
    assert [layer.receptive_field for layer in report.layers] == pytest.approx([13 / 25, 19 / 25])


def test_texts_counted_one_by_one():
    plan = sa.Plan.of("neighbor(1)", layers="1")
    measured = MeasuredSparsity.of(plan, [sa.TokenBatch.of_lengths(4, 20)], [2, 3])
    assert measured.allowed.tolist() == [[32, 30], [800, 174]]
    assert measured.valid.tolist() == [[32, 48], [800, 1200]]
    assert measured.sparsity == 1 - 1036 / 2080
    assert measured.by_layer == [0.0, 1 - 204 / 1248]
    assert measured.mean_degree == 1036 / (24 * 5)
    assert measured.by_length() == {"1-16": 1 - 62 / 80, "17-32": 1 - 974 / 2000}
    assert measured.on_layers([1]).sparsity == 1 - 204 / 1248
    assert measured.block_density is None
    assert replace(measured, computed=4160).block_density == 2.0
