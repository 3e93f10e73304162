"""Endpoints that are started here: both formats, and what they may answer instead."""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import sparseattn as sa
from sparseattn.verifying import targets
from sparseattn.verifying.verify import verify
from tests.models.families import build, tokenizer
from tests.verifying.test_verify import PLAN, TEXTS, strong


class Server:
    """An endpoint of a model; `paths` says what each path answers."""

    def __init__(self, paths):
        self.asked, owner = [], self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.asked.append((self.path, body))
                self.answer(paths.get(self.path), body)

            def do_GET(self):
                self.answer(paths.get(self.path), None)

            def answer(self, known, body):
                status, content = (404, b"") if known is None else known(body)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                with suppress(BrokenPipeError):  # who asked has read enough
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def serve():
    servers = []

    def start(paths):
        servers.append(Server(paths))
        return servers[-1]

    yield start
    for each in servers:
        each.server.shutdown()
        each.server.server_close()


def states(model, inputs):
    """The outputs of tokens; strings are read by a tokenizer of five words."""
    if isinstance(inputs[0], str):
        inputs = tokenizer(64)(inputs)["input_ids"]
    with torch.no_grad():
        return model(input_ids=torch.tensor(inputs)).last_hidden_state


def openai(model):
    def answer(body):
        vectors = torch.nn.functional.normalize(states(model, body["input"]).mean(dim=1), dim=1)
        data = [{"index": i, "embedding": v} for i, v in enumerate(vectors.tolist())]
        return 200, json.dumps({"data": data[::-1]}).encode()

    return answer


def tei(model, pooled=True):
    def answer(body):
        found = states(model, body["inputs"])
        return 200, json.dumps((found.mean(dim=1) if pooled else found).tolist()).encode()

    return answer


def fixed(status, content=b""):
    return lambda _body: (status, content)


def test_openai(serve):
    model = sa.sparsify(strong(), PLAN)
    names = fixed(200, json.dumps({"data": [{"id": "mine"}]}).encode())
    server = serve({"/v1/embeddings": openai(model), "/v1/models": names})
    found = sa.verify(f"{server.url}/v1", PLAN, TEXTS, model=model)
    assert found, str(found)
    assert {path for path, _ in server.asked} == {"/v1/embeddings"}
    assert {body["model"] for _, body in server.asked} == {"mine"}
    sa.restore(model)
    assert sa.verify(f"{server.url}/v1", PLAN, TEXTS, model=model).verdict == "ignored"


@pytest.mark.parametrize("path", ["/embed", "/embed_all", ""])
def test_text_embeddings_inference(serve, path):
    """Without a path, the one that shows most."""
    model = sa.sparsify(strong(), PLAN)
    server = serve({"/embed": tei(model), "/embed_all": tei(model, pooled=False)})
    found = sa.verify(server.url + path, PLAN, TEXTS, model=model)
    assert found, str(found)
    assert found.checks[0].where.startswith("vector" if path == "/embed" else "output of each")
    assert {path for path, _ in server.asked} == {path or "/embed_all"}
    sa.restore(model)
    assert sa.verify(server.url + path, PLAN, TEXTS, model=model).verdict == "ignored"


def test_strings(serve):
    """A word is changed into one that leaves the other tokens as they are."""
    model = sa.sparsify(strong(), PLAN)
    server = serve({"/embed_all": tei(model, pooled=False)})
    words = ["the fox sat on the mat " * 6, "on the mat the fox sat on the fox " * 4]
    found = sa.verify(server.url, PLAN, words, model=model, tokenizer=tokenizer(64))
    assert found, str(found)
    sent = {text for _, body in server.asked for text in body["inputs"]}
    assert words[0] in sent
    assert all(len(text.split()) == 36 for text in sent)
    assert len(sent) > 20


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (fixed(200, b"<html>hello</html>"), "something else than 1 vector: <html>hello"),
        (fixed(200, b'{"error": "busy"}'), "something else than 1 vector"),
        (fixed(200, b"[[1.0], [2.0]]"), "something else than 1 vector"),
        (fixed(200, b"[[null]]"), "a vector of finite numbers"),
        (fixed(500, b"out of\nmemory"), "answers 500 Internal Server Error: out of memory"),
        (fixed(302), "answers 302 Found: http://127.0.0.1:1/elsewhere"),
    ],
)
def test_answers_that_are_something_else(serve, answer, message):
    server = serve({"/embed": answer})
    with pytest.raises(sa.errors.DataError, match=message) as raised:
        verify(f"{server.url}/embed", PLAN, TEXTS, model=build("bert"))
    assert "\n" not in str(raised.value)


def test_the_served_name(serve, tmp_path):
    """What is served, whatever the folder of the model is called."""
    model = sa.sparsify(strong(), PLAN)
    model.save_pretrained(tmp_path)
    tokenizer(64).save_pretrained(tmp_path)

    def answer(body):
        if body["model"] != "mine":
            return 404, b"model does not exist"
        return openai(model)(body)

    names = fixed(200, json.dumps({"data": [{"id": "mine"}]}).encode())
    server = serve({"/v1/embeddings": answer, "/v1/models": names})
    assert verify(server.url, None, TEXTS, model=str(tmp_path))
    with pytest.raises(sa.errors.DataError, match="404 Not Found: model does not exist"):
        verify(serve({"/v1/embeddings": answer}).url, None, TEXTS, model=str(tmp_path))


def test_no_answer(serve, monkeypatch):
    with pytest.raises(sa.errors.DataError, match="does not answer"):
        verify("http://127.0.0.1:1/embed", PLAN, TEXTS, model=build("bert"))
    with pytest.raises(sa.errors.DataError, match="has none of /embed_all"):
        verify(serve({}).url, PLAN, TEXTS, model=build("bert"))
    release = threading.Event()
    server = serve({"/embed": lambda _: (release.wait(5), (200, b"[]"))[1]})
    monkeypatch.setattr(targets, "_ANSWER", 0.2)
    with pytest.raises(sa.errors.DataError, match="does not answer: timed out"):
        verify(f"{server.url}/embed", PLAN, TEXTS, model=build("bert"))
    release.set()
