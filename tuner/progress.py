"""What a running study shows: a live table on a terminal, a line for each trial elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

_ROWS = 12  # finished trials in the live table: it must fit a small terminal
_BEST = 10  # trials in the closing table
_PLAIN_WIDTH = 160  # columns where no terminal says how many there are
_STYLES = {"complete": "", "pruned": "yellow", "failed": "red"}


@dataclass(frozen=True)
class Row:
    """A finished trial.

    Score and standard deviation over the folds (NaN: none), seconds, why it ended early, and what its gradients said.
    """

    number: int
    state: str
    score: float
    std: float
    seconds: float
    reason: str | None = None
    health: str | None = None


class Progress:
    """Shows trials as they finish.

    Parameters
    ----------
    name : str
        The study's name.
    total : int
        The number of trials after which the study ends, those of earlier sessions included.
    earlier : sequence of Row
        The trials of earlier sessions.
    console : rich.console.Console, optional
        Standard output by default.
    """

    def __init__(self, name: str, total: int, earlier: Sequence[Row] = (), console: Console | None = None):
        self.name, self.total = name, total
        self.rows = list(earlier)
        self.console = console or Console(highlight=False)
        if console is None and not self.console.is_terminal:
            self.console.width = _PLAIN_WIDTH
        self._n_earlier = len(self.rows)
        self._started = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._n_earlier:
            self.console.print(f"{self.name}: going on after {self._n_earlier} finished trials.")
        if self.console.is_terminal:
            self._live = Live(self, console=self.console, refresh_per_second=2, transient=True)
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, row: Row) -> None:
        """Show a finished trial."""
        self.rows.append(row)
        if self._live is not None:
            self._live.refresh()
        else:
            best = self._best()
            parts = [
                f"trial {row.number:3d}",
                row.state,
                score_text(row),
                f"best {best:.4f}" if best is not None else "",
                _words(row.health),
            ]
            line = "  ".join(part for part in parts if part) + f"  {duration(row.seconds)}"
            line += f"  ({len(self.rows)}/{self.total}{self._left()})"
            self.console.print(line + (f"  {row.reason}" if row.reason else ""), soft_wrap=True)

    def _best(self) -> float | None:
        scores = [row.score for row in self.rows if row.state == "complete"]
        return max(scores, default=None)

    def _left(self) -> str:
        done = len(self.rows) - self._n_earlier
        missing = self.total - len(self.rows)
        if not done or missing <= 0:
            return ""
        return f", about {duration((time.monotonic() - self._started) / done * missing)} left"

    def __rich__(self) -> Group:
        title = f"{self.name}: {len(self.rows)} of {self.total} trials"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for heading in ("trial", "score ± std", "best so far", "time"):
            table.add_column(heading, justify="right")
        with_health = any(row.health for row in self.rows)
        if with_health:
            table.add_column("health")
        table.add_column("state")
        best = -math.inf
        shown = []
        for row in self.rows:
            best = max(best, row.score) if row.state == "complete" else best
            state = f"{row.state}: {row.reason}" if row.reason else row.state
            cells = [str(row.number), score_text(row), f"{best:.4f}" if best > -math.inf else ""]
            health = [_words(row.health)] if with_health else []
            shown.append(([*cells, duration(row.seconds), *health, state], _STYLES[row.state]))
        for cells, style in shown[-_ROWS:]:
            table.add_row(*cells, style=style)
        if len(self.rows) < self.total:
            following = str(max((row.number for row in self.rows), default=-1) + 1)
            table.add_row(following, *[""] * (len(table.columns) - 2), "running", style="dim")
        elapsed = duration(time.monotonic() - self._started)
        return Group(table, Text(f"{elapsed} elapsed{self._left()}", style="dim"))


def best_table(rows: Sequence[Row], params: Mapping[int, Mapping[str, Any]], searched: Sequence[str]) -> Table:
    """Return the table of the best complete trials.

    Parameters
    ----------
    rows : sequence of Row
    params : mapping of int to mapping of str to object
        The parameters of each trial by its number.
    searched : sequence of str
        The parameters to show; a prefix that all share (a pipeline's step) is left out.
    """
    complete = sorted((row for row in rows if row.state == "complete"), key=lambda row: -row.score)
    table = Table(
        title=f"best of {len(complete)} complete trials",
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("score ± std", justify="right", no_wrap=True)
    short = [name.rsplit("__", 1)[-1] for name in searched]
    for name, heading in zip(searched, short, strict=True):
        heading = heading if short.count(heading) == 1 else name
        table.add_column(heading.replace("_", "\n", 1), overflow="fold")  # two lines: four columns fit 80 characters
    for row in complete[:_BEST]:
        values = params[row.number]
        table.add_row(str(row.number), score_text(row), *(value_text(values.get(name, "")) for name in searched))
    return table


def summary(rows: Sequence[Row]) -> str:
    """Return one line: how many trials ended how, and why the first of the failed ones failed."""
    counts = [f"{sum(row.state == state for row in rows)} {state}" for state in _STYLES]
    line = f"{len(rows)} trials: {', '.join(count for count in counts if not count.startswith('0 '))}"
    failed = next((row for row in rows if row.state == "failed"), None)
    return line + (f" (trial {failed.number}: {failed.reason})" if failed else "")


def _words(verdict: str | None) -> str:
    return (verdict or "").replace("_", " ")


def score_text(row: Row) -> str:
    """Return ``0.9712 ± 0.0041``, or an empty string where there is no score."""
    if math.isnan(row.score):
        return ""
    return f"{row.score:.4f}" + ("" if math.isnan(row.std) else f" ± {row.std:.4f}")


def value_text(value: Any) -> str:
    """Return a parameter's value as a table shows it: floats to four digits, functions by name."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return getattr(value, "__name__", None) or str(value)


def duration(seconds: float) -> str:
    """Return seconds as ``1.2 s``, ``2 min 05 s`` or ``1 h 02 min``; an empty string for NaN."""
    if math.isnan(seconds):
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
