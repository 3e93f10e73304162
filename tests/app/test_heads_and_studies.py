"""Heads and studies are those of `probe` and of the report."""

from __future__ import annotations

import numpy as np
import pytest

import sparseattn as sa
from sparseattn.app.heads import PROBED, heads, texts_of_head
from sparseattn.app.studies import OpenStudy
from sparseattn.errors import DataError, PlanError, StudyError
from sparseattn.report import load_study, questions, summarise
from tests.app.conftest import ARMS, EXAMPLES

LINES = [
    ("The cat sat on the mat. The cat was black.",),
    ("Rain fell all night.", "It rained until morning."),
    ("Nothing is repeated here",),
    ("a fox saw a fox and a fox saw a dog",),
]


def test_shares_are_those_of_probe(reader, kept) -> None:
    found = heads(reader, LINES, "similarity(k=1) - sentence()", kept)
    by_kind = {each["kind"]: each for each in found["kinds"]}
    assert list(by_kind) == [*PROBED, "far", "own"]
    for each in by_kind.values():
        alone = sa.probe(reader.encoder, each["pattern"], LINES, tokenizer=reader.tokenizer)
        assert np.allclose(each["mass"], alone.mass, rtol=1e-6)
        assert each["queries"] == alone.queries


def test_texts_of_a_head_are_those_where_probe_finds_most(reader, kept) -> None:
    found = texts_of_head(reader, LINES, "", 2, 9, "similar", kept)["texts"]
    alone = {
        line: float(
            sa.probe(reader.encoder, PROBED["similar"], [line], tokenizer=reader.tokenizer).mass[
                2, 9
            ]
        )
        for line in LINES
    }
    assert [tuple(each["text"]) for each in found] == sorted(alone, key=alone.get, reverse=True)
    for each in found:
        assert each["share"] == pytest.approx(alone[tuple(each["text"])], abs=1e-6)


def test_what_cannot_be_probed_is_said(reader, kept) -> None:
    with pytest.raises(PlanError, match="kind 'nothing'"):
        texts_of_head(reader, LINES, "", 0, 0, "nothing", kept)
    with pytest.raises(PlanError, match="12"):
        texts_of_head(reader, LINES, "", 0, 12, "near", kept)
    with pytest.raises(DataError, match="no texts"):
        heads(reader, [], "", kept)


def test_arms_and_contrasts_are_those_of_the_report(study_folder) -> None:
    study, data = OpenStudy(study_folder), load_study(study_folder)
    arms = {each["address"]: each for each in study.overview["arms"]}
    for each in summarise(data).arms:
        mean = each.metrics["accuracy"]
        shown = arms[each.arm.address]
        assert (shown["mean"], shown["low"], shown["high"]) == (mean.value, mean.low, mean.high)
        assert len(shown["trials"]) == 3
    (asked,) = questions(data)
    (shown,) = study.contrasts["questions"]
    assert shown["answer"] == asked.answer
    (one,), (theirs,) = shown["comparisons"], asked.comparisons
    assert (one["difference"], one["p"]) == (theirs.result.difference, theirs.p)
    assert one["asked"] == "declared"


def test_a_trial_shows_its_plan_and_what_it_changed(study_folder) -> None:
    study, data = OpenStudy(study_folder), load_study(study_folder)
    rows = data.rows.set_index(["arm", "seed"])["digest"]
    near = list(ARMS)[1]
    found = study.trial(rows[near, 1])
    ours, dense = (data.predictions(rows[name, 1]) for name in (near, "dense"))
    differ = ours["prediction"] != dense["prediction"]
    changed = found["changed"]
    assert len(changed["listed"]) == int(differ.sum()) > 0
    assert changed["better"] + changed["worse"] == int(differ.sum())
    assert changed["better"] - changed["worse"] == ours["score"].sum() - dense["score"].sum()
    assert changed["examples"] == EXAMPLES
    for each in changed["listed"]:
        assert each["texts"][0].startswith(f"Text {each['example']} says")
    assert found["plan"] == "layers :: neighbor(radius=1) | global(cls)"
    assert found["grid"]["patterns"] == [
        {"pattern": "neighbor(radius=1) | global(cls)", "kinds": ["near", "global"]}
    ]
    learned = study.trial(rows["similar", 0])
    assert learned["plan"] == "layers :: similarity(k=2) | global(cls)"
    assert study.trial(rows["dense", 0])["changed"] == {}
    with pytest.raises(StudyError, match="no trial 'x'"):
        study.trial("x")


def test_texts_that_are_gone_are_a_notice(study_folder, monkeypatch) -> None:
    from sparseattn.app import studies

    def gone(_task):
        raise DataError("cannot read data.csv: there is no such file")

    monkeypatch.setattr(studies, "read_examples", gone)
    study = OpenStudy(study_folder)
    digest = study.overview["arms"][1]["trials"][0]["digest"]
    found = study.trial(digest)
    assert found["changed"]["listed"][0]["texts"] == ()
    assert any("there is no such file" in each for each in found["notices"])
