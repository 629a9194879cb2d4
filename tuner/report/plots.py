"""Tables to figures. Every function takes numbers and returns a ``matplotlib.figure.Figure``; nothing is shown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The colours of Okabe & Ito 2008, which people with any colour vision tell apart.
_BLUE, _ORANGE, _RED, _GREY = "#0072B2", "#E69F00", "#D55E00", "#999999"
_COLORS = (_BLUE, _ORANGE, "#009E73", "#CC79A7", "#56B4E9", _RED, "#000000", _GREY)
_MARKERS = "osv^DPX*"
_STYLES = {"complete": ("o", _BLUE), "pruned": ("v", _ORANGE), "failed": ("x", _RED)}

# An axis has a tick for each value if there are at most so many.
_FEW_TICKS = 8


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


def lines(
    table: pd.DataFrame,
    x: str,
    y: str,
    by: str | None = None,
    panels: str | None = None,
    *,
    log: str = "",
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Draw means over x as lines, with a band of one standard deviation to either side.

    Parameters
    ----------
    table : pandas.DataFrame
        In long form: the rows of equal x, `by` and `panels` are repetitions, such as folds and seeds.
    x, y : str
        Columns; x of numbers, or of names in the order in which they stand.
    by : str, optional
        A line for each of its values.
    panels : str, optional
        A panel for each of its values, all on one scale.
    log : str
        Which axes are logarithmic: "", "x", "y" or "xy".
    labels : mapping of str to str, optional
        What to write for a column's name instead of the name with spaces for its underscores; "" for panels that are
        named by their value alone.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, parts = _panels(table, panels, labels)
    groups = _groups(table, by)
    for axes, part in parts:
        for i, (name, rows) in enumerate(_groups(part, by, list(groups)).items()):
            repeated = rows.groupby(x, sort=False, dropna=False)[y]
            mean, spread = repeated.mean(), repeated.std().fillna(0)
            at = mean.index if pd.api.types.is_numeric_dtype(mean.index) else mean.index.map(str)
            color, marker = _COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)]
            axes.plot(at, mean, color=color, marker=marker, markersize=4, label=name if by else None)
            low = mean - spread
            if "y" in log:  # no band to zero and below, which has no place on the axis
                low = low.where(low > 0, mean / 10)
            axes.fill_between(at, low, mean + spread, color=color, alpha=0.15, linewidth=0)
        if pd.api.types.is_integer_dtype(table[x]):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if "x" in log:
            axes.set_xscale("log")
            if len(values := sorted(set(table[x]))) <= _FEW_TICKS:
                axes.set_xticks(values, [f"{value:g}" for value in values])
                axes.set_xticks([], minor=True)
        if "y" in log:
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    return _labelled(figure, parts, x, y, by, labels)


def bars(
    table: pd.DataFrame,
    x: str,
    y: str,
    by: str | None = None,
    panels: str | None = None,
    *,
    log: str = "",
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Draw means as bars, with one standard deviation to either side; the parameters are those of `lines`."""
    figure, parts = _panels(table, panels, labels)
    groups = _groups(table, by)
    places = {value: i for i, value in enumerate(dict.fromkeys(table[x].map(str)))}
    width = 0.8 / len(groups)
    for axes, part in parts:
        for i, (name, rows) in enumerate(_groups(part, by, list(groups)).items()):
            repeated = rows[y].groupby(rows[x].map(str), sort=False)
            mean, spread = repeated.mean(), repeated.std().fillna(0)
            at = np.array([places[value] for value in mean.index]) + (i - (len(groups) - 1) / 2) * width
            color = _COLORS[i % len(_COLORS)]
            axes.bar(at, mean, width, yerr=spread, color=color, ecolor="#444444", label=name if by else None)
        _name_columns(axes, list(places))
        if "y" in log:
            axes.set_yscale("log")
        axes.grid(axis="y", alpha=0.3)
    return _labelled(figure, parts, x, y, by, labels)


