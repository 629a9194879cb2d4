"""Pictures of a network's gradients, written as SVG: a figure of Matplotlib's takes 30 ms, which is too long per trial.

Both functions take a `tuner.health.diagnosis.HealthReport` and read only its verdict, its score and its tables. A heat
map is one small indexed PNG inside the SVG, a pixel for every layer and epoch, so that a hundred layers over five
hundred epochs are no larger than their numbers.
"""

from __future__ import annotations

import base64
import math
import os
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tuner.health.report import HealthReport

# Viridis (van der Walt & Smith 2015) at equal distances: even to the eye, for any colour vision, and in grey.
_VIRIDIS = "440154 482475 414487 355f8d 2a788e 21918c 22a884 44bf70 7ad151 bddf26 fde725"
_COLORS = 254  # of the scale; two more indices are for what is on no scale
_ZERO, _MISSING = 254, 255
_ZERO_COLOR, _MISSING_COLOR = "000000", "e0e0e0"
# The colours of Okabe & Ito 2008, which people with any colour vision tell apart; the markers differ as well.
_BEFORE, _AFTER = "#0072B2", "#D55E00"

_LINE = 14  # pixels between two lines of text of 12 pixels
_LETTER = 6.8  # pixels, about
_NAME = 26  # letters; longer names are cut in the middle
_SMALLEST, _LARGEST = 90, 440  # pixels of a heat map's height
_PLOT = 280  # pixels of a plot's width
_DECADES = 30  # the most that a logarithmic scale shows: what lies below is as good as 0


