"""Pages without their figures, which take most of the time to write one."""

import pytest

from sparseattn.report import page


@pytest.fixture
def undrawn(monkeypatch):
    """Reports are written without figures."""
    for name in ("sparsity_figure", "placement_figure", "forest_figure"):
        monkeypatch.setattr(page, name, lambda *_: None)
