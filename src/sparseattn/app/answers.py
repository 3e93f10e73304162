"""What the page may ask, checked, and the work that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sparseattn.app import page
from sparseattn.app.asked import Asked
from sparseattn.app.jobs import Jobs, Kept
from sparseattn.app.sources import Sources
from sparseattn.errors import DataError, SparseAttnError, unknown

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
    def routes(self) -> dict[str, Callable[[Asked], Awaitable[Any]]]:
        """What answers each question, by its name."""
        work: dict[str, Callable[[Asked], Any]] = {
            "masks": self._masks,
            "reach": self._reach,
            "heads": self._heads,
            "texts": self._texts,
            "study": lambda asked: self._open_study(asked.study).overview,
            "contrasts": lambda asked: self._open_study(asked.study).contrasts,
            "trial": lambda asked: self._open_study(asked.study).trial(asked.digest),
        }
        made = {name: partial(self._do, name, answer) for name, answer in work.items()}
        return {"about": self._about, **made}

    async def _do(self, name: str, answer: Callable[[Asked], Any], asked: Asked) -> Any:
        return await self.jobs.do((name, asked), partial(answer, asked))

    async def _about(self, _: Asked) -> dict[str, Any]:
        """What there is to look at; answered at once, whatever runs."""
        return {
            "models": self.sources.models,
            "studies": list(self.sources.studies),
            "texts": list(self.sources.texts),
            "palette": page.palette_json(),
        }

    def _reader(self, name: str) -> Any:
        """The model that is asked for, loaded once; studies' models may be asked for, too."""
        from sparseattn.app.reader import Reader

        known = dict.fromkeys(self.sources.models)
        name = name or next(iter(known), "")
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

    def _masks(self, asked: Asked) -> Any:
        from sparseattn.app.masks import masks

        return masks(self._reader(asked.model), asked, self._kept)

    def _reach(self, asked: Asked) -> Any:
        from sparseattn.app.masks import reach

        return reach(self._reader(asked.model), asked, self._kept)

    def _heads(self, asked: Asked) -> Any:
        from sparseattn.app.heads import heads

        lines = self._lines(asked.source)
        return heads(self._reader(asked.model), lines, asked.own, self._kept)

    def _texts(self, asked: Asked) -> Any:
        from sparseattn.app.heads import texts_of_head

        lines, at = self._lines(asked.source), (asked.layer, asked.head)
        reader = self._reader(asked.model)
        return texts_of_head(reader, lines, asked.own, *at, asked.kind, self._kept)

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
