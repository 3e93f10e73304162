"""A figure as files for light and dark pages."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from sparseattn.files import write_whole
from sparseattn.palette import DARK, LIGHT, Page
from sparseattn.report.text import one_line

__all__ = ["SERIES", "Drawing", "styled"]

#: How many series have a colour of their own: `C0`, `C1`, ...
SERIES = len(LIGHT.series)


def _style(page: Page) -> dict[Any, Any]:
    return {
        "figure.facecolor": page.page,
        "savefig.facecolor": page.page,
        "axes.facecolor": page.page,
        "text.color": page.ink,
        "axes.labelcolor": page.ink,
        "axes.edgecolor": page.ink,
        "xtick.color": page.ink,
        "ytick.color": page.ink,
        "grid.color": page.rule,
        "axes.prop_cycle": cycler(color=page.series),
    }


#: By the end of the file's name. Nothing depends on the time or on the user's own settings.
_STYLES = {"": _style(LIGHT), "-dark": _style(DARK)}
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
        png, buffer = folder / f"{self.name}.png", io.BytesIO()
        with styled(""):
            self.draw().savefig(buffer, format="png", dpi=144, metadata={"Software": None})
        write_whole(png, buffer.getvalue())
        return [*paths, png]
