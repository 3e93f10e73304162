"""The package in fresh virtual environments of their own, under a folder that is given.

    python tools/environments.py compat FOLDER     oldest and newest dependencies: five families
    python tools/environments.py extras FOLDER     wheel and sdist, with each extra alone

`compat` takes the oldest release of every dependency that pyproject.toml allows, then the newest.
On Linux those are builds of PyTorch with gigabytes of CUDA: mind the disk. `extras` installs what
constraints.txt says. `--keep` keeps environments that passed; `--python` makes them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: What each extra is for, in a line that needs it; the empty one is no extra.
USES = {
    "": "from sparseattn import parse; print(parse('neighbor(2)'))",
    "fast": "import sparseattn.backends.kernels.cpu.kernel",
    "syntax": "import sparseattn, spacy; sparseattn.Annotator",
    "study": "import sparseattn.study.session, sparseattn.study.run_trial, sparseattn.report.page, "
    "sparseattn.tasks.prepare, sparseattn.tasks.tagging, sparseattn.plots as plots; "
    "import sparseattn.tasks.questions, sparseattn.tasks.ranking",
    "demo": "from sparseattn.cli.main import main; import sys; "
    "sys.argv = ['sparseattn', 'show', 'dependency()', 'A cat sat.']; main()",
    "app": "import sparseattn.app.server, uvicorn",
    "onnx": "EXPORT('x.onnx', int8=False)",
    "openvino": "EXPORT('x.xml', int8=True)",
    "docs": "import mkdocs, material, mkdocstrings",
    "ray": "from sparseattn.study.executors.ray import import_ray; import_ray()",
}

EXPORT = """
import sparseattn as sa
from transformers import BertConfig, BertModel
def EXPORT(path, int8):
    model = BertModel(BertConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
                                 intermediate_size=64, vocab_size=99)).eval()
    print(sa.export(sa.sparsify(model, "neighbor(4)"), path, int8=int8))
"""


def check() -> None:
    """Sparsify, train a step, save, load and verify five families; in an environment."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForSequenceClassification

    import sparseattn as sa

    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    small = {
        "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 80, "pad_token_id": 0,
    }  # fmt: skip
    distil = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    for family in ("bert", "roberta", "distilbert", "modernbert", "mpnet"):
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **small | (distil if family == "distilbert" else {}))
        model = AutoModelForSequenceClassification.from_config(config)
        batch = {
            "input_ids": torch.randint(5, 99, (2, 32)),
            "attention_mask": (torch.arange(32) < torch.tensor([[32], [20]])).long(),
        }
        dense = model.eval()(**batch).logits
        sa.sparsify(model, "neighbor(radius=2)")
        loss = model.train()(**batch, labels=torch.tensor([0, 1])).loss
        loss.backward()
        torch.optim.AdamW(model.parameters(), lr=1e-3).step()
        with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
            sparse = model.eval()(**batch).logits
            assert not torch.equal(dense, sparse)
            model.save_pretrained(folder)
            assert torch.equal(sa.load(folder).eval()(**batch).logits, sparse), family
        found = sa.verify(model)
        assert found, found
        sparsity = sa.describe(model, batch).sparsity
        assert 0.8 < sparsity < 0.9, sparsity
        sa.restore(model)
        assert sa.plan_of(model) is None
        print(f"{family}: trained, saved, loaded, verified")


def oldest() -> list[str]:
    """The oldest release of each dependency, its fixes included: torch==2.6.*, say."""
    return [re.sub(r">=([\d.]+).*", r"==\1.*", entry) for entry in PROJECT["dependencies"]]


class Environments:
    """Makes environments under a folder; those that passed are removed."""

    def __init__(self, folder: Path, python: str, keep: bool) -> None:
        self.folder, self.python, self.keep = folder, python, keep
        folder.mkdir(parents=True, exist_ok=True)
        self.failed: list[str] = []

    def built(self) -> tuple[Path, Path]:
        """The wheel and the sdist of a copy of what git tracks."""
        out, source = self.folder / "dist", self.folder / "source"
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(source, ignore_errors=True)
        tracked = ["git", "ls-files", "-z", "src", "*.toml", "README.md", "LICENSE"]
        names = subprocess.run(tracked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.split("\0")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
        python = self._made("build", ["build"])
        subprocess.run([python, "-m", "build", "--outdir", out, source], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
        for file in (wheel, sdist):
            print(f"{file.name}: {file.stat().st_size:,} bytes", flush=True)
        assert wheel.stat().st_size < 2_000_000
        return wheel, sdist

    def _made(self, name: str, packages: list[str]) -> Path:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([self.python, "-m", "venv", place], check=True)
        install = [place / "bin" / "python", "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(install, check=True)
        return place / "bin" / "python"

    def tried(self, name: str, packages: list[str], command: list[str]) -> None:
        """Installs packages and runs a command; says how it went."""
        start = time.monotonic()
        try:
            python = self._made(name, packages)
            subprocess.run([python, *command], check=True, cwd=self.folder)
            subprocess.run([python, "-m", "pip", "check"], check=True)
        except subprocess.CalledProcessError as error:
            print(f"FAILED: {name}: {error}", flush=True)
            self.failed.append(name)
        else:
            print(f"passed: {name}, {time.monotonic() - start:.0f} s", flush=True)
            if not self.keep:
                shutil.rmtree(self.folder / name)


def _compat(made: Environments) -> Iterator[tuple[str, list[str], list[str]]]:
    wheel, _ = made.built()
    command = [str(Path(__file__).resolve()), "check", "."]
    yield "oldest", [str(wheel), *oldest()], command
    yield "newest", ["--upgrade", str(wheel)], command


def _extras(made: Environments) -> Iterator[tuple[str, list[str], list[str]]]:
    wheel, sdist = made.built()
    pins = ["--constraint", str(ROOT / "constraints.txt"), "torch"]
    yield "sdist", [*pins, str(sdist)], ["-c", USES[""]]
    for extra, use in USES.items():
        code = (EXPORT if "EXPORT" in use else "") + use
        what = f"{wheel}[{extra}]" if extra else str(wheel)
        yield f"wheel {extra}".strip(), [*pins, what], ["-c", code]


def main() -> None:
    """Runs what the command line names; status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("compat", "extras", "check"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--only", help="a name, such as oldest or 'wheel onnx'")
    given = parser.parse_args()
    if given.what == "check":
        return check()
    made = Environments(given.folder.resolve(), given.python, given.keep)
    for name, packages, command in {"compat": _compat, "extras": _extras}[given.what](made):
        if given.only in (None, name):
            made.tried(name, packages, command)
    if made.failed:
        sys.exit(f"failed: {', '.join(made.failed)}")


if __name__ == "__main__":
    main()
