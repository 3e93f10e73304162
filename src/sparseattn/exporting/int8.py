"""8-bit integers in the linear layers of exported files; attention stays in floating point."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from sparseattn.errors import DataError
from sparseattn.models.int8 import cuts_sums

#: Tokenised texts, a batch each, without padding.
Batches = Sequence[Mapping[str, Tensor]]

#: Inputs of a layer that share a scale, where it is found for each token.
_GROUP = 128


def remark() -> str:
    """What is worth knowing of int8 files on this machine; empty for nothing."""
    if not cuts_sums():
        return ""
    return (
        "note: no AVX-512 VNNI was found here: without VNNI int8 files are as slow as in fp32 or "
        "slower, and OpenVINO's fixed scales less exact; quantize(model) in torch is faster"
    )


@contextmanager
def quietly() -> Iterator[None]:
    """Hides what exporters and quantizers say to their developers, and their progress bars."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def calibrated(batches: Any, inputs: Sequence[str], longest: int | None) -> Batches:
    """Checks the batches that scales are to be found on, and takes them apart.

    Raises:
        DataError: There are fewer than two texts; a batch lacks a column, or is longer than the
            model's positions.
    """
    texts: list[dict[str, Tensor]] = []
    for batch in batches:
        known = batch if isinstance(batch, Mapping) else {}
        missing = [name for name in inputs if not isinstance(known.get(name), Tensor)]
        if missing:
            raise DataError(
                f"a batch for calibration needs the tensor {missing[0]}: "
                "[tokenizer(text, truncation=True, return_tensors='pt') for text in texts]"
            )
        length = batch["input_ids"].shape[1]
        if longest is not None and length > longest:
            raise DataError(
                f"a text for calibration has {length:,} tokens, more than the {longest:,} "
                f"positions of the model: tokenizer(text, truncation=True, max_length={longest})"
            )
        for row, real in enumerate(batch["attention_mask"].bool()):
            texts.append({name: batch[name][row, real][None] for name in inputs})
    if len(texts) < 2:
        raise DataError(
            f"calibration needs two texts or more, one to see how good the scales are; got "
            f"{len(texts)}"
        )
    return texts


@quietly()
def quantize_onnx(path: Path, _batches: Batches | None) -> None:
    """Weights as integers; scales of inputs are found for each token when the file runs."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    # ONNX Runtime's other kind has one scale for all tokens of a batch: a token out of reach would
    # change the others, and outliers would cost four times the error.
    quantizer = MatMulNBitsQuantizer(
        onnx.load(path), block_size=_GROUP, is_symmetric=True, accuracy_level=4, bits=8
    )
    quantizer.process()
    onnx.save(quantizer.model.model, path)


@quietly()
def quantize_openvino(path: Path, batches: Batches | None) -> None:
    """Weights as integers; scales of inputs from texts, or else found for each token."""
    os.environ.setdefault("NNCF_CI", "1")  # or it reports its use to its makers
    import nncf
    import openvino

    model = openvino.Core().read_model(path)
    others = [op.get_friendly_name() for op in model.get_ops() if not _is_linear(op)]
    scope = nncf.IgnoredScope(names=others, validate=False)
    if batches is None:
        mode = nncf.CompressWeightsMode.INT8_SYM
        model = nncf.compress_weights(model, mode=mode, ignored_scope=scope)
        # Without this, OpenVINO takes 32, which is slower.
        model.set_rt_info(str(_GROUP), ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    else:
        arrays = [{name: value.numpy() for name, value in batch.items()} for batch in batches]
        model = nncf.quantize(
            model,
            nncf.Dataset(arrays),
            subset_size=len(arrays),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=scope,
        )
    draft = path.with_name(f"int8-{path.name}")
    openvino.save_model(model, draft, compress_to_fp16=False)
    draft.with_suffix(".bin").replace(path.with_suffix(".bin"))
    draft.replace(path)


def _is_linear(op: Any) -> bool:
    """Whether it is a linear layer of every token, or no operator that computes at all."""
    if op.get_type_name() != "MatMul":
        return op.get_type_name() in ("Constant", "Parameter", "Result")
    weights = op.input_value(1).get_node()
    while weights.get_type_name() in ("Convert", "Transpose"):
        weights = weights.input_value(0).get_node()
    shape = op.input(0).get_partial_shape()
    return bool(weights.get_type_name() == "Constant" and len(shape) == 3)
