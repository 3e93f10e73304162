"""What commands that learn are given."""

import pytest

from tests.tasks.material import tiny_model


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A random model that is a sixth as wide as the packaged one, with as many heads."""
    sizes = {"hidden_size": 60, "num_hidden_layers": 6, "num_attention_heads": 12}
    folder = tmp_path_factory.mktemp("models") / "small"
    return tiny_model(folder, **sizes, max_position_embeddings=512)


@pytest.fixture
def study(tmp_path, small_model):
    """A study file on a few sentences, and a small model."""
    rows = "sentence\tlabel\n" + "".join(
        f"{word} film that goes on and on about nothing much\t{label}\n"
        for _ in range(16)
        for word, label in (("a good", 1), ("a bad", 0))
    )
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text(rows, encoding="utf-8")
    path = tmp_path / "study.yaml"
    path.write_text(
        f"""
name: tiny
model: {small_model}
task:
  kind: classification
  data: {{files: {{train: train.tsv, evaluation: dev.tsv}}}}
  columns: {{text: sentence}}
  max_length: 32
training: {{steps: 4, batch_size: 8}}
arms: [dense]
""",
        encoding="utf-8",
    )
    return path
