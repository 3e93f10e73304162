"""How differences of outputs and gradients are found, and that none gets lost."""

from __future__ import annotations

import math

import torch
from torch import nn

from sparseattn.bench.compare import differences, results

WANTED = [torch.ones(3), torch.tensor([0.0, 10.0]), torch.tensor([1e-6])]


def test_outputs_count_as_they_are_and_gradients_as_a_share():
    ours = [WANTED[0] + 0.5, torch.tensor([1.0, 10.0]), WANTED[2]]
    assert differences(ours, WANTED) == (0.5, 0.10000000149011612)
    assert differences(WANTED[:1], WANTED[:1]) == (0.0, 0.0)


def test_a_gradient_that_is_zero_but_for_rounding_may_round_otherwise():
    ours = [WANTED[0], WANTED[1], torch.tensor([2e-6])]
    assert differences(ours, WANTED)[1] < 1e-3


def test_what_is_no_number_is_not_lost():
    for place in range(3):
        ours = [tensor.clone() for tensor in WANTED]
        ours[place][-1] = math.nan
        assert math.isnan(differences(ours, WANTED)[min(place, 1)])


def test_gradients_of_all_parameters():
    layer, unused = nn.Linear(2, 3), nn.Parameter(torch.ones(2))
    states = torch.tensor([[1.0, 2.0]])
    out, weight, bias, none = results(lambda: layer(states), [*layer.parameters(), unused])
    assert torch.equal(out, layer(states))
    assert bias.tolist() == [-1.0, 0.0, 1.0]
    assert weight.tolist() == [[-1.0, -2.0], [0.0, 0.0], [1.0, 2.0]]
    assert none.tolist() == [0.0]
    (alone,) = results(lambda: layer(states), [])
    assert not alone.requires_grad
