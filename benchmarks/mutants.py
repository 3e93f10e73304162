"""How many small faults the tests notice: mutants of the sources, each tested in a fork.

    python benchmarks/mutants.py mutants.jsonl  # from the root; goes on where it stopped

A mutant is drawn by the hash of its line before and after, whatever its file and place: code that
moves keeps its mutants, and runs before and after a move can be compared. Give `GROUPS` the new
paths. No file is changed: a loader hands the mutant to a fork, unseen by processes that a test
starts itself. Needs POSIX.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from multiprocessing import get_context
from pathlib import Path
from typing import Any

PACKAGE, TESTS = Path.cwd() / "src" / "sparseattn", Path.cwd() / "tests"

#: Sources below the package, and the tests that should notice, without `.py`; fast ones first.
GROUPS = {
    "patterns": (
        "patterns/* pattern spec_strings",
        "patterns/test_* golden/test_golden::test_allowed_pairs test_docs degrees/test_discretize",
    ),
    "rules": ("rules", "test_plan patterns/test_* backends/test_conformance"),
    "plan": ("plan selection", "test_plan test_docs models/test_attach"),
    "counting": (
        "counting",
        "test_counting test_plan degrees/test_discretize models/test_describing",
    ),
    "knapsack": ("degrees/knapsack", "degrees/test_knapsack degrees/test_discretize"),
    "statistics": ("stats/*", "stats/test_statistics* report/test_comparison test_docs"),
    "tiles": (
        "backends/kernels/tiles backends/kernels/key_lists backends/kernels/gathered",
        "backends/test_conformance backends/test_rule_cache backends/test_tiled",
    ),
}
#: Mutants in all and what draws them; seconds and bytes that each may use.
COUNT, SEED, TIMEOUT, MEMORY = 200, 0, 900, 8 << 30
#: Imported once, before the forks; none may leave threads that hold locks.
FIRST = "hypothesis matplotlib numba pandas pytest scipy.stats seqeval sklearn.metrics spacy "
FIRST += "statsmodels.api torch._dynamo transformers.models.bert.modeling_bert"

PAIRS = "Lt LtE,Gt GtE,Eq NotEq,Is IsNot,In NotIn,And Or,Add Sub,BitAnd BitOr,LShift RShift,"
PAIRS += "min max,any all,minimum maximum,argmin argmax"
SWAP = dict(pair.split() for pair in PAIRS.split(","))
SWAP |= {new: old for old, new in SWAP.items()}
SWAP |= {"Mult": "Add", "Div": "Mult", "FloorDiv": "Mult", "Mod": "Add", "Pow": "Mult"}

#: file, line, operator; its statement's line before and after; code of the whole module.
Mutant = dict[str, Any]


def variants(node: Any, holder: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
    """What the node in a holder's field `name` may become, and what each change is called."""
    kind = type(node).__name__
    match node:
        case ast.cmpop() | ast.boolop() | ast.operator() if kind in SWAP:
            yield kind, getattr(ast, SWAP[kind])()
        case ast.UnaryOp(ast.Not(), operand):
            yield kind, operand
        case ast.Name(called) if name == "func" and called in SWAP:
            yield called, ast.Name(SWAP[called], ast.Load())
        case ast.Attribute(value, called) if name == "func" and called in SWAP:
            yield called, ast.Attribute(value, SWAP[called], ast.Load())
        case ast.Constant(bool(value)):
            if "defaults" in name or isinstance(holder, ast.AnnAssign | ast.Return):
                yield "bool", ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield "number", ast.Constant(value + 1)
    if (name == "test" and isinstance(holder, ast.If | ast.IfExp)) or name == "ifs":
        ordered = isinstance(node, ast.Compare) and type(node.ops[0]).__name__[:2] in ("Lt", "Gt")
        if ordered or not isinstance(node, ast.Compare | ast.UnaryOp):  # those are negated above
            yield "condition", ast.UnaryOp(ast.Not(), node)


def left_out(node: ast.AST, name: str) -> bool:
    """Whether the node of a field is a type, a message, or nothing that a test should pin down."""
    match node:
        case ast.BinOp(ast.Name(left), ast.BitOr()):
            return left[0].isupper() or isinstance(getattr(builtins, left, None), type)
        case ast.keyword(argument):
            return argument in ("axis", "dim", "maxsize", "stacklevel")
        case ast.Raise() | ast.If(ast.Name("TYPE_CHECKING")):
            return True
    return name in ("annotation", "returns")


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every mutant of a file."""
    tree, file = ast.parse(path.read_text("utf-8")), path.relative_to(PACKAGE).as_posix()

    def walk(holder: ast.AST, statement: ast.AST) -> Iterator[Mutant]:
        for name, value in ast.iter_fields(holder):
            nodes: list[Any] = value if isinstance(value, list) else [value]
            for place, node in enumerate(nodes):
                if not isinstance(node, ast.AST) or left_out(node, name):
                    continue
                inner = node if isinstance(node, ast.stmt) else statement
                for operator, new in variants(node, holder, name):
                    old = ast.unparse(inner).splitlines()
                    nodes[place] = new
                    setattr(holder, name, nodes if isinstance(value, list) else new)
                    lines = zip(old, ast.unparse(inner).splitlines(), strict=False)
                    before, after = next((a.strip(), b.strip()) for a, b in lines if a != b)
                    line = getattr(node, "lineno", getattr(holder, "lineno", 0))
                    found = {"file": file, "line": line, "operator": operator, "before": before}
                    yield found | {"after": after, "code": ast.unparse(tree)}
                    nodes[place] = node
                    setattr(holder, name, value)
                yield from walk(node, inner)

    return walk(tree, tree)


def files(folder: Path, names: str) -> list[Path]:
    """The files of a group, in order; each name must have some."""
    paths = [sorted(folder.glob(f"{name}.py")) for name in names.split()]
    if not all(paths):
        raise SystemExit(f"GROUPS: {folder.name} has nothing for a name in {names!r}")
    return [path for some in paths for path in some]


def tests_of(group: str) -> list[str]:
    """What pytest is given: files, or one test of a file after `::`."""
    split = [name.partition("::") for name in GROUPS[group][1].split()]
    return [f"{path}{colons}{test}" for name, colons, test in split for path in files(TESTS, name)]


def code_lines(path: Path) -> int:
    """Lines on which an expression begins, documentation left out."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    texts = {node.value for node in nodes if isinstance(node, ast.Expr)}
    return len({n.lineno for n in nodes if isinstance(n, ast.expr) and n not in texts})


