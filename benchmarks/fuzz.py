"""Damaged input at each door: one of the project's own errors, within a second, and nothing else.

Seeds are mutated in bytes (flips, cuts, repeats, splices, and words of `ODD`) and, where they are
JSON, in values (a node becomes an odd one, goes, or is doubled). A door works in a process of its
own, so that a crash is one more finding. Each finding is printed once a place, with its input in
the working folder. Linux only.

    python benchmarks/fuzz.py [DOOR ...] [--minutes 5] [--seed 0]
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import json
import lzma
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import pyarrow
import torch
import transformers
from pyarrow import parquet
from transformers import BertConfig, BertForSequenceClassification

import sparseattn as sa
from sparseattn.errors import SparseAttnError
from sparseattn.exporting.record import Record
from sparseattn.pattern import catalogue
from sparseattn.report.data import load_study
from sparseattn.study import record
from sparseattn.study.archive import unpack
from sparseattn.study.spec import load_spec
from sparseattn.syntax.cache import ParseCache
from sparseattn.tasks.prepare import read_examples
from sparseattn.tasks.spec import TaskSpec

ROOT = Path(__file__).parents[1]
PACK = ROOT / "results" / "rate-sst2.tar.xz"
#: Seconds of processor time that one input may take, and MB of memory.
SECONDS, MEGABYTES = 1.0, 500
ODD: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**40, 1e308, -0.5, 1e-320, float("nan"), float("inf"),
    "", "\x00", "\ud800", "\x1b[31m", "../x", "/etc/passwd", "~", "$HOME", "$X", "=1", "9" * 5000,
    "a" * 10_000, "neighbor(1)", "dense", [], {}, [[]], [{}], {"": ""}, {"a": None}, [0] * 5000,
    "²", "-", ":", "0:0:0", "::-1", "layers 0: self()", "é", "1e999", [1, "a"], {"a": {"a": []}},
]  # fmt: skip
PARSES = {bytes([n]) * 32: bytes([n]) * 900 for n in range(40)}
Draw = random.Random


class Hang(BaseException):
    """An input took too long."""


@dataclass(frozen=True)
class Door:
    """What is read, and what reads it.

    Attributes:
        seeds: What is mutated.
        read: Reads one input; gets a file of it.
        name: What the file is called.
    """

    seeds: list[bytes]
    read: Callable[[Path], object]
    name: str = "input"


# --- mutations


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if not isinstance(value, (dict, list)):
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from nodes(inner, (*path, key))


def changed(value: Any, draw: Draw) -> Any:
    """A value of JSON with one to three nodes changed."""
    value = copy.deepcopy(value)
    for _ in range(draw.randint(1, 3)):
        *path, last = draw.choice(list(nodes(value))[1:] or [(None,)])
        inside = value
        for key in path:
            inside = inside[key]
        kind = draw.random()
        if last is None:
            value = draw.choice(ODD)
        elif kind < 0.7:
            inside[last] = copy.deepcopy(draw.choice(ODD))
        elif kind < 0.85:
            del inside[last]
        elif isinstance(inside, dict):
            inside[f"{last}{draw.choice(['', '_', 'x'])}"] = inside[last]
        else:
            inside.insert(last, copy.deepcopy(inside[last]))
    return value


def mutated(seeds: list[bytes], draw: Draw) -> bytes:
    """One of the seeds, changed."""
    data = draw.choice(seeds)
    if data[:1] in b"{[" and draw.random() < 0.7:
        try:
            return json.dumps(changed(json.loads(data), draw)).encode()
        except ValueError:
            pass
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        data = edited(data, draw.choice(seeds), draw)[:100_000]
    return data


def edited(data: bytes, other: bytes, draw: Draw) -> bytes:
    """Bytes with a part gone, changed, repeated, or from elsewhere."""
    at, end = sorted(draw.randint(0, len(data)) for _ in range(2))
    end = min(end, at + draw.choice((1, 4, 64, 10**9)))
    far = other[draw.randint(0, len(other)) :]
    new = draw.choice([
        b"", b"", far, data[at:end][:1000] * draw.choice((2, 1000)),
        bytes([data[at] ^ 1 << draw.randrange(8)]) if data[at:] else b"", draw.randbytes(3),
        str(draw.choice(ODD)).encode("utf-8", "surrogatepass"),
    ])  # fmt: skip
    return data[:at] + new + data[draw.choice((at, end, min(at + 1, end))) :]


# --- doors


def text_of(path: Path) -> str:
    """The input as a command line gives it."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def tokens() -> sa.TokenBatch:
    return sa.TokenBatch.of_lengths(12, 7)


