"""The server: loopback, one site, bounded, and what is wrong in words."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sparseattn.app import page, start
from sparseattn.app.answers import Answers
from sparseattn.app.jobs import Jobs, Kept
from sparseattn.app.server import make_app
from sparseattn.app.sources import Sources
from sparseattn.errors import AppError, DataError, MissingExtraError, StudyError
from sparseattn.models.names import DEFAULT


@pytest.fixture(scope="module")
def client():
    answers = Answers(Sources({}, (DEFAULT,), {"mine.tsv": [("one",), ("two", "three")]}))
    with closing(answers.jobs):
        yield TestClient(make_app(answers), base_url="http://127.0.0.1:8765")


def test_the_page_may_load_nothing_but_itself(client) -> None:
    for name in ("/", "/palette.css", "/app.css", *(f"/{each}" for each in page.MODULES)):
        response = client.get(name)
        assert response.status_code == 200, name
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", response.text), name


def test_another_host_or_site_is_refused(client) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    refused = client.post("/api/about", json={}, headers={"origin": "https://evil.example"})
    assert refused.status_code == 403
    own = client.post("/api/about", json={}, headers={"origin": "http://127.0.0.1:8765"})
    assert own.json()["models"] == [DEFAULT]
    form = client.post("/api/about", content="{}", headers={"content-type": "text/plain"})
    assert form.json() == {"error": "expected application/json"}, "what a form could send"


@pytest.mark.parametrize(
    ("question", "body", "words"),
    [
        ("masks", {"model": "/etc"}, "unknown model '/etc'"),
        ("masks", {"text": 3}, "text: Input should be a valid string"),
        ("masks", {"text": "a", "layer": "0"}, "layer: Input should be a valid integer"),
        ("study", {"study": "../x"}, "unknown study '../x'"),
        ("heads", {"source": "file:/etc/passwd"}, "unknown file '/etc/passwd'"),
        ("heads", {"source": "web:x"}, "unknown source of texts"),
        ("heads", {"source": "typed: \n"}, "type some texts"),
        ("masks", {"txt": "a"}, "txt: Unexpected keyword argument"),
    ],
)
def test_only_what_it_was_pointed_at_is_read(client, question, body, words) -> None:
    response = client.post(f"/api/{question}", json=body)
    assert response.status_code == 200, "a browser's console would call others failures"
    assert words in response.json()["error"]


def test_a_study_that_cannot_be_read_hinders_no_model(reader, study_folder, tmp_path) -> None:
    (tmp_path / "study.json").write_text("{")
    answers = Answers(Sources({"broken": tmp_path, "tiny": study_folder}))
    answers._readers[DEFAULT] = reader  # the model of the other study
    with closing(answers.jobs):
        client = TestClient(make_app(answers), base_url="http://127.0.0.1")
        broken = client.post("/api/study", json={"study": "broken"})
        assert "is not JSON" in broken.json()["error"]
        for model in (DEFAULT, ""):
            asked = {"model": model, "text": "a", "plan": "full()"}
            assert client.post("/api/masks", json=asked).json()["model"] == DEFAULT


def test_a_study_that_runs_on_is_read_again(study_folder, tmp_path) -> None:
    folder = Path(shutil.copytree(study_folder, tmp_path / "copy"))
    late, *_ = (folder / "trials").iterdir()
    late.rename(tmp_path / "late")
    answers = Answers(Sources({"copy": folder}))
    with closing(answers.jobs):
        client = TestClient(make_app(answers), base_url="http://127.0.0.1")
        for missing in ("Of 9 trials 1 has not run.", ""):
            assert client.post("/api/study", json={"study": "copy"}).json()["missing"] == missing
            if missing:
                (tmp_path / "late").rename(late)


def test_a_large_or_malformed_request_is_refused(client) -> None:
    headers = {"content-type": "application/json"}
    for content, words in (("[]", "an object"), ("{", ""), ("x" * 2_000_001, "2,000,000 bytes")):
        response = client.post("/api/about", content=content, headers=headers)
        assert words in response.json()["error"]


def test_an_unforeseen_error_is_an_answer_too(monkeypatch, caplog) -> None:
    answers = Answers(Sources())
    monkeypatch.setattr(Answers, "_masks", lambda *_: 1 / 0)
    client = TestClient(make_app(answers), base_url="http://127.0.0.1")
    response = client.post("/api/masks", json={})
    assert response.status_code == 500
    assert "ZeroDivisionError" in response.json()["error"]
    assert "a request failed" in caplog.text
    assert client.post("/api/about", json={}).status_code == 200
    answers.jobs.close()


def test_jobs_wait_in_a_bounded_line_and_are_shared() -> None:
    async def play() -> None:
        jobs, gate, calls = Jobs(most=2), threading.Event(), []

        def work() -> int:
            calls.append(1)
            gate.wait(10)
            return 7

        first = [asyncio.create_task(jobs.do("a", work)) for _ in range(3)]
        second = asyncio.create_task(jobs.do("b", work))
        await asyncio.sleep(0.05)
        with pytest.raises(AppError, match="2 requests are waiting"):
            await jobs.do("c", work)
        gate.set()
        assert await asyncio.gather(*first, second) == [7] * 4
        assert len(calls) == 2, "the same job was done once"
        assert await jobs.do("c", work) == 7
        jobs.close()

    asyncio.run(play())


def test_what_is_kept_is_bounded_by_bytes() -> None:
    kept = Kept(100)
    for number in range(5):
        kept.get(number, lambda: "x", lambda _: 40)
    assert kept.get(4, lambda: "new", lambda _: 40) == "x"
    assert kept.get(0, lambda: "new", lambda _: 40) == "new"


def test_sources_tell_studies_from_models(study_folder, tmp_path) -> None:
    found = Sources.of([str(study_folder), DEFAULT, str(study_folder)])
    assert list(found.studies) == ["tiny", "tiny (2)"]
    assert found.models == (DEFAULT,)
    with pytest.raises(DataError, match=r"neither a study's folder .* nor a model's"):
        Sources.of([str(tmp_path)])
    with pytest.raises(StudyError, match="study unpack"):
        Sources.of([str(Path("results/rate-sst2.tar.xz"))])
    with pytest.raises(DataError, match="holds no folder model/"):
        Sources.of(["package:json"])


def test_a_port_in_use_is_said() -> None:
    with closing(socket.socket()) as other:
        other.bind((start.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(AppError, match=f"cannot use port {port}: .*--port 0"):
            start.serve(Sources(), port, False, print)


def test_a_missing_extra_is_said(monkeypatch) -> None:
    monkeypatch.setattr(start, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(MissingExtraError, match=r'needs uvicorn: pip install "sparseattn\[app\]"'):
        start.check_installed()


def test_the_saved_page_asks_no_one() -> None:
    whole = page.single_page()
    assert "import " not in re.sub(r"//.*|\"[^\"]*\"|`[^`]*`", "", whole.split("<script type=")[2])
    assert "<link" not in whole
    assert whole.count("SAVED</script>") == 1
