"""The study files that come with the project."""

import pytest

from sparseattn.study.grid import patterns
from sparseattn.study.spec import load_spec
from tests.study import fakes

STUDIES = sorted((fakes.ROOT / "studies").glob("*.yaml"))

#: Published before the control was there, or to repeat what was published; those that choose a
#: default, take a kind away, or confirm; those that compare their fresh models with fixed plans.
WITHOUT = (
    *("learned-sst2-dev", "paper-mini"),
    *("over-mrpc", "over-rte", "over-squad", "over-sst2", "without-mrpc", "kinds-answers"),
    *("base-learned-mrpc", "base-learned-sst2", "base-start-sst2", "start-squad"),
)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_can_be_read_and_carries_the_control_of_a_learned_plan(path, monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSEATTN_DATA", str(tmp_path))
    spec = load_spec(path)
    assert spec.name == path.stem
    written = [pattern for arm in spec.arms for pattern in patterns(arm)]
    learned = any(pattern.startswith("learned(") for pattern in written)
    if learned and path.stem not in WITHOUT:
        assert any(pattern.startswith("retrained(arm=learned(") for pattern in written)
        of = {arm.name: patterns(arm) for arm in spec.arms}
        asked = [pair for pairs in spec.contrasts.values() for pair in pairs]
        assert any(
            [f"retrained(arm={plan})" for plan in of.get(a, ())] == of.get(b) for a, b in asked
        )
