import os

import pytest

from tests.study import fakes


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Where the fake trials of a test write down what they do."""
    path = tmp_path / "log.txt"
    monkeypatch.setenv(fakes.LOG, str(path))
    monkeypatch.setenv("PYTHONPATH", str(fakes.ROOT), prepend=os.pathsep)
    return path
