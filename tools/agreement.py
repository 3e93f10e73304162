"""Which kinds of connection the heads of learned plans use, and whether seeds agree on the heads.

For each arm of a study whose plan was learned: the share of heads that use each kind (mean over
seeds), and how much two seeds agree on which heads these are: Cohen's kappa, averaged over pairs of
seeds. Chance is the same after the heads of each layer were shuffled in one of the two (1,000
times): what remains of agreement on layers alone. `p` is the share of shuffles that agree as much,
not corrected for the number of rows.

Then, for one kind, how much arms of different tasks and targets agree (kappa, averaged over pairs
of seeds; in brackets by layers alone), and the heads that use it most often over all these plans.

    python tools/agreement.py runs/kinds-mrpc [results/other.tar.xz ...] [--kind similarity]
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sparseattn.pattern import Joined, Pattern
from sparseattn.plan import Plan
from sparseattn.study.archive import Source

#: Shuffles of the heads of each layer.
SHUFFLES = 1000


def main() -> None:
    """Prints a table a study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+", type=Path, help="folders or packs")
    parser.add_argument("--across", default="union", help="how the compared arms' names begin")
    parser.add_argument("--kind", default="similarity", help="the kind that is compared")
    given = parser.parse_args()
    for path in given.studies:
        print(f"\n{path.name}\n")
        print("| arm | kind | heads | agreement of seeds (kappa) | by layers alone | p |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        for row in rows(path):
            print("| " + " | ".join(row) + " |")
    across(given.studies, given.across, given.kind)


def across(paths: list[Path], prefix: str, kind: str) -> None:
    """Prints how much arms of several studies agree on the heads that use a kind."""
    uses: dict[str, list[Any]] = {}
    for path in paths:
        for spec, plan in plans(path):
            if spec["arm"].startswith(prefix):
                grid = kinds_of(plan).get(kind, shape(plan))
                uses.setdefault(f"{path.name.partition('.')[0]} {spec['arm']}", []).append(grid)
    grids = {name: np.stack(found) for name, found in uses.items()}
    print(f"\n{kind}: agreement over tasks and targets\n")
    print(f"| | {' | '.join(grids)} |\n| --- |{' ---: |' * len(grids)}")
    for one, left in grids.items():
        cells = [f"{between(left, right, one == other)}" for other, right in grids.items()]
        print(f"| {one} | {' | '.join(cells)} |")
    share = np.concatenate(list(grids.values())).mean(axis=0)
    most = sorted(np.ndindex(*share.shape), key=lambda at: -share[at])[:8]
    print(f"\nmost often: {', '.join(f'{a}.{b} ({share[a, b]:.0%})' for a, b in most)}")


def between(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any], same: bool) -> str:
    """Kappa averaged over pairs of plans of two arms, and by layers alone."""
    pairs = [(a, b) for a in range(len(left)) for b in range(len(right)) if not same or a < b]
    found = np.mean([kappa(left[a], right[b]) for a, b in pairs])
    draw = np.random.default_rng(0)
    chance = [
        kappa(left[a], draw.permuted(right[b], axis=1))
        for a, b in pairs
        for _ in range(SHUFFLES // 50)
    ]
    return f"{found:.2f} ({np.mean(chance):.2f})"


def rows(path: Path) -> Iterator[list[str]]:
    """A row for each arm and kind."""
    arms: dict[str, list[Plan]] = {}
    for spec, plan in plans(path):
        arms.setdefault(spec["arm"], []).append(plan)
    for arm, found in sorted(arms.items()):
        for kind in sorted({kind for plan in found for kind in kinds_of(plan)}):
            grids = np.stack([kinds_of(plan).get(kind, shape(plan)) for plan in found])
            share = f"{grids.mean():.0%} of {grids[0].size}"
            yield [arm, kind, share, *agreement(grids)]


def plans(path: Path) -> Iterator[tuple[dict[str, Any], Plan]]:
    """The specs of finished trials that learned a plan while they trained, and the plans."""
    source = Source.at(path)
    for trial in source.study.trials()[0]:
        files = source.files(trial.digest) if trial.digest in source.digests else {}
        if trial.pattern.startswith("learned(") and "plan.json" in files:
            yield trial.model_dump(mode="json"), Plan.from_json(json.loads(files["plan.json"]))


def shape(plan: Plan) -> np.ndarray[Any, Any]:
    """No head at all. Shape: [layers, heads], bool."""
    heads = heads_of(plan)
    return np.zeros((len(heads), heads[0]), dtype=bool)


def heads_of(plan: Plan) -> tuple[int, ...]:
    """The heads of each layer; the oldest plans carry no shape, and all of them are of MiniLM."""
    return plan.shape or (12,) * 6


def kinds_of(plan: Plan) -> dict[str, np.ndarray[Any, Any]]:
    """Which heads use each kind of connection; `off` is a token's own place alone."""
    grids: dict[str, np.ndarray[Any, Any]] = {}
    for layer, groups in enumerate(plan.resolve(heads_of(plan))):
        for heads, pattern in groups:
            for name in names(pattern):
                grids.setdefault(name, shape(plan))[layer, list(heads)] = True
    return grids


def names(pattern: Pattern) -> set[str]:
    """The kinds that a head's pattern joins."""
    if isinstance(pattern, Joined):
        return names(pattern.left) | names(pattern.right)
    return {"off" if pattern.name == "self" else pattern.name}


def agreement(grids: np.ndarray[Any, Any]) -> list[str]:
    """Cohen's kappa over pairs of seeds, its mean with shuffled heads, and p."""
    pairs = list(itertools.combinations(range(len(grids)), 2))
    if not pairs or grids.all() or not grids.any():
        return ["-", "-", "-"]
    found = float(np.mean([kappa(grids[a], grids[b]) for a, b in pairs]))
    draw = np.random.default_rng(0)
    chance = [
        float(np.mean([kappa(grids[a], draw.permuted(grids[b], axis=1)) for a, b in pairs]))
        for _ in range(SHUFFLES)
    ]
    p = (1 + sum(value >= found for value in chance)) / (1 + SHUFFLES)
    return [f"{found:.2f}", f"{np.mean(chance):.2f}", f"{p:.3f}"]


def kappa(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Agreement beyond that of independent choices; 0 where there is none to be had."""
    same = float((one == other).mean())
    a, b = one.mean(), other.mean()
    chance = float(a * b + (1 - a) * (1 - b))
    return 0.0 if chance == 1 else (same - chance) / (1 - chance)


if __name__ == "__main__":
    main()