def spec_door(path: Path) -> None:
    pattern = sa.parse(text_of(path))
    assert sa.parse(str(pattern)) == pattern, pattern
    sa.Plan.of(pattern).compile(tokens(), (2, 2)).layers[0].dense.sum()


def plan_door(path: Path) -> None:
    plan = sa.Plan.load(path) if path.read_bytes()[:1] == b"{" else sa.Plan.of(text_of(path))
    assert sa.Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    plan.compile(tokens(), (2, 2))


def data_door(kind: str = "classification", **columns: str) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        files = {"train": str(path), "evaluation": str(path)}
        read_examples(TaskSpec(kind=kind, data={"files": files}, columns=columns))  # type: ignore

    return read


def model_door(model: Path) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        shutil.copy(path, model / "config.json")
        sa.load(model)

    return read


def pack_door(path: Path) -> None:
    folder = path.parent / "inside" / "study"
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.parent.mkdir()
    try:
        unpack(path, folder)
        load_study(folder)
    finally:
        assert {each.name for each in folder.parent.iterdir()} <= {"study"}


def trial_door(study: Path) -> Callable[[Path], object]:
    """A file of a trial, or the study's own, is changed under a checksum that is right."""
    trial = next((study / "trials").iterdir())
    names = {each.name.encode(): each for each in trial.iterdir()}

    def read(path: Path) -> None:
        name, _, data = path.read_bytes().partition(b"\n")
        target = names.get(name, study / "study.json")
        before, sealed = target.read_bytes(), (trial / record.RESULT).read_bytes()
        target.write_bytes(data)
        try:
            reseal(trial)
            load_study(study)
        finally:
            target.write_bytes(before)
            (trial / record.RESULT).write_bytes(sealed)

    return read


def reseal(trial: Path) -> None:
    try:
        result = json.loads((trial / record.RESULT).read_bytes())
        result.pop("checksum")
        others = [path for path in sorted(trial.iterdir()) if path.name != record.RESULT]
        result["files"] = {p.name: {
            "bytes": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest(),
        } for p in others}  # fmt: skip
        result["checksum"] = record._checksum(result)
        (trial / record.RESULT).write_bytes(record.encode(result))
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # it stays as it was: damaged


class Parser:
    """Stands for a pipeline of spaCy."""

    tags: tuple[str, ...] = ()


def cache_door(path: Path) -> None:
    folder = path.parent / "cache"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "parses.sqlite")
    cache = ParseCache(Parser(), folder)  # type: ignore[arg-type]
    found = cache.get(set(PARSES))
    assert found.items() <= PARSES.items(), "another parse was read as true"
    cache.put(dict(list(PARSES.items())[:2]))


def written_cache(work: Path) -> bytes:
    cache = ParseCache(Parser(), work / "cache")  # type: ignore[arg-type]
    cache.put(PARSES)
    return cache.path.read_bytes()


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def repacked(data: bytes) -> bytes:
    """A tar is compressed again, so that what is inside is read."""
    return data if data[:6] == b"\xfd7zXZ\x00" else lzma.compress(data, preset=0)


