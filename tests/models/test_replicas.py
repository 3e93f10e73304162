"""`torch.nn.DataParallel` copies a model such that its encoder would run the original's forward."""

from __future__ import annotations

import pytest
import torch

import sparseattn as sa
from sparseattn.errors import PlanNotAppliedError
from tests.models.families import batch, build


def replica(module):
    """What `torch.nn.parallel.replicate` makes of a module, on its own device."""
    copy = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        copy._modules[name] = None if child is None else replica(child)
    for name, parameter in module._parameters.items():
        copy.__dict__[name] = None if parameter is None else parameter.detach()
    return copy


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("kind", [None, "ForSequenceClassification"])
def test_a_replica_does_not_run_without_a_word(family, kind):
    model = build(family, kind)
    inputs = batch((9, 5))
    with torch.no_grad():
        assert torch.equal(replica(model)(**inputs)[0], model(**inputs)[0])
        sa.sparsify(model, "neighbor(radius=1)")
        copy = replica(model)
        with pytest.raises(PlanNotAppliedError, match=r"DataParallel copies .* DistributedDataPar"):
            copy(**inputs)
        model(**inputs)
        sa.restore(model)
        assert torch.equal(replica(model)(**inputs)[0], model(**inputs)[0])
