"""Numbers as people read them."""

from __future__ import annotations

import math
import re

from sparseattn.stats import LearnedRuns

#: Metrics that are no share or correlation, and so are not shown in percent.
_RAW = re.compile(r"(loss|mse|mae|rmse|error|perplexity)$", re.IGNORECASE)

#: Why a mean over two seeds has no ±.
TWO_SEEDS = "In brackets: both values of two seeds, over which an interval says next to nothing."

#: What sparsity is counted over.
COUNTED_OVER = "pairs of real tokens of the evaluation examples, all layers and heads"

#: Stands for what is not known.
NONE = "–"

#: Stands for a number that so few runs cannot give.
TOO_FEW = "too few runs"


def unit(metric: str) -> float:
    """What a metric is multiplied with for display: 100, but 1 for losses and errors."""
    return 1.0 if _RAW.search(metric) else 100.0


def scale(metric: str, what: str = "Means") -> str:
    """Says how a metric and its changes are shown; empty for losses and errors, shown as they are.

    >>> scale("accuracy"), scale("loss")
    ('Means are in percent, changes in points.', '')
    """
    return f"{what} are in percent, changes in points." if unit(metric) == 100 else ""


def spell(metric: str, value: float | None) -> str:
    """A metric's value.

    >>> spell("accuracy", 0.9124), spell("loss", 0.2511), spell("f1", float("nan"))
    ('91.2', '0.251', '–')
    """
    if value is None or math.isnan(value):
        return NONE
    return f"{value * unit(metric):.1f}" if unit(metric) == 100 else f"{value:.3f}"


def detectable(metric: str, size: float) -> str:
    """The smallest true difference that a design finds; half of everything is none at all.

    >>> detectable("accuracy", 0.0481), detectable("accuracy", 2.97)
    ('4.8', 'too few runs')
    """
    return TOO_FEW if unit(metric) == 100 and size >= 0.5 else spell(metric, size)


def points(metric: str, value: float | None) -> str:
    """A difference with its sign; a rounded zero has none.

    >>> points("accuracy", -0.0123), points("accuracy", 0.004), points("accuracy", -0.0001)
    ('−1.2', '+0.4', '0.0')
    """
    text = spell(metric, value)
    if text == NONE:
        return text
    if float(text) == 0:
        return text.removeprefix("-")
    return text.replace("-", "−") if text.startswith("-") else f"+{text}"


def telling(metric: str, low: float, high: float) -> bool:
    """Whether an interval of a difference is narrower than half of everything to each side.

    >>> telling("accuracy", -0.021, 0.003), telling("accuracy", -1.54, 1.81)
    (True, False)
    >>> telling("f1", float("nan"), float("nan"))
    False
    """
    return high - low < (1 if unit(metric) == 100 else math.inf)


def interval(metric: str, low: float, high: float) -> str:
    """The two ends of an interval of a difference.

    >>> interval("accuracy", -0.021, 0.003)
    '−2.1 to +0.3'
    >>> interval("f1", float("nan"), float("nan"))
    '–'
    >>> interval("accuracy", -1.54, 1.81)
    'too few runs'
    """
    if math.isnan(low) or math.isnan(high):
        return NONE
    if not telling(metric, low, high):
        return TOO_FEW
    return f"{points(metric, low)} to {points(metric, high)}"


def interval_told(metric: str, low: float, high: float) -> str:
    """An interval of a difference in a sentence; empty where there is none.

    >>> interval_told("accuracy", -0.021, 0.003), interval_told("accuracy", -1.54, 1.81)
    ('95% interval −2.1 to +0.3', 'too few runs for an interval')
    >>> interval_told("f1", float("nan"), float("nan"))
    ''
    """
    told = interval(metric, low, high)
    if told == NONE:
        return ""
    return f"{told} for an interval" if told == TOO_FEW else f"95% interval {told}"


def learned(metric: str, runs: LearnedRuns) -> str:
    """How many runs learned the task, and the mean of those that did.

    >>> learned("f1", LearnedRuns(2, 3, 0.5605)), learned("f1", LearnedRuns(0, 3, float("nan")))
    ('2 of 3 (56.0)', '0 of 3')
    """
    mean = f" ({spell(metric, runs.mean)})" if runs.runs else ""
    return f"{runs.runs} of {runs.of}{mean}"


def fraction(value: float | None) -> str:
    """A share in percent.

    >>> fraction(0.7834), fraction(None)
    ('78.3%', '–')
    """
    return NONE if value is None or math.isnan(value) else f"{value:.1%}"


def count(value: float | None) -> str:
    """A number with one decimal, or none from 100 on.

    >>> count(17.25), count(1234.0)
    ('17.2', '1,234')
    """
    if value is None or math.isnan(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def probability(p: float | None) -> str:
    """A p-value with its sign of comparison.

    >>> probability(0.0312), probability(0.00002), probability(1.0)
    ('= 0.031', '< 0.001', '= 1.000')
    """
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def markdown(text: object) -> str:
    r"""Any text as one line of Markdown that shows exactly this text, also within a table.

    >>> print(markdown("a|b `c` <d>"), markdown("# no heading"), markdown("1. no list"))
    a\|b \`c\` &lt;d&gt; \# no heading 1\. no list
    """
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", line)
    return re.sub(r"^([-+#=]|\d+(?=[.)]( |$)))", _escape_start, line)


def _escape_start(found: re.Match[str]) -> str:
    """What would begin a heading, a list or a rule, so that it does not."""
    start = found.group()
    return f"{start}\\" if start.isdigit() else f"\\{start}"
