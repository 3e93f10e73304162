"""The files of the page, and the same in one."""

from __future__ import annotations

import re
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any

from sparseattn.palette import DARK, KINDS, LIGHT

#: The scripts, each after those that it imports.
MODULES = (
    "dom.js",
    "address.js",
    "api.js",
    "look.js",
    "save.js",
    "matrix.js",
    "tokens.js",
    "grid.js",
    "masks.js",
    "heads.js",
    "studies.js",
    "main.js",
)

_IMPORT = re.compile(r"^import .*?;\n", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def _file(name: str) -> str:
    return (files("sparseattn.app") / "static" / name).read_text(encoding="utf-8")


def palette_json() -> dict[str, Any]:
    """Kinds and pages, as scripts need them."""
    return {
        "kinds": [asdict(kind) for kind in KINDS.values()],
        "light": asdict(LIGHT),
        "dark": asdict(DARK),
    }


def palette_css() -> str:
    """The palette as variables, each with its colour on a light and on a dark page."""
    names = ("page", "ink", "quiet", "rule", "band")
    colours = [(name, getattr(LIGHT, name), getattr(DARK, name)) for name in names]
    colours += [(f"kind-{kind.name}", kind.light, kind.dark) for kind in KINDS.values()]
    lines = (f"--{name}: light-dark({light}, {dark});" for name, light, dark in colours)
    return f":root {{ {' '.join(lines)} }}\n"


@cache
def single_page() -> str:
    """The page with its styles and scripts inside, and a place for what it is to show.

    The modules become one script: a file cannot import others when it is opened from a disk.
    """
    script = "".join(_EXPORT.sub("", _IMPORT.sub("", _file(name))) for name in MODULES)
    assert "</script" not in script
    page = _file("index.html")
    page = re.sub(r"\s*<link [^>]*>", "", page)
    page = re.sub(r"\s*<script [^>]*></script>", "", page)
    style = f"<style>\n{palette_css()}{_file('app.css')}</style>"
    saved = '<script type="application/json" id="saved">SAVED</script>'
    page = page.replace("</head>", f"{style}\n</head>")
    return page.replace("</body>", f'{saved}\n<script type="module">\n{script}</script>\n</body>')
