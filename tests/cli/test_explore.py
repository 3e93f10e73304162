"""`sparseattn app` refuses what it cannot show before it serves anything."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}"], "neither a study's folder (it has no study.json) nor a model's"),
        (["results/rate-sst2.tar.xz"], "study unpack results/rate-sst2.tar.xz --out FOLDER"),
        (["no/such/folder/here"], "no folder no/such/folder/here"),
        (["--text", "{folder}/none.txt"], "cannot read"),
        (["--port", "{port}"], "cannot use port {port}"),
    ],
)
def test_bad_starts_are_one_line(run, tmp_path, arguments, words) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        filled = [each.format(folder=tmp_path, port=port) for each in arguments]
        status, out, err = run("app", "--no-browser", *filled)
    assert status == 2
    assert out == ""
    assert words.format(port=port) in " ".join(err.split())
    assert err.startswith("error: ")


@pytest.mark.parametrize(
    ("command", "file", "words"),
    [
        ("app", "model/config.json", "the model is in {}/model"),
        ("export", "model/config.json", "the model is in {}/model"),
        ("export", "study.json", "{} is a study, which keeps scores and no weights"),
    ],
)
def test_a_folder_of_ours_that_is_no_model_says_what_it_is(run, tmp_path, command, file, words):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")
    more = ["--to", "onnx", "--out", str(tmp_path / "x.onnx")] if command == "export" else []
    status, _, err = run(command, str(tmp_path), *more)
    assert status == 2
    assert words.format(tmp_path) in " ".join(err.split())
