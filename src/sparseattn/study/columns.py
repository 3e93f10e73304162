"""The columns of a study's results, for those who write them and those who report them."""

from __future__ import annotations

__all__ = ["COLUMNS"]

#: In the order in which they are written. Metrics follow `headline`, columns that are not named
#: here follow at the end, in alphabetical order.
COLUMNS = (
    "arm",
    "layers",
    "seed",
    "status",
    "headline",
    "sparsity",
    "layer_sparsity",
    "block_density",
    "mean_degree",
    "train_examples",
    "evaluation_examples",
    "train_cut",
    "evaluation_cut",
    "steps",
    "seconds",
    "seconds_train",
    "seconds_evaluate",
    "pattern",
    "reason",
    "digest",
)
