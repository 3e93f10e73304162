"""A picture with its content in words, and as files: SVG, PNG, PDF, one page of HTML.

Loads matplotlib when something is drawn.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseattn.errors import DataError, MissingExtraError
from sparseattn.files import write_whole
from sparseattn.palette import DARK, LIGHT, Page
from sparseattn.words import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: How many series have a colour of their own: `C0`, `C1`, ...
SERIES = len(LIGHT.series)

#: Files that a drawing can be saved as, by the end of their names.
FORMATS = (".png", ".svg", ".pdf", ".html")

#: More marks of a row than this are drawn as pixels, which keeps files small.
MANY = 100

#: The pages that figures are drawn for, by what their files' names have before the ending.
_PAGES = {"": LIGHT, "-dark": DARK}

#: Nothing depends on the time or on the user's own settings.
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

#: What the files of each kind say of their making: neither when nor by what.
_NOBODY: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}

_HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
body{{margin:0 auto;max-width:1240px;padding:1.5rem 1.25rem;background:{light.page};\
color:{light.ink};font:16px/1.55 system-ui,sans-serif}}
h1{{font-size:1.3rem;overflow-wrap:anywhere}}
figure{{margin:0 0 1.5rem}}
.scroll{{overflow-x:auto}}
img{{display:block;width:100%;min-width:min({width}px,560px);max-width:{width}px;height:auto}}
figcaption,.words{{max-width:80ch;overflow-wrap:anywhere;white-space:pre-line}}
@media (prefers-color-scheme:dark){{body{{background:{dark.page};color:{dark.ink}}}}}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<figure>
<div class="scroll" role="region" aria-label="Figure" tabindex="0">
<picture>
<source media="(prefers-color-scheme: dark)" srcset="{dark_uri}">
<img src="{light_uri}" alt="{title}" aria-describedby="words">
</picture>
</div>
<figcaption>{caption}</figcaption>
</figure>
<details>
<summary>In words</summary>
<p class="words" id="words">{description}</p>
</details>
</main>
</body>
</html>
"""


def _style(page: Page) -> dict[Any, Any]:
    from cycler import cycler

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


def _printable(text: str) -> str:
    """Any text without letters that a page cannot hold."""
    return "\n".join(one_line(line, len(line) + 1) for line in text.splitlines())


@contextmanager
def styled(page: Page = LIGHT) -> Iterator[None]:
    """Matplotlib's settings for a light or a dark page."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS | _style(page))
        # Names may hold letters that the measuring font lacks; the reader's fonts have them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty matplotlib figure; sizes in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError(
            'a picture needs matplotlib, which is not there: pip install "sparseattn[study]"'
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


@dataclass(frozen=True)
class Drawing:
    """A figure for a light and for a dark page.

    Attributes:
        name: Its file name without an ending.
        title: A short title.
        description: Its content in words and numbers, for those who do not see it.
        caption: How to read it.
        draw: Draws it for a page, with matplotlib's settings of that page.
    """

    name: str
    title: str
    description: str
    caption: str
    draw: Callable[[Page], Figure]

    def figure(self, page: Page = LIGHT) -> Figure:
        """The drawing as a matplotlib figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        new_figure(1, 1)  # tells that it is missing
        with styled(page):
            return self.draw(page)

    def svg(self, page: Page = LIGHT) -> bytes:
        """The SVG file; it holds title and description."""
        if page not in self._svgs:
            words = {
                "Title": one_line(self.title, 200),
                "Description": one_line(self.description, 9999),
            }
            self._svgs[page] = self._bytes("svg", page, words)
        return self._svgs[page]

    @cached_property
    def _svgs(self) -> dict[Page, bytes]:
        """What was drawn before: a report has each figure in its page and as a file."""
        return {}

    def uri(self, page: Page = LIGHT) -> str:
        """The SVG file as an address that holds it."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg(page)).decode()}"

    def html(self) -> str:
        """A page that needs nothing else: the drawing, light and dark, and its content in words."""
        texts = {name: getattr(self, name) for name in ("title", "caption", "description")}
        return _HTML.format(
            **{name: escape(_printable(text)) for name, text in texts.items()},
            light=LIGHT,
            dark=DARK,
            light_uri=self.uri(LIGHT),
            dark_uri=self.uri(DARK),
            width=round(96 * self.figure().get_figwidth()),
        )

    def _bytes(self, form: str, page: Page, words: dict[str, str] | None = None) -> bytes:
        buffer, figure = io.BytesIO(), self.figure(page)
        with styled(page):
            figure.savefig(buffer, format=form, dpi=144, metadata=(words or {}) | _NOBODY[form])
        return buffer.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """Writes `NAME.svg`, `NAME-dark.svg` and `NAME.png`."""
        paths = [folder / f"{self.name}{suffix}.svg" for suffix in _PAGES]
        for path, page in zip(paths, _PAGES.values(), strict=True):
            write_whole(path, self.svg(page))
        return [*paths, self.save(folder / f"{self.name}.png")]

    def save(self, path: str | Path) -> Path:
        """Writes it, for a light page, into a file; HTML is for both.

        Args:
            path: A name that ends in one of `FORMATS`.

        Raises:
            DataError: The name ends otherwise, or the file cannot be written.
            MissingExtraError: matplotlib is not installed.
        """
        path = Path(path)
        form = path.suffix.lower()
        if form not in FORMATS:
            raise DataError(f"a picture's name ends in {', '.join(FORMATS)}; got {str(path)!r}")
        if form == ".html":
            data = self.html().encode()
        else:
            data = self.svg() if form == ".svg" else self._bytes(form[1:], LIGHT)
        try:
            write_whole(path, data)
        except OSError as error:
            raise DataError(f"cannot write {str(path)!r}: {error.strerror}") from None
        return path
