"""From a matplotlib figure to an SVG that belongs to the page it is on."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from sparseattn.report.figures.theme import LIGHT, STAND_INS, Palette, css

__all__ = ["NARROW", "WIDE", "Drawing"]

#: Widths of a drawing in CSS pixels, for screens and for phones.
WIDE, NARROW = 720, 350

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"

#: Nothing in the output depends on the time, on chance or on the user's own settings.
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sparseattn",
    "font.family": "DejaVu Sans",
    "font.size": 11.0,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.unicode_minus": True,
    "path.simplify": False,
}

#: Draws at a width in pixels with these colours.
Draw = Callable[[int, Palette], Figure]


@dataclass(frozen=True)
class Drawing:
    """A figure in every form that is needed.

    Attributes:
        name: Its file name without an ending, and the start of every id in it.
        title: A short title, the text alternative's first line.
        description: What it shows, in words and numbers, for those who do not see it.
        caption: What a reader needs to read it.
        draw: Draws it.
    """

    name: str
    title: str
    description: str
    caption: str
    draw: Draw

    def inline(self, width: int) -> str:
        """The `<svg>` element for an HTML page that sets the colour variables."""
        return ElementTree.tostring(self._element(width), encoding="unicode")

    def standalone(self) -> str:
        """A whole SVG file, which follows the light or dark scheme of who looks at it."""
        root = self._element(WIDE)
        root.set("width", str(WIDE))
        style = ElementTree.Element(f"{{{_SVG}}}style")
        style.text = css("svg") + "svg{background:var(--page)}"
        root.insert(0, style)
        text = ElementTree.tostring(root, encoding="unicode")
        return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'

    def png(self, dots_per_inch: int = 144) -> bytes:
        """A PNG in the light colours, twice as many dots as CSS pixels."""
        with _plain_settings():
            figure = self.draw(WIDE, LIGHT)
            figure.set_facecolor(LIGHT["page"])
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
        return buffer.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """Writes the SVG and the PNG file."""
        svg, png = folder / f"{self.name}.svg", folder / f"{self.name}.png"
        svg.write_text(self.standalone(), encoding="utf-8")
        png.write_bytes(self.png())
        return [svg, png]

    def _element(self, width: int) -> ElementTree.Element:
        with _plain_settings():
            buffer = io.StringIO()
            figure = self.draw(width, STAND_INS)
            figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
        ElementTree.register_namespace("", _SVG)
        ElementTree.register_namespace("xlink", _XLINK)
        root = ElementTree.fromstring(buffer.getvalue())
        prefix = f"{self.name}-{width}-"
        _strip(root)
        for element in root.iter():
            _rewrite(element, prefix)
        self._describe(root, prefix)
        return root

    def _describe(self, root: ElementTree.Element, prefix: str) -> None:
        for name in ("width", "height"):
            root.attrib.pop(name, None)
        root.set("role", "img")
        root.set("aria-labelledby", f"{prefix}title {prefix}desc")
        root.set("style", f"font-family:{_FONT};stroke-linejoin:round;stroke-linecap:butt")
        for place, (tag, text) in enumerate((("title", self.title), ("desc", self.description))):
            element = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{prefix}{tag}"})
            element.text = text
            root.insert(place, element)


@contextmanager
def _plain_settings() -> Iterator[None]:
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        # Labels may hold letters that the measuring font lacks; the page's fonts have them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _strip(root: ElementTree.Element) -> None:
    """Takes out the metadata and the style sheet, which would reach the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)


def _rewrite(element: ElementTree.Element, prefix: str) -> None:
    """Makes ids unique on a page and puts variables in place of the stand-in colours."""
    for name, value in list(element.attrib.items()):
        if name == "id":
            value = prefix + value
        elif name == f"{{{_XLINK}}}href":
            value = f"#{prefix}{value.removeprefix('#')}"
        elif name in ("clip-path", "style"):
            value = re.sub(r"url\(#", f"url(#{prefix}", value)
        if name == "style":
            value = _restyle(value)
        element.set(name, value)


def _restyle(style: str) -> str:
    for role, colour in STAND_INS.items():
        style = style.replace(colour, f"var(--{role})")
    # The page's own font, at the size that was asked for.
    return re.sub(r"font: (?:\w+ )*?([\d.]+px) [^;]+", r"font-size: \1", style)
