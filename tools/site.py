"""Makes the site from the pages as they stand: the README is its first page."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: Pages outside of docs/, and where they stand in the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "SECURITY.md",
}
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
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Makes text of links to what is no page."""
    folder = posixpath.dirname(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        text, target, _ = match.groups()
        found = files.get_file_from_path(posixpath.normpath(posixpath.join(folder, target)))
        return match.group() if found else text

    return _LINK.sub(link, markdown)