@dataclass(frozen=True)
class Picture:
    """A picture as SVG text, which notebooks show.

    Parameters
    ----------
    svg : str
    """

    svg: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a file, whose name should end in ``.svg``."""
        Path(path).write_text(self.svg, encoding="utf-8")

    def _repr_svg_(self) -> str:
        return self.svg


def heat_map(report: HealthReport) -> Picture:
    """Draw the gradients of every layer after every epoch, and beside them how saturated layers are, or their updates.

    Parameters
    ----------
    report : HealthReport

    Returns
    -------
    Picture
        Layers from the input down to the output, epochs from left to right; colours are logarithmic but for shares.
        Black is exactly 0, grey is unknown.
    """
    epochs, names, gradients = report.table("grad_rms")
    panels = [("gradient (root mean square)", gradients, True)]
    _, _, saturation = report.table("saturation")
    _, _, updates = report.table("update_ratio")
    if np.isfinite(saturation).any() and np.nanmax(saturation) > 0.25:
        panels.append(("saturated share of activations", saturation, False))
    elif np.isfinite(updates).any():
        panels.append(("last update / weights", updates, True))
    height = float(np.clip(22 * len(names), _SMALLEST, _LARGEST))
    shown = [_cut(name) for name in names]
    left = 30 + _LETTER * max([*map(len, shown), 8])
    parts, x, top = [], left, 66.0
    for title, values, log in panels:
        parts.append(_heat_panel(title, np.asarray(values, dtype=float), epochs, x, top, height, log))
        x += _PLOT + 86
    parts.append(_names(shown, left - 6, top, height))
    middle = top + height / 2
    parts.append(_text(14, middle, "layer, input first", "middle", rotate=-90))
    notes = [("0", _ZERO_COLOR), ("not measured", _MISSING_COLOR)]
    at = left
    for note, color in notes:
        parts.append(f'<rect x="{at:.0f}" y="{top + height + 40:.0f}" width="10" height="10" fill="#{color}"/>')
        parts.append(_text(at + 15, top + height + 49, note))
        at += 35 + _LETTER * len(note)
    return _picture(_title("Gradients of every layer", report), x - 10, top + height + 60, parts)


def depth_profile(report: HealthReport) -> Picture:
    """Draw how errors and signals change on their way through the layers, before training and at its end.

    Parameters
    ----------
    report : HealthReport

    Returns
    -------
    Picture
        The error that is propagated back to every layer, and the variance of its activations, on logarithmic axes;
        means over folds. What is exactly 0 stands at the lower edge as a cross.
    """
    measures = {"error_rms": "error propagated back (root mean square)", "activation_variance": "activation variance"}
    parts, x, top, height = [], 70.0, 84.0, 240.0
    names: Sequence[str] = ()
    last: int | None = None
    for measure, title in measures.items():
        epochs, names, values = report.table(measure)
        values = np.asarray(values, dtype=float)
        measured = np.flatnonzero(np.isfinite(values).any(axis=0)) if values.size else np.zeros(0, int)
        if len(measured):
            last = epochs[measured[-1]]
        columns = [(values[:, measured[i]], color) for i, color in ((0, _BEFORE), (-1, _AFTER)) if len(measured)]
        parts.append(_profile_panel(title, columns, names, x, top, height))
        x += _PLOT + 80
    for at, label, color in ((70, "before training", _BEFORE), (200, f"after epoch {last}", _AFTER)):
        if last is not None:
            parts.append(_marker(at + 5, 48, color) + _text(at + 16, 52, label))
    parts.append(_cross(335, 48, "#444444") + _text(346, 52, "exactly 0"))
    below = 30 + 0.75 * _LETTER * max([len(_cut(name)) for name in names] or [0])
    return _picture(_title("Errors and signals by depth", report), x - 40, top + height + below + 24, parts)


# Panels ---------------------------------------------------------------------------------------------------------------


def _heat_panel(
    title: str, values: np.ndarray, epochs: Sequence[int], x: float, top: float, height: float, log: bool
) -> str:
    """Return a heat map of values (L, E) with its axis and its colour bar."""
    parts = [_text(x, top - 10, title, weight="bold")]
    zero = values == 0 if log else np.zeros(values.shape, dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log10(np.where(values > 0, values, np.nan)) if log else values
    known = np.isfinite(scaled)
    low, high = _range(scaled[known]) if log else (0.0, 1.0)
    index = np.full(values.shape, _MISSING, dtype=np.uint8)
    index[known] = np.clip((scaled[known] - low) / (high - low) * (_COLORS - 1) + 0.5, 0, _COLORS - 1)
    index[zero] = _ZERO
    parts.append(_image(index, x, top, _PLOT, height))
    parts.append(_frame(x, top, _PLOT, height))
    width = _PLOT / max(len(epochs), 1)
    for i in _some(len(epochs), max(1, int(_PLOT // 40))):
        at = x + (i + 0.5) * width
        parts.append(_line(at, top + height, at, top + height + 4))
        parts.append(_text(at, top + height + 16, str(epochs[i]), "middle"))
    parts.append(_text(x + _PLOT / 2, top + height + 31, "epoch (0: before training)", "middle"))
    bar = x + _PLOT + 10
    parts.append(_image(np.arange(_COLORS - 1, -1, -1, dtype=np.uint8)[:, None], bar, top, 12, height))
    parts.append(_frame(bar, top, 12, height))
    if known.any() or not log:
        for tick, label in _ticks(low, high, 6) if log else [(v, f"{v:.0%}") for v in (0.0, 0.5, 1.0)]:
            at = top + height * (high - tick) / (high - low)
            parts.append(_line(bar + 12, at, bar + 16, at) + _text(bar + 19, at + 4, label))
    return "".join(parts)


def _profile_panel(
    title: str, columns: Sequence[tuple[np.ndarray, str]], names: Sequence[str], x: float, top: float, height: float
) -> str:
    """Return lines of values (L,) by layer, each in its colour."""
    parts = [_text(x, top - 10, title, weight="bold"), _frame(x, top, _PLOT, height)]
    everything = np.concatenate([column for column, _ in columns]) if columns else np.zeros(0)
    positive = everything[np.isfinite(everything) & (everything > 0)]
    low, high = _range(np.log10(positive))
    low, high = (math.floor(low), math.ceil(high)) if high - low > 1 else (low, high)

    def across(layer: int) -> float:
        return x + _PLOT * (layer + 0.5) / max(len(names), 1)

    def up(value: float) -> float:
        return top + height * (high - min(max(math.log10(value), low), high)) / (high - low)

    for tick, label in _ticks(low, high, 7):
        at = top + height * (high - tick) / (high - low)
        parts.append(_line(x, at, x + _PLOT, at, "#e5e5e5") + _text(x - 6, at + 4, label, "end"))
    for layer in _some(len(names), 16):
        at = across(layer)
        parts.append(_line(at, top + height, at, top + height + 4))
        parts.append(_text(at + 3, top + height + 14, _cut(names[layer]), "end", rotate=-45))
    for column, color in columns:
        run: list[str] = []
        marks = []
        width = 3.5 if color == _BEFORE else 1.6  # so that both show where they are the same
        for layer, value in enumerate([*column.tolist(), math.nan]):
            if value > 0 and math.isfinite(value):
                run.append(f"{across(layer):.1f},{up(value):.1f}")
                marks.append(_marker(across(layer), up(value), color) if len(names) <= 40 else "")
                continue
            if value == 0:
                marks.append(_cross(across(layer), top + height - 5, color))
            if run:
                parts.append(
                    f'<polyline points="{" ".join(run)}" fill="none" stroke="{color}" stroke-width="{width}"/>'
                )
                run = []
        parts += marks
    if not len(positive):
        parts.append(_text(x + _PLOT / 2, top + height / 2, "nothing but 0" if columns else "not measured", "middle"))
    return "".join(parts)


# Scales ---------------------------------------------------------------------------------------------------------------


def _range(exponents: np.ndarray) -> tuple[float, float]:
    """Return the ends of a logarithmic scale: a decade at least, so that noise looks like noise, and not too many."""
    if not len(exponents):
        return -1.0, 0.0
    low, high = float(exponents.min()), float(exponents.max())
    low = max(low, high - _DECADES)
    if high - low < 1:
        middle = (low + high) / 2
        low, high = middle - 0.5, middle + 0.5
    return low, high


def _ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Return exponents and their labels: powers of ten, or 1, 2 and 5 times these where there are few of them."""
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    if last - first >= 2:
        step = math.ceil((last - first + 1) / most)
        return [(float(k), _power(k)) for k in range(last, first - 1, -step)]
    found = [(math.log10(m) + k, m * 10.0**k) for k in range(first - 1, last + 1) for m in (1, 2, 5)]
    return [(at, f"{value:.3g}") for at, value in found if low - 1e-9 <= at <= high + 1e-9]


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if -3 <= exponent <= 3 else f"1e{exponent}"


