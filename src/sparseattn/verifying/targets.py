"""What can be verified, each as a function from texts to what comes out for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from torch import Tensor

from sparseattn.errors import DataError, SparseAttnError, first_line
from sparseattn.exporting.formats import FORMATS, format_of
from sparseattn.exporting.record import Record
from sparseattn.verifying.judging import Array
from sparseattn.verifying.texts import Source, Text
from sparseattn.words import counted

#: Runs a batch of texts of one length. Of each text come the outputs of its tokens, [length,
#: width], or a vector, [width].
Run = Callable[[Sequence[Text]], list[Array]]

#: Outputs of a file, the most telling first.
_PREFERRED = ("token_embeddings", "last_hidden_state", "sentence_embedding", "logits")

#: Paths that are tried, in this order, on a URL that names none; outputs of tokens prove most.
_PATHS = ("/embed_all", "/embed", "/v1/embeddings")
#: Answers of a server that has no such path.
_ABSENT = (404, 405)

#: Seconds to connect, and to wait for an answer.
_CONNECT, _ANSWER = 5.0, 60.0


def is_file(what: Any) -> bool:
    """Whether it is the path of an exported file."""
    ends = tuple(form.suffix for form in FORMATS.values())
    return isinstance(what, str | Path) and str(what).endswith(ends)


class File:
    """An exported file, opened.

    Raises:
        DataError: There is none, or it cannot be read.
        MissingExtraError: What runs it is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        form = format_of(path)
        if not path.is_file():
            raise DataError(f"there is no file {path}")
        form.check_runs()
        try:
            self._opened = form.run(path, None)
        except SparseAttnError:
            raise
        except Exception as error:
            raise DataError(f"{path} is no file of {form.name}: {first_line(error)}") from error

    def record(self) -> Record:
        """What it says of itself; a `DataError` where it says nothing."""
        return Record.read(self._opened.record, self._path)

    def __call__(self, texts: Sequence[Text]) -> list[Array]:
        """Runs it."""
        ids = torch.cat([text.columns["input_ids"] for text in texts])
        blank = dict.fromkeys(self._opened.inputs, torch.zeros_like(ids))
        known = {n: torch.cat([text.columns[n] for text in texts]) for n in texts[0].columns}
        known |= {"position_ids": torch.arange(ids.shape[1]).expand_as(ids)}
        try:
            outputs = self._opened({**blank, **known})
        except Exception as error:
            raise DataError(
                f"{self._path} does not run on {ids.shape[1]:,} tokens: {first_line(error)}"
            ) from error
        first = next((name for name in _PREFERRED if name in outputs), next(iter(outputs)))
        return [value.double().numpy() for value in outputs[first]]


def of_function(function: Callable[[list[Any]], Any], name: str) -> Run:
    """Wraps a function from texts, as they were given, to vectors; its name is for messages."""

    def run(texts: Sequence[Text]) -> list[Array]:
        answers = function([text.source for text in texts])
        if not hasattr(answers, "__len__") or len(answers) != len(texts):
            raise DataError(f"{name} gives something else than a vector for each text")
        return [_array(answer, text, name) for answer, text in zip(answers, texts, strict=True)]

    return run


def _array(answer: Any, text: Text, name: str) -> Array:
    if isinstance(answer, Tensor):
        answer = answer.detach().cpu().double().numpy()
    try:
        array = np.asarray(answer, dtype=np.float64)
    except (ValueError, TypeError):
        array = np.empty(0)
    if array.ndim not in (1, 2) or not array.size or not np.isfinite(array).all():
        raise DataError(f"{name} gives something else than a vector of finite numbers for a text")
    if array.ndim == 2 and len(array) == 1 < len(text):
        array = array[0]
    if array.ndim == 2 and len(array) != len(text):
        raise DataError(
            f"{name} gives {len(array):,} vectors for the {len(text):,} tokens of a text; is it "
            "cut, or another model's?"
        )
    return array


class Endpoint:
    """A URL as a function from texts to vectors.

    Args:
        url: Of the server, or of one of its paths.
        model: The name that an endpoint of OpenAI's format is asked for where it lists none.

    Raises:
        DataError: It is no http or https URL, does not answer, or answers something else.
    """

    def __init__(self, url: str, model: str | None = None) -> None:
        try:
            self._url = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL as error:
            raise DataError(f"{url!r} is no URL: {first_line(error)}") from None
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise DataError(f"{url!r} is no endpoint: give an http or https URL")
        self._model, self._served = model, ""
        base = self._url.path.rstrip("/")
        self._paths = [base + path for path in _PATHS]
        if base.endswith("/v1"):
            self._paths = [f"{base}/embeddings"]
        elif base.endswith(("/embeddings", "/embed", "/embed_all")):
            self._paths = [base]

    def __call__(self, texts: Sequence[Source]) -> list[Any]:
        """The answer to each text: a vector, or one for each token."""
        for path in self._paths:
            answer = self._post(path, texts)
            if len(self._paths) == 1 or answer.status_code not in _ABSENT:
                self._paths = [path]
                return _vectors(answer, len(texts))
        raise DataError(
            f"{self._url} has none of {', '.join(self._paths)}; give the URL of one "
            f"(the last answers {_said(answer)})"
        )

    def _post(self, path: str, texts: Sequence[Source]) -> httpx.Response:
        if not path.endswith("/embeddings"):
            return self._send("POST", path, {"inputs": list(texts)})
        if not self._served:
            listed = self._send("GET", path.removesuffix("/embeddings") + "/models")
            try:
                names = [str(each["id"]) for each in listed.json()["data"]]
                self._served = self._model if self._model in names else names[0]
            except (ValueError, KeyError, IndexError, TypeError):
                self._served = self._model or "default"
        return self._send("POST", path, {"model": self._served, "input": list(texts)})

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        url = self._url.copy_with(path=path)
        try:
            # Without redirects: what answers is what was asked.
            timeout = httpx.Timeout(_ANSWER, connect=_CONNECT)
            return httpx.request(method, url, json=body, timeout=timeout, follow_redirects=False)
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise DataError(f"{url} does not answer: {said}") from None


def _vectors(answer: httpx.Response, count: int) -> list[Any]:
    """What an answer says of so many texts, in their order."""
    if answer.status_code != httpx.codes.OK:
        raise DataError(f"{answer.url} answers {_said(answer)}")
    try:
        vectors = answer.json()
        if isinstance(vectors, dict):  # OpenAI's
            ordered = sorted(vectors["data"], key=lambda each: each["index"])
            vectors = [each["embedding"] for each in ordered]
    except (ValueError, KeyError, TypeError):
        vectors = None
    if not isinstance(vectors, list) or len(vectors) != count:
        said = " ".join(answer.text[:80].split()) or "nothing"
        wanted = counted(count, "vector")
        raise DataError(f"{answer.url} answers something else than {wanted}: {said}")
    return vectors


def _said(answer: httpx.Response) -> str:
    """The status of a refusal, and what it says."""
    said = answer.headers.get("location") or " ".join(answer.text[:200].split())
    return f"{answer.status_code} {answer.reason_phrase}{': ' * bool(said)}{said}"
