"""Whether what runs keeps to a plan: tokens out of reach change nothing, tokens within do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseattn.errors import DataError
from sparseattn.models.encoder import evaluating
from sparseattn.models.load import load_model, load_part
from sparseattn.plan import Plan
from sparseattn.verifying.changes import Changed, measured
from sparseattn.verifying.judging import IGNORED, KEPT, NARROWER, UNPROVEN, Check, Pairs, judge
from sparseattn.verifying.layers import Inside
from sparseattn.verifying.reach import Reach
from sparseattn.verifying.subject import Subject
from sparseattn.verifying.targets import Endpoint, File, is_file, of_function
from sparseattn.verifying.texts import Text, Vocabulary, read_texts
from sparseattn.verifying.vectors import changed_for, check_vectors
from sparseattn.words import counted

#: Patterns with tokens that all attend to, and that attend to all.
_GLOBAL = re.compile(r"\b(global|bigbird|longformer)\(")
#: What the outputs of tokens are called.
_BY_TOKEN = "output of each token"


@dataclass(frozen=True)
class Verified:
    """Whether a plan is kept; true if it is. `print` shows what was measured.

    Attributes:
        what: What was verified.
        plan: The plan.
        texts: Texts that were run.
        changed: Tokens that were changed in them, one at a time.
        checks: What each kind of output showed.
    """

    what: str
    plan: Plan
    texts: int
    changed: int
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> str:
        """`kept`, or the worst that a check found."""
        found = [check.verdict for check in self.checks]
        return next((each for each in (IGNORED, NARROWER, UNPROVEN) if each in found), KEPT)

    def __bool__(self) -> bool:
        """Whether the plan is kept, and that is proven."""
        return self.verdict == KEPT

    def __str__(self) -> str:
        """The verdict and a line a check."""
        amount = f"{counted(self.texts, 'text')}, {counted(self.changed, 'token')} changed"
        plan = self.plan.spelled.replace("layers :: ", "")
        lines = [f"{self.verdict}: {self.what} under {plan} ({amount})"]
        lines += [f"  {check}" for check in self.checks]
        hidden = any(check.outside for check in self.checks)
        if self.verdict == UNPROVEN and not hidden and _GLOBAL.search(plan):
            lines.append(
                "  the plan's global tokens carry everything to every output, so none can prove "
                "it; what would prove more: the torch model, layer by layer"
            )
        elif self.verdict == UNPROVEN:
            by_token = any(check.where == _BY_TOKEN for check in self.checks)
            more = "" if by_token else "outputs of each token (last_hidden_state, /embed_all), or "
            lines.append(f"  what would prove more: {more}the torch model, layer by layer")
        return "\n".join(lines)


def verify(
    what: Any,
    plan: Any = None,
    texts: Sequence[str] | Sequence[list[int]] | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    changes: int = 16,
) -> Verified:
    """Finds out whether what runs keeps to a plan, by changing tokens.

    A token out of reach must change nothing, and one within reach must change something. Of a torch
    model each attention layer is looked at by itself, too.

    Args:
        what: A torch model (of transformers or sentence-transformers) or its name; the path of an
            exported file; the URL of an endpoint in OpenAI's format or that of
            text-embeddings-inference; or any function from a list of texts to as many vectors, of
            the texts or of their tokens.
        plan: See `Plan.of`; by default that of the model, or that which a file names.
        texts: Strings, or lists of token ids, special tokens included; random tokens by default.
            A function gets them as they are.
        model: The model that should be running, or its name, where `what` is none: it says how many
            layers and heads there are, and how strings become tokens. A file that `export` wrote
            knows all but the latter.
        tokenizer: Instead of the model's.
        changes: Tokens to change in each text.

    Returns:
        The verdict: true if the plan is kept.

    Raises:
        PlanError: There is no plan, or it is for another model.
        DataError: A text or file cannot be used, or is too short for any token to be out of reach;
            an endpoint does not answer, or answers something else.
        MissingExtraError: What runs the file is not installed.
    """
    if type(changes) is not int or changes < 1:
        raise DataError(f"changes is a whole number of tokens, at least 1; got {changes!r}")
    what = str(what) if isinstance(what, Path) else what
    if isinstance(what, str) and re.fullmatch(r"[\w.-]+:\d+(/.*)?", what):
        raise DataError(f"{what!r} is no URL; is it http://{what}?")
    name = what if isinstance(what, str) else getattr(what, "__name__", type(what).__name__)
    owner = getattr(what, "__self__", what)  # of a method
    tokenizer = _tokenizer(what, owner, model) if tokenizer is None else tokenizer
    runs = _opened(what, model, name)
    reference = load_model(model) if isinstance(model, str) else model
    if reference is None:
        reference = next((each for each in (runs, owner) if isinstance(each, nn.Module)), None)
    record = runs.record if isinstance(runs, File) else None
    subject = Subject.of(plan, tokenizer, reference, record)
    texts = subject.random_texts() if texts is None else texts
    read = read_texts(texts, tokenizer, subject)
    vocabulary = Vocabulary(read, tokenizer)
    each_token = isinstance(runs, nn.Module) or runs(read[:1])[0].ndim == 2
    change = _spread if each_token else changed_for
    changed = [change(text, vocabulary, subject, changes) for text in read]
    if isinstance(runs, nn.Module):
        checks, enough = _model_checks(runs, subject, changed, changes), Reach.hides_from_layers
    elif each_token:
        seen = (each.pairs(measured(runs, each.text, each.copies)) for each in changed)
        checks, enough = [_token_check(seen, subject, changed)], Reach.hides_from_tokens
    else:
        checks, enough = [check_vectors(runs, changed, vocabulary)], Reach.hides_from_vector
    _refuse_short(checks, subject, read, enough)
    count = sum(len(each.places) for each in changed)
    return Verified(name, subject.plan, len(read), count, tuple(checks))


def _is_name(what: Any) -> bool:
    """Whether it is the name of a model."""
    return isinstance(what, str) and not is_file(what) and "://" not in what


def _tokenizer(what: Any, owner: Any, model: Any) -> Any:
    """The tokenizer of a wrapper or a name; None without any."""
    for each in (owner, model):
        if isinstance(each, nn.Module) and hasattr(each, "tokenizer"):
            return each.tokenizer
    name = next((each for each in (model, what) if _is_name(each)), None)
    return None if name is None else load_part(name, "AutoTokenizer")


def _opened(what: Any, model: Any, name: str) -> Any:
    """A torch model, or a `Run`."""
    if isinstance(what, nn.Module):
        return what
    if is_file(what):
        return File(Path(what))
    if _is_name(what):
        return load_model(what)
    if isinstance(what, str):
        return of_function(Endpoint(what, model if isinstance(model, str) else None), name)
    if callable(what):
        return of_function(what, name)
    raise DataError(
        "what runs is a torch model or its name, an exported file, a URL or a function; got "
        f"{what!r}"
    )


def _spread(text: Text, vocabulary: Vocabulary, subject: Subject, count: int) -> Changed:
    return Changed.of(text, vocabulary, subject, text.spread(count))


def _model_checks(
    model: nn.Module, subject: Subject, changed: Sequence[Changed], count: int
) -> list[Check]:
    """Each layer, and the outputs where anything is out of their reach."""
    inside = Inside(model, subject)
    with evaluating(model), torch.no_grad():
        layers = zip(*(inside.layer_pairs(each, count) for each in changed), strict=True)
        checks = [
            judge(f"layer {index}", Pairs.joined(layer), full=changed[0].full[index])
            for index, layer in enumerate(layers)
        ]
        if not inside.mixes:
            last = _token_check(map(inside.token_pairs, changed), subject, changed)
            checks += [last] * (last.verdict != UNPROVEN)
    return checks


def _token_check(pairs: Iterable[Pairs], subject: Subject, changed: Sequence[Changed]) -> Check:
    full = all(changed[0].full)
    return judge(_BY_TOKEN, Pairs.joined(list(pairs)), full=full, exact=subject.exact)


def _refuse_short(
    checks: Sequence[Check],
    subject: Subject,
    texts: Sequence[Text],
    enough: Callable[[Reach], bool],
) -> None:
    """Raises a DataError where longer texts would show what these cannot."""
    if not any(check.verdict == UNPROVEN and not check.outside for check in checks):
        return
    longest, length = max(map(len, texts)), subject.shortest(enough)
    if length is not None and length > longest:
        raise DataError(
            f"texts of at most {longest:,} tokens are too short for any to be out of reach under "
            f"this plan: give texts of at least {length:,} tokens"
        )
