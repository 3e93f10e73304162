"""Rankings: how they are written, what is refused, and one of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

import sparseattn as sa
from sparseattn.counting import MeasuredSparsity
from sparseattn.degrees.calibrate import calibrate_rows
from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.learn import learn_degrees
from sparseattn.degrees.ranking import Ranking, parse_rankings, rankings
from sparseattn.degrees.settings import Settings
from sparseattn.degrees.texts import Texts
from sparseattn.errors import PlanError, SparseAttnError
from sparseattn.patterns.elastic import Elastic
from tests.degrees.small import arguments, classifier, collate, rows


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("neighbor", ["neighbor"]),
        (" neighbor ,similarity()", ["neighbor", "similarity"]),
        (["random", "neighbor(degrees=[0, 1, 8])"], None),
        ("elastic([0,0.25,1]),dependency", ["elastic(degrees=[0.0, 0.25, 1.0])", "dependency"]),
        (("neighbor(degrees=[0,2]) ",), ["neighbor(degrees=[0, 2])"]),
    ],
)
def test_rankings_print_and_parse_back(given, read):
    made = parse_rankings(given)
    assert [str(ranking) for ranking in made] == (read or given)
    assert parse_rankings(",".join(map(str, made))) == made
    assert Settings(over=given).over == tuple(map(str, made))


def test_every_ranking_is_found_by_its_name():
    names = ["dependency", "elastic", "neighbor", "other_sentence_similarity", "random"]
    assert list(rankings) == [*names, "similarity"]
    for name, kind in rankings.items():
        assert str(kind()) == name
        pattern = name.removeprefix("other_sentence_")
        for longest in (1, 2, 25, 700):
            degrees = kind().default_degrees(longest)
            assert kind(degrees).degrees == degrees
            assert kind().pattern(degrees[1]).name == pattern


@pytest.mark.parametrize(
    ("longest", "over", "degrees"),
    [
        (64, "neighbor", (0, 1, 2, 4, 8, 16, 32, 64)),
        (65, "neighbor", (0, 1, 2, 4, 8, 16, 32, 64)),
        (66, "neighbor", (0, 1, 2, 4, 8, 16, 32, 64, 128)),
        (1, "neighbor", (0, 1)),
        (3, "elastic", (0, 0.3333, 0.6667)),
        (64, "neighbor(degrees=[0, 3])", (0, 3)),
    ],
)
def test_windows_reach_across_the_longest_text(longest, over, degrees):
    assert Candidates.up_to(parse_rankings(over), longest).degrees == (degrees,)


def test_elastic_ranks_are_the_rounding_of_the_pattern():
    """Also where a share times a length is half a token, but for the last bit."""
    kind, shares = rankings["elastic"], [n / 2000 for n in range(0, 2001, 25)]
    for length in range(1, 260, 3):
        tokens = sa.TokenBatch.of_lengths(length)
        ranks = kind().ranks(tokens, 0, 1.0)[0]
        for share in shares:
            (band,) = Elastic(share).rule(tokens).parts
            radius = min(int(band.radius[0, 0]), length - 1)
            assert int((ranks[0] <= share).sum()) == radius + 1


WHOLE = "must be ascending whole numbers, the first 0"
SHARES = "must be ascending shares of the length from 0 to 1, the first 0"


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ("neighbour", r"unknown ranking 'neighbour' \(did you mean 'neighbor'\?\); choose from: d"),
        ("neighbour()", r"unknown ranking 'neighbour' \(did you mean"),
        ("neighbor,", "the name of a ranking is missing between or after commas"),
        ("neighbor(", r"expected a ranking, found the end; at column 10 of 'neighbor\('"),
        ("neighbor(degrees=[0, 1]", "expected ',', found the end"),
        ("neighbor() | random()", "'|' does not join rankings"),
        ("neighbor(radius=3)", r"neighbor\(\): unknown argument 'radius'"),
        ("neighbor([0, 1], [0, 2])", r"neighbor\(\) takes at most 1 argument \(degrees\); got 2"),
        ("neighbor, neighbor(degrees=[0, 1])", "a ranking is given twice: neighbor, neighbor"),
        ("", "over: at least one ranking is needed, such as neighbor"),
        ([], "over: at least one ranking is needed, such as neighbor"),
        (3, r"over: rankings are a list, such as \[neighbor\]; got 3"),
        (["neighbor", 3], "over: a ranking is named by a string; got 3"),
        ("neighbor(degrees=3)", r"neighbor: degrees 3 must be a list, such as \[0, 1\]"),
        ("neighbor(degrees=all)", "neighbor: degrees 'all' must be a list"),
        ("neighbor(degrees=[0, x])", "neighbor: 'x' of its degrees is not a number"),
        ("neighbor(degrees=[1, 2])", rf"neighbor: degrees \[1, 2\] {WHOLE}"),
        ("neighbor(degrees=[0, 4, 2])", rf"neighbor: degrees \[0, 4, 2\] {WHOLE}"),
        ("neighbor(degrees=[0, 2, 2])", WHOLE),
        ("neighbor(degrees=[0, 1.5])", WHOLE),
        ("neighbor(degrees=[0, true])", WHOLE),
        ("neighbor(degrees=[-1, 0])", WHOLE),
        ("neighbor(degrees=[])", rf"neighbor: degrees \[\] {WHOLE}"),
        ("neighbor(degrees=[0])", r"neighbor: degrees \[0\] leave nothing to choose"),
        ("elastic(degrees=[0, 1.5])", rf"elastic: degrees \[0, 1.5\] {SHARES}"),
        ("elastic(degrees=[0, 1e999])", SHARES),
    ],
)
def test_what_is_refused(over, message):
    with pytest.raises(SparseAttnError, match=message) as caught:
        parse_rankings(over)
    assert "\n" not in str(caught.value)
    with pytest.raises(SparseAttnError, match=message):
        Settings(over=over)


def test_too_many_combinations_are_refused():
    many = parse_rankings(
        ",".join(f"{name}(degrees={list(range(30))})" for name in ("neighbor", "similarity"))
    )
    random = parse_rankings(f"random(degrees={list(range(23))})")
    Candidates((*many, *parse_rankings("random(degrees=[0, 1])")))
    message = "41,400 combinations of degrees for a head: the most is 20,000"
    with pytest.raises(PlanError, match=message):
        Candidates((*many, *random))


@pytest.mark.parametrize("off", [True, False])
def test_global_tokens_that_are_not_possible_are_refused(off):
    with pytest.raises(SparseAttnError, match="cls, sep"):
        Candidates(parse_rankings("neighbor(degrees=[0, 1])"), ("bos",), off)


@pytest.fixture
def comb() -> Iterator[type[Ranking]]:
    @dataclass(frozen=True)
    class Comb(Ranking):
        """Every second neighbour, by its distance."""

        name: ClassVar[str] = "comb"

        def default_degrees(self, longest):
            return (0, 1, 2, 3, max(4, longest))

        def pattern(self, degree):
            return sa.dilated(int(degree), 2)

        def ranks(self, tokens, layer, most):
            place = torch.arange(tokens.length)
            distance = (place[:, None] - place).abs()[None]
            return torch.where(distance % 2 == 0, distance // 2, most + 1)

    yield Comb
    rankings.discard("comb")


def test_a_ranking_of_ones_own_learns_and_calibrates(comb, tmp_path):
    over = ["neighbor(degrees=[0, 1, 3])", "comb"]
    assert parse_rankings(over)[1] == comb()
    data, model = rows(), classifier()
    made = calibrate_rows(model, data, collate, 0.7, Settings(over=over)).plan
    learned = learn_degrees(
        model,
        data,
        0.7,
        over=over,
        arguments=arguments(tmp_path, 12),
        trainer={"data_collator": collate},
    )
    assert learned.costs.candidates.degrees == ((0, 1, 3), (0, 1, 2, 3, 24))
    for plan in (made, learned.plan):
        assert "dilated(" in str(plan)
        tokens = Texts(model, data, collate).tokens(plan)
        assert MeasuredSparsity.of(plan, tokens, [4] * 3).sparsity == pytest.approx(0.7, abs=0.02)
    rankings.discard("comb")
    with pytest.raises(PlanError, match="unknown ranking 'comb'; choose from: dependency"):
        parse_rankings(over)
