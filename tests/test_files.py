"""Caches lie in one place, and a file is written whole or not at all."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from sparseattn.files import cache_folder, write_whole, writing_whole


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"SPARSEATTN_CACHE": "~/here", "XDG_CACHE_HOME": "/elsewhere"}, "~/here"),
        ({"XDG_CACHE_HOME": "/elsewhere"}, "/elsewhere/sparseattn"),
        ({}, "~/.cache/sparseattn"),
    ],
)
def test_the_cache_folder_is_the_users_choice(monkeypatch, variables, folder):
    for name in ("SPARSEATTN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder).expanduser()


@pytest.mark.parametrize("data", ["gr\u00fcn\n", b"\x00\xff"])
def test_a_file_is_replaced(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_text("old")
    write_whole(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_is_no_regular_file_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="not a regular file") as raised:
            write_whole(path, "new")
        assert raised.value.filename == str(path)
    assert (tmp_path / "pipe").is_fifo()


def test_what_fails_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail():
        with writing_whole(path) as draft:
            assert draft.suffix == ".json"
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "a.json", "x")


@pytest.fixture
def full():
    """No file may grow beyond 1,000 bytes: the error names none, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_names_the_file(tmp_path, full):
    with pytest.raises(OSError, match="File too large") as raised:
        write_whole(tmp_path / "a.json", bytes(2000))
    assert raised.value.filename == str(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())
