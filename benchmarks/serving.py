"""Serving long texts on a CPU: stock encoders in three runtimes, and sparse ones.

One text, one thread, one process; all take turns, and the results are medians. Before a length is
timed, each output is compared with that of its model (dense or sparse) in single precision: single
precision and bfloat16 must be close, of 8-bit integers the difference is reported. The files of
peers are exports of the same dense model: ONNX with all of ONNX Runtime's own optimisations and its
dynamic int8, OpenVINO with int8 linear layers whose scales come from the same texts as ours.
*Chunks* cuts the text into pieces of 256 tokens and averages what the fastest dense runtime gives.
Memory is the peak that a run adds in a process of its own.

    python benchmarks/serving.py [--model minilm|base] [--lengths 512 ...] [--repeats N]
                                 [--threads N] [--memory 8192] [--files FOLDER] [--again]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor

import sparseattn as sa
from shared import AT_ONCE, Record, added, alone, options, parse
from sparseattn.bench.timing import samples
from sparseattn.exporting.exportable import Exportable
from sparseattn.exporting.formats import FORMATS, Run, open_openvino, program_of
from sparseattn.exporting.int8 import quietly
from sparseattn.models.load import load_part
from sparseattn.models.names import DEFAULT
from sparseattn.plan import Plan

PLAN = "neighbor(radius=64) | global(cls)"
COLUMNS = (
    *("tokens", "fastest dense", "chunks of 256", "fastest of ours", "ratio", "goal"),
    *("ours in torch: fp32, bf16, int8", "ours in OpenVINO: fp32, bf16, int8"),
)
#: How many times as fast as the fastest dense one.
GOALS = {128: 1.0, 512: 1.1, 1024: 1.5, 2048: 2.3, 4096: 4.0, 8192: 7.0}
#: Largest difference as a share of the outputs, root mean squares; None: reported alone.
LIMITS = {"fp32": 1e-4, "bf16": 0.05, "int8": None}
CHUNK = 256
#: Tokens above which dense ONNX Runtime is left out: it holds all scores, 10 GB at 8,192, and is
#: slower than the others by then.
MOST = 2048
#: Texts: what is read, and what scales are found on.
DOCS = Path(__file__).parents[1] / "docs"
READ, SCALES = "log.md", ("benchmarks.md", "degrees.md", "patterns.md", "studies.md")


# --- models and texts


def model_of(kind: str, longest: int) -> Any:
    """A sparse model: MiniLM, or one of BERT-base's size with random weights, for its speed."""
    if kind == "minilm":
        model = load_part(DEFAULT, "AutoModel", add_pooling_layer=False)
        sa.lengthen(model, load_part(DEFAULT, "AutoTokenizer"), to=longest, plan=PLAN)
        return model
    torch.manual_seed(0)
    config = transformers.BertConfig(max_position_embeddings=longest)
    return sa.sparsify(transformers.BertModel(config, add_pooling_layer=False).eval(), PLAN)


def longest(args: argparse.Namespace) -> int:
    """How many positions the model needs: more than the packaged model has."""
    return max(1024, args.memory, *args.lengths)


def text_of(name: str, length: int) -> dict[str, Tensor]:
    """The first tokens of a page."""
    tokenizer = load_part(DEFAULT, "AutoTokenizer")
    page = (DOCS / name).read_text(encoding="utf-8")
    batch = tokenizer(page, truncation=True, max_length=length, return_tensors="pt")
    if batch["input_ids"].shape[1] < length:
        sys.exit(f"docs/{name} has fewer than {length} tokens")
    return dict(batch)


