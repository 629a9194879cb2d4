"""Tables to figures. Every function takes numbers and returns a ``matplotlib.figure.Figure``; nothing is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# The colours of Okabe & Ito 2008, which people with any colour vision tell apart.
_BLUE, _ORANGE, _RED, _GREY = "#0072B2", "#E69F00", "#D55E00", "#999999"
_STYLES = {"complete": ("o", _BLUE), "pruned": ("v", _ORANGE), "failed": ("x", _RED)}


def optimization_history(
    numbers: Sequence[int], scores: Sequence[float], states: Sequence[str], score_name: str = "mean test score"
) -> Figure:
    """Draw the score of every trial, and the best score so far.

    Parameters
    ----------
    numbers : sequence of int
        The trials' numbers.
    scores : sequence of float
        Higher is better; NaN for a trial that has none.
    states : sequence of {"complete", "pruned", "failed"}
        A trial without a score stands at the lower edge. Only complete trials count as best.
    score_name : str
        The label of the vertical axis.

    Returns
    -------
    matplotlib.figure.Figure
    """
    x, y, kinds = np.asarray(numbers), np.asarray(scores, dtype=float), np.asarray(states)
    order = np.argsort(x)
    x, y, kinds = x[order], y[order], kinds[order]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    finite = np.isfinite(y)
    for state, (marker, color) in _STYLES.items():
        chosen = (kinds == state) & finite
        if chosen.any():
            axes.scatter(x[chosen], y[chosen], marker=marker, color=color, s=28, zorder=3, label=state)
        missing = (kinds == state) & ~finite
        if missing.any():
            label = None if chosen.any() else state
            axes.scatter(
                x[missing],
                np.zeros(missing.sum()),
                marker=marker,
                color=color,
                s=28,
                label=label,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
                zorder=3,
            )
    complete = (kinds == "complete") & finite
    if complete.any():
        best = np.maximum.accumulate(np.where(complete, y, -np.inf))
        reached = np.isfinite(best)
        axes.step(x[reached], best[reached], where="post", color=_GREY, label="best so far")
    axes.set(xlabel="trial", ylabel=score_name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure
