"""Exported files: windows against the dense model, each in the same runtime, and our own backend.

MiniLM, lengthened, one text. Before a length is timed, each file's output is compared with its
model's in single precision; a difference ends the row. Then all take turns; the results are
medians. *auto* is the sparse model in torch, with this package's backends.

    python benchmarks/serving.py [--lengths 512 ...] [--repeats N] [--threads N] [--again]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import sparseattn as sa
from shared import Record, options, parse
from sparseattn.bench.timing import samples
from sparseattn.exporting.exportable import Exportable
from sparseattn.exporting.files import batch_of
from sparseattn.exporting.formats import FORMATS, Run, open_openvino, program_of
from sparseattn.models.load import load_part
from sparseattn.models.names import DEFAULT
from sparseattn.plan import Plan

PLAN = "neighbor(radius=64) | global(cls)"
COLUMNS = (
    "tokens",
    "auto fp32",
    "ONNX Runtime fp32: dense, windows",
    "OpenVINO fp32: dense, windows",
    "OpenVINO bf16: dense, windows",
    "windows / auto (ONNX, OpenVINO)",
    "difference",
)
#: Largest differences of outputs: single precision, and bfloat16, which has 8 bits.
LIMITS = {"fp32": 1e-3, "bf16": 0.5}


def files(model: Any, folder: Path, threads: int) -> dict[str, Run]:
    """Every file, opened."""
    runs: dict[str, Run] = {}
    for name, plan in (("dense", "full()"), ("windows", PLAN)):
        for form in ("onnx", "openvino"):
            path = folder / f"{name}{FORMATS[form].suffix}"
            FORMATS[form].write(program_of(Exportable(model, Plan.of(plan))), path)
            runs[f"{form} fp32 {name}"] = FORMATS[form].run(path, threads)
        runs[f"openvino bf16 {name}"] = open_openvino(folder / f"{name}.xml", threads, "bf16")
    return runs


def outputs(model: Any, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch).last_hidden_state


def compared(model: Any, runs: dict[str, Run], batch: dict[str, Tensor]) -> dict[str, float]:
    """The largest difference of each file from its model."""
    sparse = outputs(model, batch)
    with sa.sparsified(model, "full()"):
        dense = outputs(model, batch)
    apart = {}
    for name, run in runs.items():
        expected = dense if name.endswith("dense") else sparse
        apart[name] = float((run(batch)["last_hidden_state"] - expected).abs().max())
        limit = LIMITS[name.split()[1]]
        if not apart[name] < limit:
            sys.exit(f"not timed: {name} differs from its model by {apart[name]:.2g} ({limit:g})")
    return apart


def measure(model: Any, runs: dict[str, Run], length: int, repeats: int) -> dict[str, Any]:
    batch = batch_of(model, ("input_ids", "attention_mask"), 1, length)
    batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    apart = compared(model, runs, batch)
    turns: dict[str, Callable[[], object]] = {n: partial(run, batch) for n, run in runs.items()}
    turns["auto"] = partial(outputs, model, batch)
    times = {name: 1000 * median(taken) for name, taken in samples(turns, repeats).items()}
    cells = [f"{length:,}", f"{times['auto']:.0f} ms"]
    for kind in ("onnx fp32", "openvino fp32", "openvino bf16"):
        dense, windows = times[f"{kind} dense"], times[f"{kind} windows"]
        cells.append(f"{dense:.0f}, {windows:.0f} ms ({dense / windows:.2f}x)")
    ratios = [times[f"{kind} fp32 windows"] / times["auto"] for kind in ("onnx", "openvino")]
    worst = {kind: max(v for n, v in apart.items() if kind in n) for kind in LIMITS}
    cells += [", ".join(f"{ratio:.2f}" for ratio in ratios),
              ", ".join(f"{kind} {value:.0e}" for kind, value in worst.items())]  # fmt: skip
    return {"rows": [cells], "milliseconds": times, "differences": apart}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--lengths", nargs="*", type=int, default=[512, 1024, 2048, 4096])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parse(parser)
    if args.busy:
        parser.exit(2, "--busy counts one thread of Python, and runtimes have their own\n")
    if args.quick:
        args.lengths, args.repeats = args.lengths[:1], 1
    torch.set_num_threads(args.threads)
    model = load_part(DEFAULT, "AutoModel", add_pooling_layer=False)
    sa.lengthen(model, load_part(DEFAULT, "AutoTokenizer"), to=max(args.lengths), plan=PLAN)
    setting = f"MiniLM, one text, {PLAN}, {args.threads} threads, {args.repeats} rounds"
    record = Record("serving", COLUMNS, setting, args.out, args.again)
    with TemporaryDirectory() as folder:
        runs = files(model, Path(folder), args.threads)
        for length in args.lengths:
            record.part(f"{length}", partial(measure, model, runs, length, args.repeats))
    record.done()


if __name__ == "__main__":
    main()
