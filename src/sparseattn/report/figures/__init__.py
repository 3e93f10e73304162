"""Figures that read well on light and dark pages, wide and narrow."""

from sparseattn.report.figures.placement import placement_figure
from sparseattn.report.figures.sparsity import sparsity_figure
from sparseattn.report.figures.svg import Drawing

__all__ = ["Drawing", "placement_figure", "sparsity_figure"]
