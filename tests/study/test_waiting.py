"""Trials that parse their data do it once."""

from sparseattn.study.runner import TrialQueue
from sparseattn.study.trial import TrialSpec


def trial(seed: int, parses: bool = False) -> TrialSpec:
    return TrialSpec.model_validate(
        {
            "model": "m",
            "task": {"kind": "classification", "data": {"package": "p"}},
            "seed": seed,
            "versions": {"torch": "2", **({"spacy": "3"} if parses else {})},
        }
    )


PLAIN = [trial(seed) for seed in range(3)]
PARSED = [trial(seed, parses=True) for seed in range(3)]


def test_one_that_parses_goes_first_and_the_others_after_it_has():
    waiting = TrialQueue([*PLAIN[:2], *PARSED, PLAIN[2]])
    assert waiting.take([]) is PARSED[0]
    assert waiting.take([PARSED[0]]) is PLAIN[0]
    assert waiting.take([PARSED[0], PLAIN[0]]) is PLAIN[1]
    assert waiting.take([PARSED[0]]) is PLAIN[2]
    assert waiting.take([PARSED[0]]) is None, "better to wait"
    assert waiting
    waiting.prepared(PLAIN[0])
    assert waiting.take([PARSED[0]]) is None
    waiting.prepared(PARSED[0])
    assert waiting.take([PARSED[0]]) is PARSED[1]


def test_the_next_one_parses_if_the_first_was_lost():
    waiting = TrialQueue(PARSED[:2])
    first = waiting.take([])
    assert waiting.take([first]) is None
    waiting.put(first)
    assert waiting.take([]) is first
    assert waiting.take([]) is PARSED[1]
    assert waiting.take([]) is None
    assert not waiting


def test_without_a_parse_the_order_is_that_of_the_study():
    waiting = TrialQueue(PLAIN)
    assert [waiting.take(PLAIN) for _ in PLAIN] == PLAIN
