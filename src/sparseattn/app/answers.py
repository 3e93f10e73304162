"""What the page may ask, checked, and the work that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sparseattn.app import page
from sparseattn.app.jobs import Jobs, Kept
from sparseattn.app.sources import Sources
from sparseattn.errors import DataError, PlanError, SparseAttnError, unknown

Body = Mapping[str, Any]

#: Bytes that runs of models may take together while they are kept.
_KEPT = 32 << 20


@dataclass(eq=False)
class Answers:
    """Answers of one explorer.

    Attributes:
        sources: What it was pointed at.
        jobs: Where the work is done.
    """

    sources: Sources
    jobs: Jobs = field(default_factory=Jobs)
    _kept: Kept = field(default_factory=lambda: Kept(_KEPT))
    _readers: dict[str, Any] = field(default_factory=dict)
    _studies: dict[str, Any] = field(default_factory=dict)

    @property
    def routes(self) -> dict[str, Callable[[Body], Awaitable[Any]]]:
        """What answers each question, by its name."""
        work = {
            "masks": self._masks,
            "reach": self._reach,
            "heads": self._heads,
            "texts": self._texts,
            "study": self._study,
            "contrasts": self._contrasts,
            "trial": self._trial,
        }
        made = {name: partial(self._do, name, answer) for name, answer in work.items()}
        return {"about": self._about, **made}

    async def _do(self, name: str, answer: Callable[[Body], Any], body: Body) -> Any:
        key = (name, *sorted((key, repr(value)) for key, value in body.items()))
        return await self.jobs.do(key, partial(answer, body))

    async def _about(self, _: Body) -> dict[str, Any]:
        """What there is to look at; answered at once, whatever runs."""
        return {
            "models": self.sources.models,
            "studies": list(self.sources.studies),
            "texts": {name: len(texts) for name, texts in self.sources.texts.items()},
            "palette": page.palette_json(),
        }

    def _reader(self, body: Body) -> Any:
        """The model that is asked for, loaded once; studies' models may be asked for, too."""
        from sparseattn.app.reader import Reader

        known = dict.fromkeys(self.sources.models)
        name = _text(body, "model", "") or next(iter(known), "")
        if name not in known:
            known |= dict.fromkeys(self._models_of_studies())
            name = name or next(iter(known), "")
        if not known:
            raise DataError("no model was named; start `sparseattn app MODEL`")
        if name not in known:
            raise DataError(unknown("model", name, known))
        if name not in self._readers:
            self._readers.clear()  # one at a time stays in memory
            self._readers[name] = Reader(name)
        return self._readers[name]

    def _models_of_studies(self) -> Iterator[str]:
        """Of those studies that can be read."""
        for study in self.sources.studies:
            with suppress(SparseAttnError):
                yield self._open_study(study).model

    def _asked(self, body: Body) -> Any:
        from sparseattn.app.masks import Asked

        pair = _text(body, "pair", "")
        whole = ("layer", "head", "top", "left")
        return Asked(
            _text(body, "text", ""),
            pair if pair.strip() else None,
            _text(body, "plan", "full()"),
            **{name: _whole(body, name) for name in whole},
        )

    def _masks(self, body: Body) -> Any:
        from sparseattn.app.masks import masks

        return masks(self._reader(body), self._asked(body), self._kept)

    def _reach(self, body: Body) -> Any:
        from sparseattn.app.masks import reach

        return reach(self._reader(body), self._asked(body), _whole(body, "token"), self._kept)

    def _heads(self, body: Body) -> Any:
        from sparseattn.app.heads import heads

        return heads(self._reader(body), *self._probed(body), self._kept)

    def _texts(self, body: Body) -> Any:
        from sparseattn.app.heads import texts_of_head

        at = _whole(body, "layer"), _whole(body, "head")
        kind = _text(body, "kind", "similar")
        return texts_of_head(self._reader(body), *self._probed(body), *at, kind, self._kept)

    def _probed(self, body: Body) -> tuple[Any, str]:
        """The texts that are probed, and a pattern of one's own."""
        return self._lines(_text(body, "source", "")), _text(body, "own", "")

    def _lines(self, source: str) -> Any:
        """Texts by where they are from: a file, a study, or lines that were typed."""
        kind, _, name = source.partition(":")
        if kind == "file":
            if name not in self.sources.texts:
                raise DataError(unknown("file", name, self.sources.texts))
            return self.sources.texts[name]
        if kind == "study":
            return self._open_study(name).texts
        if kind != "typed":
            raise DataError(unknown("source of texts", kind, ("file", "study", "typed")))
        lines = [tuple(line.split("\t")[:2]) for line in name.splitlines() if line.strip()]
        if not lines:
            raise DataError("type some texts, one a line; a tab between the two of a pair")
        return lines

    def _open_study(self, name: str) -> Any:
        """A study as far as it has run: read again when a trial of it has finished."""
        from sparseattn.app.studies import OpenStudy
        from sparseattn.study.store import Store

        if name not in self.sources.studies:
            raise DataError(unknown("study", name, self.sources.studies))
        folder = self.sources.studies[name]
        finished = Store(folder).finished()
        if self._studies.get(name, (None,))[0] != finished:
            self._studies[name] = finished, OpenStudy(folder)
        return self._studies[name][1]

    def _study(self, body: Body) -> Any:
        return self._open_study(_text(body, "study", "")).overview

    def _contrasts(self, body: Body) -> Any:
        return self._open_study(_text(body, "study", "")).contrasts

    def _trial(self, body: Body) -> Any:
        study = self._open_study(_text(body, "study", ""))
        return study.trial(_text(body, "digest", ""))


def _text(body: Body, name: str, default: str) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise DataError(f"{name} is a text; got {value!r}")
    return value


def _whole(body: Body, name: str) -> int:
    value = body.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PlanError(f"{name} is a whole number; got {value!r}")
    return value