def _some(n: int, most: int) -> range:
    """Return at most `most` of n positions, evenly, at round distances, the first of them included."""
    steps = (m * 10**k for k in range(7) for m in (1, 2, 5))
    step = next(step for step in steps if math.ceil(n / step) <= most)
    return range(0, n, step)


# SVG ------------------------------------------------------------------------------------------------------------------


def _picture(title: str, width: float, height: float, parts: Sequence[str]) -> Picture:
    return Picture(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" font-family="Helvetica, Arial, sans-serif" font-size="12">'
        f"<title>{_plain(title)}</title>"
        f'<rect width="100%" height="100%" fill="#ffffff"/>{_text(14, 24, title, weight="bold", size=15)}'
        f"{''.join(parts)}</svg>\n"
    )


def _title(what: str, report: HealthReport) -> str:
    return f"{what}: {report.verdict.replace('_', ' ')} (health score {report.score:.2f})"


def _names(names: Sequence[str], x: float, top: float, height: float) -> str:
    row = height / max(len(names), 1)
    shown = _some(len(names), max(1, int(height // _LINE)))
    return "".join(_text(x, top + (i + 0.5) * row + 4, names[i], "end") for i in shown)


def _cut(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME // 2 - 1]}…{name[-_NAME // 2 :]}"


def _plain(text: str) -> str:
    """Return a text as XML may hold it."""
    return escape(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd]", "\ufffd", text))


def _text(
    x: float, y: float, text: str, anchor: str = "start", *, weight: str = "", size: int = 0, rotate: int = 0
) -> str:
    more = f' text-anchor="{anchor}"' if anchor != "start" else ""
    more += f' font-weight="{weight}"' if weight else ""
    more += f' font-size="{size}"' if size else ""
    more += f' transform="rotate({rotate} {x:.1f} {y:.1f})"' if rotate else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{more} fill="#222222">{_plain(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str = "#444444") -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{color}"/>'


def _frame(x: float, y: float, width: float, height: float) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width}" height="{height:.1f}" fill="none" stroke="#444444"/>'


def _marker(x: float, y: float, color: str) -> str:
    if color == _BEFORE:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>'
    return f'<path d="M{x - 4:.1f} {y + 3.5:.1f}h8l-4 -7.5z" fill="{color}"/>'


def _cross(x: float, y: float, color: str) -> str:
    d = f"M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7"
    return f'<path d="{d}" stroke="{color}" stroke-width="1.6" fill="none"/>'


def _image(index: np.ndarray, x: float, y: float, width: float, height: float) -> str:
    """Return an image of colour indices (rows, columns), stretched to a rectangle without being smoothed."""
    if not index.size:
        return ""
    data = base64.b64encode(_png(index)).decode()
    return (
        f'<image x="{x:.1f}" y="{y:.1f}" width="{width}" height="{height:.1f}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
    )


def _png(index: np.ndarray) -> bytes:
    """Return an indexed PNG of colour indices (rows, columns)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows, columns = index.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)  # 8 bits, a palette
    lines = np.zeros((rows, columns + 1), dtype=np.uint8)  # every row begins with its filter: none
    lines[:, 1:] = index
    body = chunk(b"IHDR", header) + chunk(b"PLTE", _PALETTE) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 3))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def _palette() -> bytes:
    anchors = np.array([list(bytes.fromhex(color)) for color in _VIRIDIS.split()], dtype=float)
    at = np.linspace(0, len(anchors) - 1, _COLORS)
    scale = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, i]) for i in range(3)], axis=1)
    return scale.round().astype(np.uint8).tobytes() + bytes.fromhex(_ZERO_COLOR + _MISSING_COLOR)


_PALETTE = _palette()