def heat_map(
    table: pd.DataFrame,
    x: str,
    y: str,
    value: str,
    panels: str | None = None,
    *,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Draw means as coloured cells with their numbers.

    Parameters
    ----------
    table, panels, labels
        As in `lines`.
    x, y : str
        The columns of a cell's place, from left to right and from top to bottom.
    value : str
        The column of numbers; all panels share one scale.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, parts = _panels(table, panels, labels)
    keys = [table[name].map(str).rename(name) for name in ([panels] if panels else []) + [y, x]]
    low, high = table[value].groupby(keys, sort=False).mean().agg(["min", "max"])
    across, down = (list(dict.fromkeys(table[name].map(str))) for name in (x, y))
    width = 1.5 + _beside(len(parts)) * (0.5 + 0.5 * len(across))  # in inches: a cell is as wide as its number
    figure.set_figwidth(max(figure.get_figwidth(), width))
    for axes, part in parts:
        cells = part[value].groupby([part[y].map(str), part[x].map(str)]).mean().unstack().reindex(down, columns=across)
        image = axes.imshow(cells.to_numpy(), aspect="auto", vmin=low, vmax=high, cmap="viridis")
        for (row, column), number in np.ndenumerate(cells.to_numpy()):
            dark = number < (low + high) / 2
            axes.text(column, row, f"{number:.3g}", ha="center", va="center", color="white" if dark else "black")
        _name_columns(axes, across)
        axes.set_yticks(range(len(down)), down)
    figure.colorbar(image, ax=[axes for axes, _ in parts], label=_words(value, labels))
    return _labelled(figure, parts, x, y, None, labels)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file; an SVG holds its letters as text, and is the same every time."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tuner", "font.family": "sans-serif"}):
        figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)


def _panels(
    table: pd.DataFrame, panels: str | None, labels: Mapping[str, str] | None
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    parts = _groups(table, panels)
    columns = _beside(len(parts))
    rows = -(-len(parts) // columns)
    figure = Figure(figsize=(6 if columns == 1 else 4 * columns, 3.6 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(parts) :]:
        axes.set_visible(False)
    for axes, name in zip(grid, parts, strict=False):
        if panels:
            axes.set_title(": ".join(filter(None, [_words(panels, labels), name])), fontsize=10)
    return figure, list(zip(grid, parts.values(), strict=False))


def _beside(n_panels: int) -> int:
    return 2 if n_panels == 4 else min(n_panels, 3)


def _name_columns(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names)
    if max(map(len, names), default=0) > 8:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")


def _groups(table: pd.DataFrame, by: str | None, order: Sequence[str] | None = None) -> dict[str, pd.DataFrame]:
    """Return the rows of every value of a column, by its name, in the order in which they stand."""
    if by is None:
        return {"": table}
    names = table[by].map(str)
    return {name: table[names == name] for name in (order if order is not None else dict.fromkeys(names))}


def _labelled(
    figure: Figure,
    parts: Sequence[tuple[Axes, pd.DataFrame]],
    x: str,
    y: str,
    by: str | None,
    labels: Mapping[str, str] | None,
) -> Figure:
    figure.supxlabel(_words(x, labels), fontsize=10)
    figure.supylabel(_words(y, labels), fontsize=10)
    if by:
        handles, names = parts[0][0].get_legend_handles_labels()
        longest = max(map(len, names), default=0) + 6  # its line and the gap; ten letters take an inch
        ncols = max(1, min(4, len(names), int(10 * figure.get_figwidth()) // longest))
        figure.set_figheight(figure.get_figheight() + 0.2 * (-(-len(names) // ncols) - 1))  # a row's height for each
        figure.legend(handles, names, title=_words(by, labels), loc="outside upper center", ncols=ncols, frameon=False)
    return figure


def _words(column: str, labels: Mapping[str, str] | None) -> str:
    return (labels or {}).get(column, column.replace("_", " "))
