"""A `.pt2` file from a stranger runs nothing."""

from __future__ import annotations

import io
import json
import os
import zipfile

import pytest
import torch

from sparseattn.errors import DataError
from sparseattn.exporting.formats import FORMATS


class _Adds(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def forward(self, x):
        return {"sum": self.linear(x) + torch.tensor([1.0, 2.0, 3.0])}


class _Touches:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def exported(tmp_path):
    path = tmp_path / "adds.pt2"
    torch.export.save(torch.export.export(_Adds(), (torch.ones(2, 3),)), path)
    return path


def _changed(path, changes):
    """The file with some parts replaced, or more of them."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(parts)).split("/")[0]
    for name, change in changes.items():
        parts[f"{root}/{name}"] = change(parts.get(f"{root}/{name}", b""))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def test_a_file_of_tensors_is_read(exported):
    out = FORMATS["torch"].run(exported, None)({"x": torch.zeros(2, 3)})
    assert out["sum"].shape == (2, 3)


def _pickled(content):
    values = json.loads(content)
    for entry in values["config"].values():
        entry["use_pickle"] = True
    return json.dumps(values).encode()


@pytest.mark.parametrize("part", ["inputs", "weights", "library"])
def test_what_would_run_code_is_refused(exported, tmp_path, part):
    touched = tmp_path / "touched"
    buffer = io.BytesIO()
    torch.save(_Touches(touched), buffer)
    changes = {
        "inputs": {"data/sample_inputs/model.pt": lambda _: buffer.getvalue()},
        "weights": {
            "data/weights/weight_0": lambda _: buffer.getvalue(),
            "data/weights/model_weights_config.json": _pickled,
        },
        "library": {"data/aotinductor/model/wrapper.so": lambda _: b"\x7fELF"},
    }[part]
    path = _changed(exported, changes)
    with pytest.raises(DataError, match=r"pickle|holds '.*wrapper.so'"):
        FORMATS["torch"].run(path, None)
    assert not touched.exists()