def drawn() -> dict[str, list[Mutant]]:
    """About `COUNT` mutants, shared among the groups by their lines of code."""
    sources = {group: files(PACKAGE, names) for group, (names, _) in GROUPS.items()}
    sizes = {group: sum(map(code_lines, paths)) for group, paths in sources.items()}
    chosen = {}
    for group, paths in sources.items():
        ranks, seen = {}, Counter[tuple[str, str]]()
        for mutant in (mutant for path in paths for mutant in mutants_of(path)):
            seen[pair := (mutant["before"], mutant["after"])] += 1
            ranks[hashlib.sha256(repr((SEED, *pair, seen[pair])).encode()).hexdigest()] = mutant
        share = round(COUNT * sizes[group] / sum(sizes.values()))
        chosen[group] = [ranks[rank] for rank in sorted(ranks)[:share]]
    return chosen


class Loader(SourceFileLoader):
    """Finds and loads modules whose code is given, under the names of their files."""

    code: dict[str, str] = {}  # noqa: RUF012

    @classmethod
    def find_spec(cls, name: str, path: Any = None, _: Any = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.origin in cls.code:
            spec.loader = cls(name, spec.origin)
        return spec

    def get_code(self, _: str) -> Any:
        """See `importlib.abc.InspectLoader`."""
        return compile(self.code[self.path], self.path, "exec", dont_inherit=True)


def tested(group: str, code: dict[str, str], cpu: float) -> tuple[int, float, str]:
    """Tests code in a fork that may use `cpu` seconds: its status, its seconds, its output."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fork = get_context("fork").Process(target=_in_fork, args=(group, code, cpu, folder))
        fork.start()
        fork.join(TIMEOUT)
        with suppress(ProcessLookupError):  # it, if it takes too long, and what its tests began
            os.killpg(fork.pid or 0, signal.SIGXCPU)
        fork.join()
        output = Path(folder, "output").read_text(errors="replace")
    return fork.exitcode or 0, round(time.monotonic() - begun, 1), output


def _in_fork(group: str, code: dict[str, str], cpu: float, folder: str) -> None:
    import pytest
    from hypothesis import Phase, settings

    os.setsid()
    output = os.open(f"{folder}/output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _ = os.dup2(output, 1), os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    Loader.code = code
    sys.meta_path.insert(0, Loader)
    phases = (Phase.explicit, Phase.generate)  # a failure need not be a small one
    settings.register_profile("mutants", derandomize=True, database=None, phases=phases)
    settings.load_profile("mutants")
    options = f"-x -q -p no:cacheprovider -p no:xdist --basetemp={folder}/tests -W".split()
    options += ["ignore::pytest.PytestAssertRewriteWarning", "-m"]
    options += ["not slow and not gpu and not network", *tests_of(group)]
    sys.exit(int(pytest.main(options)))


def run(out: Path) -> None:
    """Tests the mutants that are not in the file yet, and adds a line for each."""
    rows = map(json.loads, out.read_text("utf-8").splitlines())
    done = {(row["file"], row["line"], row["after"]) for row in rows}
    for group, mutants in drawn().items():
        status, usual, output = tested(group, {}, TIMEOUT)
        if status:
            raise SystemExit(f"{group}: tests fail without a mutant\n{output}")
        print(f"{group}: {usual} s without a mutant; {output.splitlines()[-1]}", flush=True)
        for row in mutants:
            if (row["file"], row["line"], row["after"]) not in done:
                code = {str(PACKAGE / row["file"]): row.pop("code")}
                status, seconds, output = tested(group, code, 30 + 4 * usual)
                verdict = {0: "survived", -signal.SIGXCPU: "timeout"}.get(status, "killed")
                by = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)[:1]
                row |= {"verdict": verdict, "seconds": seconds, "status": status, "by": by}
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"group": group} | row) + "\n")


def report(out: Path) -> None:
    """Prints scores by group, and the survivors."""
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    print("\n| group | killed | of | score |\n| --- | --- | --- | --- |")
    for group in (*GROUPS, "all"):
        verdicts = [row["verdict"] for row in rows if group in (row["group"], "all")]
        killed = len(verdicts) - verdicts.count("survived")
        print(f"| {group} | {killed} | {len(verdicts)} | {killed / max(1, len(verdicts)):.0%} |")
    for row in (row for row in rows if row["verdict"] == "survived"):
        print("\n{file}:{line}\n```diff\n- {before}\n+ {after}\n```".format(**row))


if __name__ == "__main__":
    # NumPy and PyTorch read the first two when they load.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(PACKAGE.parent)}
    sys.path[:0] = [str(PACKAGE.parent), str(TESTS.parent)]
    for module in FIRST.split():
        import_module(module)
    Path(sys.argv[1]).touch()
    run(Path(sys.argv[1]))
    report(Path(sys.argv[1]))
