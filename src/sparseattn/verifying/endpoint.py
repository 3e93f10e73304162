"""Endpoints that answer texts with vectors: OpenAI's format, or text-embeddings-inference's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from sparseattn.errors import DataError, first_line
from sparseattn.verifying.texts import Source

#: Paths that are tried, in this order, on a URL that names none; outputs of tokens prove most.
_PATHS = ("/embed_all", "/embed", "/v1/embeddings")
#: Answers of a server that has no such path.
_ABSENT = (404, 405)

#: Seconds to connect, and to wait for an answer.
_CONNECT, _ANSWER = 5.0, 60.0


class Endpoint:
    """A URL as a function from texts to vectors.

    Args:
        url: Of the server, or of one of its paths.
        model: The name that an endpoint of OpenAI's format is asked for; what it lists by default.

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
        # Without redirects: what answers is what was asked.
        timeout = httpx.Timeout(_ANSWER, connect=_CONNECT)
        self._client = httpx.Client(timeout=timeout, follow_redirects=False)
        self._model = model
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
        raise DataError(f"{self._url} has none of {', '.join(self._paths)}; give the URL of one")

    def _post(self, path: str, texts: Sequence[Source]) -> httpx.Response:
        if not path.endswith("/embeddings"):
            return self._send("POST", path, {"inputs": list(texts)})
        if self._model is None:
            listed = self._send("GET", path.removesuffix("/embeddings") + "/models")
            try:
                self._model = str(listed.json()["data"][0]["id"])
            except (ValueError, KeyError, IndexError, TypeError):
                self._model = "default"
        return self._send("POST", path, {"model": self._model, "input": list(texts)})

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        url = self._url.copy_with(path=path)
        try:
            return self._client.request(method, url, json=body)
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise DataError(f"{url} does not answer: {said}") from None


def _vectors(answer: httpx.Response, count: int) -> list[Any]:
    """What an answer says of so many texts, in their order."""
    if answer.status_code != httpx.codes.OK:
        said = " ".join(answer.text[:200].split())
        raise DataError(f"{answer.url} answers {answer.status_code}: {said}")
    try:
        vectors = answer.json()
        if isinstance(vectors, dict):  # OpenAI's
            ordered = sorted(vectors["data"], key=lambda each: each["index"])
            vectors = [each["embedding"] for each in ordered]
    except (ValueError, KeyError, TypeError):
        vectors = None
    if not isinstance(vectors, list) or len(vectors) != count:
        said = " ".join(answer.text[:80].split())
        raise DataError(f"{answer.url} answers something else than {count} vectors: {said}")
    return vectors
