"""What may be known of tokens beside which are real: names and columns. Loads no torch."""

from __future__ import annotations

#: Tokens that a plan may make global by their kind.
GLOBALS = ("cls", "sep")

#: Batch columns that carry annotations, and the field of `TokenBatch` that each one fills.
COLUMNS = {
    "word_index": "words",
    "sentence_index": "sentences",
    "head_index": "heads",
    "tag_index": "tags",
    "special_tokens_mask": "special",
}

#: Annotations that come from a parse.
PARSED = frozenset({"words", "sentences", "heads", "tags"})

#: The universal part-of-speech tags (Universal Dependencies, version 2), by their number.
TAGS = (
    "adj", "adp", "adv", "aux", "cconj", "det", "intj", "noun", "num", "part", "pron", "propn",
    "punct", "sconj", "sym", "verb", "x",
)  # fmt: skip

#: What a pattern can ask for in `needs`, and how a user gets it.
ANNOTATIONS = {
    "ids": "call the model with input_ids instead of inputs_embeds",
    "special": (
        "pass tokenizer= to sparsify(), trainer={'processing_class': tokenizer} to "
        "learn_degrees(), or a special_tokens_mask column"
    ),
    "separators": "pass tokenizer= to sparsify()",
    "words": "add word_index with sparseattn.Annotator and train with remove_unused_columns=False",
    "sentences": (
        "add sentence_index with sparseattn.Annotator and train with remove_unused_columns=False"
    ),
    "heads": "add head_index with sparseattn.Annotator and train with remove_unused_columns=False",
    "tags": (
        "add tag_index with sparseattn.Annotator(tokenizer, tags=True) and train with "
        "remove_unused_columns=False"
    ),
    "embedding": "sparsify a model that has input embeddings",
}
