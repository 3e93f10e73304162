"""Makes the site from the pages as they stand: the README is its first page.

Each guide gets a notebook beside it.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))
from guides import notebook  # noqa: E402

#: Pages outside of docs/, and where they stand in the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "SECURITY.md",
}
#: Pictures in HTML, which MkDocs leaves as they are.
_SOURCE = re.compile(r'\b(src|srcset)="(?!https?:)([^"]+)"')
#: Links to other files of the repository stay text.
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that stand outside of docs/."""
    for source, target in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = text.replace('"docs/', '"').replace("(docs/", "(")
        for page, there in PAGES.items():
            text = text.replace(f"({page})", f"({there})")
        files.append(File.generated(config, target, content=text))
    for page in (ROOT / "docs" / "guides").glob("*.md"):
        made = notebook(page.read_text(encoding="utf-8"))
        files.append(File.generated(config, f"guides/{page.stem}.ipynb", content=made))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Makes text of links to what is no page, and names the notebook of a guide."""
    folder, name = posixpath.split(page.file.src_uri)
    if folder == "guides":
        link = f"[Download as a notebook]({name.removesuffix('.md')}.ipynb)"
        markdown = markdown.replace("\n", f"\n\n{link}\n", 1)

    def linked(match: re.Match[str]) -> str:
        text, target, place = match.groups()
        path = posixpath.normpath(posixpath.join(folder, target)).removeprefix("../")
        if not files.get_file_from_path(path):
            return text
        return f"[{text}]({posixpath.relpath(path, folder or '.')}{place or ''})"

    def shown(match: re.Match[str]) -> str:
        found = files.get_file_from_path(posixpath.normpath(posixpath.join(folder, match[2])))
        if found is None:
            raise PluginError(f"{page.file.src_uri} shows {match[2]}, which is not there")
        return f'{match[1]}="{found.url_relative_to(page.file)}"'

    return _SOURCE.sub(shown, _LINK.sub(linked, markdown))
