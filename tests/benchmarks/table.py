"""The table of speed: results.json keeps the rows, ``python tests/benchmarks/table.py`` writes them into the README.

Rows that were measured together, on one machine and day and with the same versions, stand in one table.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cache
from importlib import metadata
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
README = HERE.parent.parent / "README.md"
BEGIN, END = "<!-- speed -->", "<!-- /speed -->"
PACKAGES = ("tensorflow", "keras", "scikit-learn", "optuna", "mlflow", "scikeras", "numpy")
COLUMNS = ("work", "against", "ours", "theirs", "ratio", "target", "asserted equal")


@cache
def here_and_now() -> str:
    """Say where and with what is measured."""
    try:
        models = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    except OSError:
        models = []
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
    return (
        f"{date.today().isoformat()}, {models[0] if models else platform.machine()}, {os.cpu_count()} cores, "
        f"{gigabytes:.0f} GB; Python {platform.python_version()}, {versions}"
    )


@dataclass(frozen=True)
class Row:
    """A measured claim.

    Parameters
    ----------
    work, against : str
        What was done, with its optimizer, and by whom else: the row's name.
    unit : str
        Of `ours` and `theirs`.
    ours, theirs : float
    ratio : float
        Theirs to ours, unless `target` speaks of something else.
    target : str
    met : bool
    equal : str
        What was asserted to be the same, with its numbers.
    remark : str
        What else to know, compile times above all.
    measured : str
        Day, machine and versions.
    """

    work: str
    against: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    target: str
    met: bool
    equal: str = ""
    remark: str = ""
    measured: str = field(default_factory=here_and_now)

    @property
    def name(self) -> tuple[str, str]:
        return self.work, self.against

    def cells(self) -> tuple[str, ...]:
        ratio = f"{self.ratio:.0%}".replace("%", " %") if self.target.endswith("%") else f"{self.ratio:.3g}×"
        return (
            self.work,
            self.against,
            f"{self.ours:.3g} {self.unit}",
            f"{self.theirs:.3g} {self.unit}",
            ratio,
            self.target if self.met else f"{self.target}, missed",
            self.equal,
        )


def speedup(work: str, against: str, unit: str, ours: float, theirs: float, times: float, **more: str) -> Row:
    """Return the row of a claim that we are so many `times` as fast."""
    ratio = theirs / ours
    return Row(work, against, unit, ours, theirs, ratio, f"≥ {times:g}×", ratio >= times, **more)


def load() -> list[Row]:
    return [Row(**row) for row in json.loads(RESULTS.read_text())]


def merged(rows: Iterable[Row], newer: Iterable[Row]) -> list[Row]:
    """Return the rows with the newer ones in the place of those of the same name, or at the end."""
    return list(({row.name: row for row in rows} | {row.name: row for row in newer}).values())


def save(rows: Iterable[Row]) -> None:
    RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n")


def markdown(rows: Sequence[Row]) -> str:
    return "\n\n".join(_block(*group) for group in groupby(sorted(rows, key=_measured), key=_measured))


def _measured(row: Row) -> str:
    return row.measured


def _block(measured: str, rows: Iterable[Row]) -> str:
    rows = list(rows)
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells() for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    remarks = "\n".join(f"- {row.work}, against {row.against}: {row.remark}." for row in rows if row.remark)
    return "\n\n".join(part for part in (table, remarks, f"Measured {measured}.") if part)


def with_table(page: str, rows: Sequence[Row]) -> str:
    """Return the page with the table between the marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{markdown(rows)}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(), load()))