def chunks_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pieces of a text as a batch."""
    return {name: column.view(-1, min(CHUNK, column.shape[1])) for name, column in batch.items()}


# --- contenders


def write_files(model: Any, folder: Path) -> None:
    """Every file that is not there yet."""
    from onnxruntime.quantization import quantize_dynamic

    texts = [text_of(name, 512) for name in SCALES]
    for who, plan in (("dense", "full()"), ("sparse", PLAN)):
        for form in ("onnx", "openvino"):
            path = folder / f"{who}{FORMATS[form].suffix}"
            if not path.exists():
                FORMATS[form].write(program_of(Exportable(model, Plan.of(plan))), path, "")
        xml = folder / f"{who}.xml"
        for name, scales in (("int8", texts), ("int8-token", None)):
            path = folder / f"{who}-{name}.xml"
            if not path.exists():
                for suffix in (".bin", ".xml"):
                    path.with_suffix(suffix).write_bytes(xml.with_suffix(suffix).read_bytes())
                FORMATS["openvino"].quantize(path, scales)
    sparse, dense = folder / "sparse-int8.onnx", folder / "dense-int8.onnx"
    if not sparse.exists():
        sparse.write_bytes((folder / "sparse.onnx").read_bytes())
        FORMATS["onnx"].quantize(sparse, None)
    if not dense.exists():
        with quietly():
            quantize_dynamic(folder / "dense.onnx", dense, per_channel=True,
                             op_types_to_quantize=["MatMul", "Gemm"],
                             extra_options={"MatMulConstBOnly": True})  # fmt: skip


def in_torch(model: Any) -> Run:
    def run(batch: Any) -> dict[str, Tensor]:
        with torch.no_grad():
            return {"last_hidden_state": model(**batch).last_hidden_state.float()}

    return run


def torch_model(model: Any, who: str, numbers: str) -> Any:
    model = deepcopy(model)
    if who == "dense":
        sa.restore(model)
    if "int8" in numbers:
        sa.quantize(model)
    return model.to(torch.bfloat16) if "bf16" in numbers else model


def contenders(model: Any, folder: Path, threads: int) -> dict[str, Callable[[], Run]]:
    """What opens each contender, by whose, runtime and numbers."""
    opens: dict[str, Callable[[], Run]] = {}
    for who in ("dense", "sparse"):
        kinds = ("fp32", "bf16") if who == "dense" else ("fp32", "bf16", "int8", "int8+bf16")
        for numbers in kinds:
            make = partial(torch_model, model, who, numbers)
            opens[f"{who}, torch, {numbers}"] = lambda make=make: in_torch(make())
        for numbers, end in (("fp32", ""), ("int8", "-int8")):
            path = folder / f"{who}{end}.onnx"
            opens[f"{who}, onnx, {numbers}"] = partial(FORMATS["onnx"].run, path, threads)
        for numbers, end, precision in (
            ("fp32", "", "f32"),
            ("bf16", "", "bf16"),
            ("int8", "-int8", "bf16"),
            ("int8 by token", "-int8-token", "bf16"),
        ):
            path = folder / f"{who}{end}.xml"
            opens[f"{who}, openvino, {numbers}"] = partial(open_openvino, path, threads, precision)
    return opens


# --- measuring


def compared(model: Any, runs: dict[str, Run], batch: dict[str, Tensor]) -> dict[str, float]:
    """How far each is from its model, as a share of the outputs."""
    stock = deepcopy(model)
    expected = {"sparse": in_torch(model)(batch), "dense": in_torch(sa.restore(stock))(batch)}
    shares = {}
    for name, run in runs.items():
        who, _, numbers = name.split(", ")
        right = expected[who]["last_hidden_state"]
        apart = run(batch)["last_hidden_state"] - right
        shares[name] = float(apart.norm() / right.norm())
        limit = LIMITS[numbers[:4]]
        if limit is not None and not shares[name] < limit:
            sys.exit(f"not timed: {name} is {shares[name]:.2g} off its model ({limit:g})")
    return shares


def measure(
    model: Any, opens: dict[str, Callable[[], Run]], length: int, repeats: int
) -> dict[str, Any]:
    batch = text_of(READ, length)
    # Opened for each length: runtimes keep the memory of their longest text.
    runs = {n: open_() for n, open_ in opens.items() if length <= MOST or "dense, onnx" not in n}
    shares = compared(model, runs, batch)
    dense = [name for name in runs if name.startswith("dense")]
    turns: dict[str, Callable[[], object]] = {n: partial(run, batch) for n, run in runs.items()}
    for name in dense:
        if "openvino" in name:
            turns[f"chunks, {name}"] = partial(runs[name], chunks_of(batch))
    slow = {name: 2 for name in dense if length > 2048 and "openvino" not in name}
    taken = samples(turns, repeats, most=slow)
    times = {name: 1000 * median(each) for name, each in taken.items()}
    best = {
        who: min((n for n in times if n.startswith(who)), key=times.__getitem__)
        for who in ("dense", "chunks", "sparse")
    }
    ratio = times[best["dense"]] / times[best["sparse"]]

    def named(who: str) -> str:
        return f"{times[best[who]]:.0f} ms ({best[who].replace('dense, ', '').split(', ', 1)[-1]})"

    def of_ours(runtime: str) -> str:
        kinds = ("fp32", "bf16", "int8")
        return ", ".join(f"{times[f'sparse, {runtime}, {kind}']:.0f}" for kind in kinds) + " ms"

    cells = [f"{length:,}", named("dense"), named("chunks"), named("sparse"), f"{ratio:.2f}",
             f">= {GOALS.get(length, 1.0):g}", of_ours("torch"), of_ours("openvino")]  # fmt: skip
    return {"rows": [cells], "milliseconds": times, "differences": shares}


def run_inside(args: argparse.Namespace, name: str, folder: Path, length: int) -> str:
    """What a process of this script prints."""
    command = [__file__, "--model", args.model, "--threads", args.threads]
    command += ["--lengths", longest(args), "--inside", name, folder, length]
    said = alone(command, {**AT_ONCE, "OMP_NUM_THREADS": str(args.threads)})
    return (said.splitlines() or [""])[-1]


def memory(args: argparse.Namespace, names: list[str], folder: Path) -> dict[str, Any]:
    """The peak memory that one run adds, each in a process of its own."""
    sizes = {}
    for name in names:
        if args.memory <= MOST or "dense, onnx" not in name:
            sizes[name] = float(run_inside(args, name, folder, args.memory)) / 2**20
    dense, sparse = ({n: s for n, s in sizes.items() if n.startswith(w)} for w in ("dense", "sp"))
    lean, ours = min(dense, key=dense.__getitem__), min(sparse, key=sparse.__getitem__)
    cells = [f"{args.memory:,}: memory", f"{dense[lean]:.0f} MB ({lean[7:]})", "-",
             f"{sparse[ours]:.0f} MB ({ours[8:]})", f"{dense[lean] / sparse[ours]:.1f} x less",
             ">= 4", "-", "-"]  # fmt: skip
    return {"rows": [cells], "megabytes": sizes}


def peak(args: argparse.Namespace, name: str, folder: Path, length: int) -> float:
    model = model_of(args.model, longest(args))
    if name == "write":
        write_files(model, folder)
        return 0.0
    run = contenders(model, folder, args.threads)[name]()
    run(text_of(READ, 64))
    batch = text_of(READ, length)
    return added(lambda: run(batch))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", choices=("minilm", "base"), default="minilm")
    parser.add_argument("--lengths", nargs="*", type=int, default=list(GOALS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", type=int, default=0, help="tokens; 0 leaves it out")
    parser.add_argument("--files", type=Path, help="keeps the exported files here")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    args = parse(parser)
    if args.busy:
        parser.exit(2, "--busy counts one thread of Python, and runtimes have their own\n")
    torch.set_num_threads(args.threads)
    if args.inside:
        name, folder, length = args.inside
        print(peak(args, name, Path(folder), int(length)))
        return
    if args.quick:
        args.lengths, args.repeats = args.lengths[:1], 1
    model = model_of(args.model, longest(args))
    what = {"minilm": "MiniLM", "base": "BERT-base's size (random weights)"}[args.model]
    setting = f"{what}, one text, {PLAN.replace('|', 'and')}, {args.threads} threads"
    setting += f", {args.repeats} rounds"
    record = Record("serving", COLUMNS, setting, args)
    with TemporaryDirectory() as temporary:
        folder = args.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run_inside(args, "write", folder, 0)  # in a process of its own, for its memory
        opens = contenders(model, folder, args.threads)
        if args.memory:
            record.part(f"memory {args.memory}", partial(memory, args, list(opens), folder))
        for length in args.lengths:
            record.part(f"{length}", partial(measure, model, opens, length, args.repeats))
    record.done()


if __name__ == "__main__":
    main()
