"""One model is one model, in a folder, in a package and on the Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import sparseattn as sa
from sparseattn.errors import DataError
from sparseattn.models.identity import identity
from tests.models.families import build
from tests.tasks.material import tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("saved") / "m")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "m"))


def cached(files: Path, hub: Path, name: str = "org/mine") -> None:
    """Lays files where huggingface_hub keeps what it downloaded: links, and the head of main."""
    place = hub / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / COMMIT
    for path in (place / "blobs", place / "refs", snapshot):
        path.mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    for number, path in enumerate(sorted(files.iterdir())):
        shutil.copy(path, place / "blobs" / str(number))
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", str(number)))


def told(hub: Path, *names: str, path: Path | None = None) -> list[str]:
    """The identities in a process that sees this cache of the Hub, and no network."""
    code = (
        "import json, sys; from sparseattn.models.identity import identity; "
        "print(json.dumps([identity(name) for name in sys.argv[1:]]))"
    )
    places = [str(path or ""), str(Path(sa.__file__).parents[1])]
    where = {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        env=os.environ | where,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Fetching" not in done.stderr
    return list(json.loads(done.stdout))


def test_it_is_the_same_in_a_folder_a_package_and_on_the_hub(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "lib" / "packed" / "model")
    more = Path(shutil.copytree(folder, tmp_path / "more"))
    for name in ("data_config.json", "modules.json", "README.md", "train_script.py", "vocab.txt"):
        (more / name).write_text("{}")  # tokenizer.json stands for vocab.txt
    cached(more, tmp_path / "hub")
    (more / "1_Pooling").mkdir()
    (more / "1_Pooling" / "config.json").write_text("{}")
    monkeypatch.setenv("MODELS", str(tmp_path))
    names = (str(folder), str(more), "package:packed", "org/mine", "${MODELS}/m", "$MODELS/more")
    found = told(tmp_path / "hub", *names, path=tmp_path / "lib")
    assert len(set(found)) == 1
    assert len(found[0]) == 16
    assert identity(str(folder)) == found[0]


def weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = min(tensors)
    tensors[name].view(-1)[0] += 1e-6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def vocabulary(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    words = json.loads(text)["model"]["vocab"]
    first, second = sorted(words, key=words.get)[-2:]
    text = text.replace(f'"{first}"', '"\0"').replace(f'"{second}"', f'"{first}"')
    (folder / "tokenizer.json").write_text(text.replace('"\0"', f'"{second}"'))


def option(folder: Path) -> None:
    (folder / "added_tokens.json").write_text('{"[NEW]": 1}')


def configuration(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))


def test_what_computes_something_else_is_another(folder, tmp_path):
    """In folders, and alike on the Hub."""
    names, found = ["org/mine"], [identity(str(folder))]
    cached(folder, tmp_path / "hub")
    for change in (weights, vocabulary, option, configuration):
        changed = Path(shutil.copytree(folder, tmp_path / change.__name__))
        change(changed)
        names.append(f"org/{change.__name__}")
        found.append(identity(str(changed)))
        cached(changed, tmp_path / "hub", names[-1])
    assert len(set(found)) == len(names)
    assert told(tmp_path / "hub", *names) == found


def test_vocabulary_files_stand_for_a_tokenizer_that_is_not_there(folder):
    (folder / "tokenizer.json").unlink()
    found = set()
    for word in ("fox", "dog"):
        (folder / "vocab.txt").write_text(f"[PAD]\n{word}\n")
        found.add(identity(str(folder)))
    assert len(found) == 2


def test_every_shard_counts(tmp_path):
    build("bert").save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    before = identity(str(tmp_path))
    tensors = load_file(shards[-1])
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, shards[-1])
    assert identity(str(tmp_path)) != before


def test_of_pickles_only_the_commit_is_known(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    found = []
    for content in (b"not a pickle", b"nor this"):
        (folder / "pytorch_model.bin").write_bytes(content)
        found.append(identity(str(folder)))
    assert found[0] != found[1]
    cached(folder, tmp_path / "hub")
    assert told(tmp_path / "hub", "org/mine") == [f"commit {COMMIT}"]


def test_nothing_is_known_of_what_cannot_be_had(tmp_path):
    assert told(tmp_path, "org/nowhere", "./nowhere", "not a name") == ["", "", ""]


def test_a_variable_that_is_not_set_is_named():
    for asked in (sa.resolve, identity):
        with pytest.raises(DataError, match=r"^'\$NO_SUCH/m' needs the environment variable NO_S"):
            asked("$NO_SUCH/m")
