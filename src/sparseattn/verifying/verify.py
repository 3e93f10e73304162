"""Whether what runs keeps to a plan: tokens out of reach change nothing, tokens within do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sparseattn.errors import DataError
from sparseattn.models.encoder import random_batch
from sparseattn.plan import Plan
from sparseattn.verifying import enough, vectors, views
from sparseattn.verifying.endpoint import Endpoint
from sparseattn.verifying.judging import IGNORED, KEPT, NARROWER, UNPROVEN, Check, Pairs, judge
from sparseattn.verifying.layers import settled
from sparseattn.verifying.subject import Subject, loaded, plan_for, tokenizer_for
from sparseattn.verifying.targets import Run, is_file, of_file, of_function
from sparseattn.verifying.texts import Text, Vocabulary, read_texts
from sparseattn.verifying.views import Changed
from sparseattn.words import counted

__all__ = ["Verified", "verify"]

#: What the outputs of tokens are called.
_TOKENS_OUT = "output of each token"
#: Tokens of each random text where none are given, at least.
_TOKENS = 64
#: So many of these.
_TEXTS = 3


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
        lines = [f"{self.verdict}: {self.what} under {self.plan.spelled} ({amount})"]
        lines += [f"  {check}" for check in self.checks]
        if self.verdict == UNPROVEN:
            lines.append(f"  {_ADVICE}")
        return "\n".join(lines)


_ADVICE = (
    "what would prove more: outputs of each token (last_hidden_state, /embed_all), or the torch "
    "model, whose layers are looked at one by one"
)


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
        plan: See `Plan.of`; by default that of the model.
        texts: Strings, or lists of token ids, special tokens included; random tokens by default.
            A function gets them as they are.
        model: The model that should be running, or its name, where `what` is none: it says how many
            layers and heads there are, and how strings become tokens.
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
    name = what if isinstance(what, str) else getattr(what, "__name__", type(what).__name__)
    named, tokenizer = model, tokenizer_for(tokenizer, what, model)
    if isinstance(what, str) and not is_file(what) and not what.startswith(("http:", "https:")):
        if "://" in what:
            raise DataError(f"{what!r} is no endpoint: give an http or https URL")
        tokenizer = tokenizer_for(tokenizer, what, what)
        what = loaded(what)
    model = _reference(what, loaded(model))
    subject = Subject.of(plan_for(plan, model), model, tokenizer)
    read = _texts(texts, subject)
    vocabulary = Vocabulary(read, tokenizer)
    if isinstance(what, nn.Module):
        changed = [_spread(text, vocabulary, subject, changes) for text in read]
        checks = _checks_of_model(what, subject, changed, changes)
    else:
        changed, checks = _checks_of_run(
            _run_of(what, named, name), subject, read, vocabulary, changes
        )
    count = sum(len(each.places) for each in changed)
    return Verified(name, subject.plan, len(read), count, tuple(checks))


def _spread(text: Text, vocabulary: Vocabulary, subject: Subject, count: int) -> Changed:
    return Changed.of(text, vocabulary, subject, text.spread(count))


def _texts(texts: Any, subject: Subject) -> list[Text]:
    """The texts, or random ones long enough."""
    if texts is None:
        if subject.encoder is None:
            raise DataError("there are no texts: give some, or model= for random ones")
        wanted = max(_TOKENS, 2 * (enough.shortest(subject, enough.of_vector) or 0))
        length = min(wanted, subject.longest or wanted)
        texts = random_batch(subject.encoder, [length] * _TEXTS)["input_ids"].tolist()
    read = read_texts(texts, subject.tokenizer, subject.plan.needs, subject.special)
    for text in read:
        if len(text) > (subject.longest or len(text)):
            raise DataError(
                f"a text of {len(text):,} tokens is more than the {subject.longest:,} that the "
                "model has positions for"
            )
    return read


def _checks_of_model(
    model: Any, subject: Subject, changed: Sequence[Changed], count: int
) -> list[Check]:
    """Each layer, and the outputs where anything is out of their reach."""
    checks: list[Check] = []
    with settled(model):
        if subject.state is not None:
            parts = [views.layer_pairs(model, subject, each, count) for each in changed]
            for index, layer in enumerate(zip(*parts, strict=True)):
                full = changed[0].full[index]
                checks.append(judge(f"layer {index}", Pairs.joined(layer), full=full))
            _refuse_short(checks, subject, changed, enough.of_layers)
        if not subject.mixes(model):
            pairs = Pairs.joined([views.model_pairs(model, subject, each) for each in changed])
            last = judge(_TOKENS_OUT, pairs, full=all(changed[0].full), exact=subject.exact)
            if not checks or last.verdict != UNPROVEN:
                checks.append(last)
    return checks


def _checks_of_run(
    run: Run, subject: Subject, texts: Sequence[Text], vocabulary: Vocabulary, count: int
) -> tuple[list[Changed], list[Check]]:
    """The outputs of tokens, or a vector."""
    if run([texts[0]])[0].ndim == 2:
        changed = [_spread(text, vocabulary, subject, count) for text in texts]
        pairs = [
            views.token_pairs(each, views.measured(run, each.text, each.copies)) for each in changed
        ]
        check = judge(
            _TOKENS_OUT, Pairs.joined(pairs), full=all(changed[0].full), exact=subject.exact
        )
        needed = enough.of_tokens
    else:
        changed = [vectors.changed_for(text, vocabulary, subject, count) for text in texts]
        check = vectors.check_vectors(run, changed, vocabulary)
        needed = enough.of_vector
    _refuse_short([check], subject, changed, needed)
    return changed, [check]


def _refuse_short(
    checks: Sequence[Check], subject: Subject, changed: Sequence[Changed], needed: enough.Enough
) -> None:
    """Raises a DataError where longer texts would show what these cannot."""
    if not any(check.verdict == UNPROVEN and not check.outside for check in checks):
        return
    longest = max(len(each.text) for each in changed)
    length = enough.shortest(subject, needed)
    if length is not None and length > longest:
        raise DataError(
            f"texts of at most {longest:,} tokens are too short for any to be out of reach under "
            f"this plan: give texts of at least {length:,} tokens"
        )


def _reference(what: Any, model: Any) -> Any:
    """The model that says how many layers there are; None without any."""
    for each in (model, what, getattr(what, "__self__", None)):
        if isinstance(each, nn.Module):
            return each
    return None


def _run_of(what: Any, model: Any, name: str) -> Run:
    if is_file(what):
        return of_file(Path(what))
    if isinstance(what, str):
        return of_function(Endpoint(what, model if isinstance(model, str) else None), name)
    if callable(what):
        return of_function(what, name)
    raise DataError(
        "what runs is a torch model or its name, an exported file, a URL or a function; got "
        f"{what!r}"
    )
