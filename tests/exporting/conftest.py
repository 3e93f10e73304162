"""Exported files, made once: to trace a model takes seconds."""

from functools import cache

import pytest
import torch

import sparseattn as sa
from sparseattn.exporting.formats import FORMATS
from tests.models.families import batch, build

#: Windows of three kinds, of which the widest reaches 3 tokens, and a global token.
PLAN = {":": {"0,2": "neighbor(3) | global(cls)", "1": "neighbor(2)", "3": "dilated(1, 3)"}}


def columns(lengths, side="right"):
    columns = batch(lengths, side)
    return {**columns, "token_type_ids": torch.zeros_like(columns["input_ids"])}


@pytest.fixture(params=FORMATS)
def exported(request, exported_as):
    """`exported_as` each format."""
    return exported_as(request.param)


@pytest.fixture(scope="session")
def exported_as(tmp_path_factory):
    """By a format's name: a model of one layer, what was exported, and the file, opened.

    The model is as wide as the inputs of a layer that share a scale in int8.
    """

    @cache
    def make(name):
        form = FORMATS[name]
        for package in form.needs:
            pytest.importorskip(package)
        stock = build("bert", num_hidden_layers=1, hidden_size=128, intermediate_size=256)
        model = sa.sparsify(stock, PLAN)
        done = sa.export(model, tmp_path_factory.mktemp("out") / f"out{form.suffix}", to=name)
        return model, done, form.run(done.path, 1)

    return make
