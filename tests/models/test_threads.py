"""One model in several threads: each forward pass follows the plan of its own batch."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest
import torch

import sparseattn as sa
from tests.models.families import batch, build

PLAN = "neighbor(radius=1) | global(cls) | random(degree=2)"


@pytest.fixture(autouse=True)
def hurried():
    """Threads take turns after a few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_models_are_sparsified_in_two_threads_at_once():
    def run(_):
        for _ in range(10):
            sa.restore(sa.sparsify(build("bert"), PLAN))

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(run, range(2))) == [None, None]


def batches(annotated):
    rows = [batch(lengths) for lengths in ((23, 7, 1), (11, 2), (17, 17, 5), (9,))]
    for row in rows if annotated else []:
        mask = row["attention_mask"].bool()
        row["sentence_index"] = (torch.arange(mask.shape[1]) // 4).expand_as(mask).where(mask, -1)
    return rows


@pytest.mark.parametrize(
    ("family", "kind", "plan"),
    [
        ("bert", "ForSequenceClassification", "sentence()"),
        ("albert", None, PLAN),
        ("mpnet", "ForSequenceClassification", "sentence()"),
        ("deberta-v2", None, PLAN),
        ("plain", None, PLAN),
    ],
)
def test_passes_in_two_threads_keep_their_plans(family, kind, plan, tmp_path):
    model = sa.sparsify(build("bert" if family == "plain" else family, kind), plan)
    if family == "plain":
        model.save_pretrained(tmp_path)
        model = type(model).from_pretrained(tmp_path)
    rows = batches("sentence" in plan)
    with torch.no_grad():
        expected = [model(**row)[0] for row in rows]

    def run(start):
        with torch.no_grad():
            for index in range(start, start + 24):
                at = index % len(rows)
                assert torch.equal(model(**rows[at])[0], expected[at])

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(run, start) for start in (0, 1)]:
            done.result()


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "roformer"])
def test_checkpoints_are_recomputed_in_another_thread(family):
    model = sa.sparsify(build(family).train(), PLAN)
    rows = batches(annotated=False)[:2]

    def gradients():
        model.zero_grad()
        for row in rows:
            loss = model(**row)[0][row["attention_mask"].bool()].square().sum()
            thread = Thread(target=loss.backward)
            thread.start()
            with torch.no_grad():
                model(**rows[1])
            thread.join()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected = gradients()
    model.activation_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(gradients(), expected, atol=1e-5, rtol=1e-4)
