"""The texts that the numbers of a study are solved on."""

from __future__ import annotations

import pytest

from sparseattn.study import resolve
from sparseattn.study.resolve import Sample
from sparseattn.study.spec import spec_of
from sparseattn.study.trial_cache import TrialCache
from tests.tasks.material import study_values, task_of, tiny_model
from tests.tasks.test_questions import question


def test_of_many_windows_long_and_short_ones_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(resolve, "TEXTS", 8)
    words = (4, 60, 25, 90, 10, 40, 5, 75)
    rows = [question(f"{'word ' * count}there", "there") for count in words]
    task = task_of(tmp_path, rows, kind="question-answering", stride=8)
    spec = spec_of(study_values(tiny_model(tmp_path / "model"), task))
    cache = TrialCache(tmp_path)
    lengths = cache.prepared(spec.model, spec.task, frozenset(), spec.pipeline).train["length"]
    taken = Sample(spec, (), cache).texts.evaluation["length"]
    assert len(taken) == 8 < len(lengths)
    evenly = [lengths[place * len(lengths) // 8] for place in range(8)]
    assert list(taken) == sorted(evenly, reverse=True)
    # The eight longest would all be full.
    assert sorted(lengths)[-8] == 32 > min(taken)
    assert sum(taken) / 8 == pytest.approx(sum(lengths) / len(lengths), rel=0.1)
