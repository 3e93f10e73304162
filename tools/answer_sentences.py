"""Pairs of a question and a sentence, from SQuAD: does the sentence hold the answer?

    python tools/answer_sentences.py DATA OUT

DATA holds `train_subset.jsonl.gz` and `dev.jsonl.gz` of SQuAD 1.1, a question a line; OUT gets
`train.jsonl` and `dev.jsonl` for studies/kinds-answers.yaml. As in QNLI a question stands beside a
sentence of its own paragraph. By a fair coin it is the one that holds the answer, or another one,
drawn at random. Train has a pair for each question, dev for one question of each paragraph; they
share no article. Sentences are those of spaCy's rules for English; paragraphs of one sentence are
left out. The same DATA give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import spacy


def pairs(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A pair for each question; its label is 1 if the sentence holds the answer, else 0."""
    split = spacy.blank("en")
    split.add_pipe("sentencizer")
    draw = random.Random(0)
    known: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        context, start = row["context"], row["answers"]["answer_start"][0]
        if context not in known:
            known[context] = [(each.start_char, each.text.strip()) for each in split(context).sents]
        sentences = known[context]
        right = max(at for at, (begin, _) in enumerate(sentences) if begin <= start)
        others = [text for at, (_, text) in enumerate(sentences) if at != right]
        if not others:
            continue
        label = draw.randrange(2)
        sentence = sentences[right][1] if label else draw.choice(others)
        yield {"question": row["question"].strip(), "sentence": sentence, "label": label}


def main() -> None:
    """Writes both files."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of SQuAD")
    parser.add_argument("out", type=Path, help="folder to write to; created if missing")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for source, target in (("train_subset", "train"), ("dev", "dev")):
        with gzip.open(given.data / f"{source}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = list(map(json.loads, lines))
        if target == "dev":
            shuffled = random.Random(0).sample(rows, len(rows))
            rows = list({row["context"]: row for row in shuffled}.values())
        made = list(pairs(rows))
        text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in made)
        (given.out / f"{target}.jsonl").write_text(text, encoding="utf-8")
        print(f"{target}: {len(made):,} pairs, {sum(each['label'] for each in made):,} with answer")


if __name__ == "__main__":
    main()
