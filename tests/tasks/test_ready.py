"""Ready-made tasks on small files that look as the published ones do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sparseattn.errors import DataError
from sparseattn.tasks.prepare import prepare, read_examples
from sparseattn.tasks.ready import ready
from sparseattn.tasks.spec import TaskSpec
from tests.tasks.material import tokenizer

#: Sentences with a quotation mark, which a tsv of GLUE does not escape and a csv does.
PAIRS = [
    ('A plane is taking "off".', "An air plane, taking off.", 5.0),
    ("A man is playing a flute.", "A man is playing a large flute.", 3.8),
    ("Three men are playing chess.", "Two men are playing chess.", 2.6),
    ("A man is smoking.", "A man is skating.", 0.5),
    ("A cat plays.", "The market fell, again.", 0.0),
]
COLUMNS = ("genre", "sentence1", "sentence2", "score")


def written(folder, kind: str) -> dict[str, str]:
    """The files of a split each, as STS-B publishes them (tsv) or as a spreadsheet does (csv)."""
    lines = [COLUMNS, *(("main", *pair) for pair in PAIRS)]
    if kind == "tsv":
        texts = ["\t".join(map(str, line)) for line in lines]
    else:
        texts = [",".join('"' + str(v).replace('"', '""') + '"' for v in line) for line in lines]
    files = {}
    for split, part in (("train", texts), ("evaluation", texts[:5])):
        path = folder / f"{split}.{kind}"
        path.write_text("\n".join(part) + "\n", encoding="utf-8")
        files[split] = str(path)
    return files


def stsb(folder, kind: str = "tsv", **changes) -> TaskSpec:
    data = {"files": written(folder, kind)}
    return TaskSpec(**ready("stsb", {"data": data, "columns": {"label": "score"}, **changes}))


@pytest.mark.parametrize("kind", ["tsv", "csv"])
def test_sts_b_is_read_from_files(tmp_path, kind):
    task = stsb(tmp_path, kind)
    assert read_examples(task).counts == (5, 4)
    prepared = prepare(task, tokenizer(), cache_dir=tmp_path / "cache")
    assert prepared.headline == "pearson"
    assert list(prepared.train["labels"]) == [score for *_, score in PAIRS]
    for row, (one, other, _) in zip(prepared.train, PAIRS, strict=True):
        expected = tokenizer()(one, other)
        assert row["input_ids"] == expected["input_ids"]
        assert row["token_type_ids"] == expected["token_type_ids"]
    batch = prepared.collator([prepared.train[n] for n in range(3)])
    assert batch["labels"].is_floating_point()
    assert batch["labels"].tolist() == pytest.approx([5.0, 3.8, 2.6])
    guesses = np.array([4.0, 4.5, 1.0, 0.2])
    scores = prepared.score(guesses[np.asarray(prepared.evaluation["row"])][:, None])
    true = [score for *_, score in PAIRS[:4]]
    assert scores.metrics == pytest.approx(
        {
            "pearson": stats.pearsonr(true, guesses)[0],
            "spearman": stats.spearmanr(true, guesses)[0],
        }
    )
    assert scores.examples["label"].to_pylist() == true
    squares = [(a - b) ** 2 for a, b in zip(true, guesses, strict=True)]
    assert scores.examples["score"].to_pylist() == pytest.approx(squares)


def test_sts_b_without_its_column_of_scores_says_what_is_there(tmp_path):
    with pytest.raises(DataError, match=r"no column 'label' .*it has: genre, sentence1, sentence2"):
        read_examples(stsb(tmp_path, columns={}))