def doors(work: Path) -> dict[str, Door]:
    def encode(*values: object) -> list[bytes]:
        return [v.encode() if isinstance(v, str) else json.dumps(v).encode() for v in values]

    specs = [kind.example for kind in catalogue.values()]
    specs += ["irregular(radii=[1, 2], weights=[0, 1], seed=4)", "global(cls, sep, positions=[3])"]
    specs += ["(neighbor(2) | global(cls)) - segment(query=0) & self()", "elastic(share=0.25)"]
    lines = ["layers 1:, heads 0,2: self()\nlayers 0,-1: neighbor(2)", "layer 1: self()"]
    plans = [sa.Plan.of("layers 0: neighbor(2)\nlayers 1:, heads 1: self()").to_json()]
    studies = sorted((ROOT / "studies").glob("*.yaml"))[:12]
    rows = [{"text": f"word {n}", "label": n % 2} for n in range(4)]
    csv = 'text,label\nword one,0\n"two, words",1\n'
    asked = {"id": "1", "question": "who?", "answers": [{"text": "cat", "answer_start": 2}]}
    squad = {"data": [{"title": "t", "paragraphs": [{"context": "a cat sat", "qas": [asked]}]}]}
    tags = [{"tokens": ["a", "cat"], "tags": ["O", "B-X"]} for _ in range(3)]
    ranks = [{"query": "q", "document": f"d{n}", "rel": n % 2} for n in range(3)]
    packed, study = PACK.read_bytes(), work / "study"
    unpack(PACK, study)
    trial = next((study / "trials").iterdir())
    inner = [study / "study.json", *(p for p in trial.iterdir() if p.suffix == ".json")]
    known = {
        "format": "sparseattn-file-1", "plan": plans[0], "heads": [2, 2], "windows": [None, 4],
        "vocabulary": 99, "special": [0], "longest": 80,
    }  # fmt: skip
    model = work / "model"
    config = (model / "config.json").read_bytes()
    return {
        "spec": Door(encode(*specs), spec_door),
        "plan": Door(encode(*plans, *lines), plan_door, "plan.json"),
        "study": Door([path.read_bytes() for path in studies], load_spec, "study.yaml"),
        "config": Door([config], model_door(model)),
        "pack": Door([packed, lzma.decompress(packed)], pack_door, "pack.tar.xz"),
        "trial": Door([p.name.encode() + b"\n" + p.read_bytes() for p in inner], trial_door(study)),
        "record": Door(encode(known), lambda path: Record.read(text_of(path), path)),
        "csv": Door(encode(csv), data_door(), "data.csv"),
        "json": Door(encode(rows), data_door(), "data.json"),
        "jsonl": Door(encode("\n".join(map(json.dumps, rows))), data_door(), "data.jsonl"),
        "parquet": Door([parquet_of(rows)], data_door(), "data.parquet"),
        "tags": Door(encode(tags), data_door("token-classification"), "data.json"),
        "squad": Door(encode(squad), data_door("question-answering"), "data.json"),
        "ranks": Door(encode(ranks), data_door("ranking", relevance="rel"), "data.json"),
        "parses": Door([written_cache(work)], cache_door),
    }


def lay_out(work: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "max_position_embeddings": 80, "vocab_size": 99}
    model = BertForSequenceClassification(BertConfig(**sizes))
    sa.sparsify(model, "neighbor(2) | global(cls)").save_pretrained(work / "model")


# --- one door


def problem(door: Door, path: Path) -> str | None:
    """What is wrong with how a door takes an input."""
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        door.read(path)
    except SparseAttnError as error:
        if "\n" in str(error):
            return f"an error of two lines: {type(error).__name__}"
    except Hang:
        return f"over {SECONDS:g} s: {place(traceback.format_exc())}"
    except BaseException as error:
        return f"{type(error).__name__}: {place(traceback.format_exc())}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def place(trace: str) -> str:
    """The last lines of the project's own in a traceback."""
    own = [
        line.strip() for line in trace.splitlines() if "/sparseattn/" in line or "fuzz.py" in line
    ]
    return "; ".join(own[-2:])


def memory() -> float:
    """The most that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(door: Door, name: str, work: Path, minutes: float, seed: int) -> None:
    """Runs one door until its time is over; prints what it finds."""

    def hang(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, hang)
    warnings.simplefilter("ignore")
    draw, found, tried, start = random.Random(seed), set(), 0, time.monotonic()
    path = work / "inputs" / name / door.name
    path.parent.mkdir(parents=True)
    while time.monotonic() - start < 60 * minutes:
        data = mutated(door.seeds, draw)
        path.write_bytes(repacked(data) if name == "pack" else data)
        tried, before = tried + 1, memory()
        wrong = problem(door, path)
        if not wrong and memory() - before > MEGABYTES:
            wrong = f"{memory() - before:,.0f} MB more"
        if wrong and wrong not in found:
            found.add(wrong)
            kept = work / f"{name}-{len(found)}-{door.name}"
            shutil.copy(path, kept)
            print(f"  {name}: {wrong}; see {kept}", flush=True)
    print(f"{name}: {tried:,} inputs, {len(found)} findings", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("doors", nargs="*")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    work = Path(tempfile.mkdtemp(prefix="sparseattn-fuzz-"))
    lay_out(work)
    known = doors(work)
    for name in given.doors or known:
        child = os.fork()
        if not child:
            fuzz(known[name], name, work, given.minutes, given.seed)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            print(f"  {name}: the process ended with {status}; see {work}/inputs", flush=True)


if __name__ == "__main__":
    main()
