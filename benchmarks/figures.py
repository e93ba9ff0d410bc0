"""Figures in words: medians, ranges and ratios, as the tables show them.

Never measures, reads or prints: numbers in, text out.
"""

import statistics
from collections.abc import Sequence


def figure(value: float) -> str:
    """Return a number with three digits that count."""
    if value >= 1_000:
        return f"{round(value, -2):,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def shown(values: Sequence[float]) -> str:
    """Return median and range."""
    middle = figure(statistics.median(values))
    return f"{middle} ({figure(min(values))}-{figure(max(values))})" if len(values) > 1 else middle


def ratios(ours: Sequence[float], theirs: Sequence[float], *, more_is_better: bool) -> list[float]:
    """Return how many times better we are, turn by turn: above 1 is better for us.

    Turns are compared with each other, since they were side by side; where some failed it is not
    known which belong together, and the medians are compared. What is nothing or less has no ratio.
    """
    if len(ours) != len(theirs) and ours and theirs:
        ours, theirs = [statistics.median(ours)], [statistics.median(theirs)]
    pairs = [pair for pair in zip(ours, theirs, strict=True) if min(pair) > 0]
    if more_is_better:
        return [mine / other for mine, other in pairs]
    return [other / mine for mine, other in pairs]


def times(found: Sequence[float]) -> str:
    """Return ratios as median and range: `31 (29-33)`; "": there are none."""
    if not found:
        return ""
    texts = [_times(value) for value in (statistics.median(found), min(found), max(found))]
    return f"{texts[0]} ({texts[1]}-{texts[2]})" if len(found) > 1 else texts[0]


def _times(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}" if value >= 3 else f"{value:.2f}"


def spread(values: Sequence[float]) -> float:
    """Return how flat a line is: the largest distance from its middle, as a part of the middle.

    The middle lies halfway between least and most, so that 0.3 means: all are within ± 30 %.
    """
    low, high = min(values), max(values)
    return (high - low) / (high + low) if high + low else 0.0
