"""A figure as files for light and dark pages."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from sparseattn.files import write_whole
from sparseattn.report.text import one_line

__all__ = ["SERIES", "Drawing", "styled"]

#: Series that any reader can tell apart: hues after Okabe and Ito, "Color universal design", 2008,
#: their lightness chosen such that all pairs stay apart where red, green or blue is not seen, and
#: that each has a contrast of at least 3 to the page.
_LIGHT = ("0072b2", "d77336", "06a788", "85186b", "565027", "91606e", "a574ef", "4c2124")
_DARK = ("58b4ec", "f77d05", "59f3c6", "c092a3", "fadc3f", "846687", "8379f6", "cc3e38")


#: How many series have a colour of their own: `C0`, `C1`, ...
SERIES = len(_LIGHT)


def _style(page: str, ink: str, rule: str, series: Sequence[str]) -> dict[Any, Any]:
    return {
        "figure.facecolor": page,
        "savefig.facecolor": page,
        "axes.facecolor": page,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": rule,
        "axes.prop_cycle": cycler(color=[f"#{colour}" for colour in series]),
    }


#: By the end of the file's name. Nothing depends on the time or on the user's own settings.
_STYLES = {
    "": _style("#ffffff", "#1f2328", "#d8dee4", _LIGHT),
    "-dark": _style("#14181d", "#e6eaef", "#353c45", _DARK),
}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sparseattn",
    "font.size": 9.0,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


@contextmanager
def styled(suffix: str) -> Iterator[None]:
    """Matplotlib's settings for a light page, or with `-dark` for a dark one."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS | _STYLES[suffix])
        # Names may hold letters that the measuring font lacks; the reader's fonts have them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@dataclass(frozen=True)
class Drawing:
    """A figure on a light and on a dark page.

    Attributes:
        name: Its file name without an ending.
        title: A short title.
        description: Its content in words and numbers, for those who do not see it.
        caption: How to read it.
        draw: Draws it with the colours of matplotlib's current settings.
    """

    name: str
    title: str
    description: str
    caption: str
    draw: Callable[[], Figure]

    def svg(self, suffix: str = "") -> bytes:
        """The SVG file for a light page, or with `-dark` for a dark one."""
        buffer = io.BytesIO()
        words = {
            "Title": one_line(self.title, 200),
            "Description": one_line(self.description, 9999),
        }
        with styled(suffix):
            nobody = {"Date": None, "Creator": None}
            self.draw().savefig(buffer, format="svg", metadata={**words, **nobody})
        return buffer.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """Writes `NAME.svg`, `NAME-dark.svg` and `NAME.png`."""
        paths = [folder / f"{self.name}{suffix}.svg" for suffix in _STYLES]
        for path, suffix in zip(paths, _STYLES, strict=True):
            write_whole(path, self.svg(suffix))
        png = folder / f"{self.name}.png"
        with styled(""):
            self.draw().savefig(png, dpi=144, metadata={"Software": None})
        return [*paths, png]
