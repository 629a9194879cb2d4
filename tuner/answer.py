"""What a study found: a table, a figure and a few sentences; how these are kept, and the index of a folder's studies.

A folder of study files keeps its answers in ``results/``, so that its ``README.md`` can be written again without
training anything.
"""

from __future__ import annotations

import ast
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import StudyFileError
from tuner.progress import duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

#: Between these lines of a folder's ``README.md`` stands what `write_index` writes.
BEGIN, END = "<!-- answers -->", "<!-- /answers -->"

#: The folder, beside a study file, of what it found.
RESULTS = "results"


@dataclass(frozen=True)
class Answer:
    """What a study file's ``answer`` function returns.

    Parameters
    ----------
    text : str
        Two or three sentences, computed from the results; they say so where the results contradict the textbook.
    table : pandas.DataFrame
        The numbers of the sentences, a dozen rows or so; its index is left out.
    figure : matplotlib.figure.Figure
    claims : mapping of str to bool
        What must hold whatever the seed, quick runs included, and whether it does.
    seconds : float
        How long it took; set by `StudyFile.run`.
    """

    text: str
    table: DataFrame
    figure: Figure
    claims: Mapping[str, bool] = field(default_factory=dict)
    seconds: float = math.nan

    def save(self, folder: str | os.PathLike[str], name: str) -> list[Path]:
        """Write ``name.json``, ``name.csv`` and ``name.svg`` into a folder, made if need be; return the paths."""
        from tuner.report.plots import save_figure

        Path(folder).mkdir(parents=True, exist_ok=True)
        text, table, figure = (Path(folder, f"{name}.{ending}") for ending in ("json", "csv", "svg"))
        values = {
            "text": self.text,
            "claims": {claim: bool(holds) for claim, holds in self.claims.items()},
            "seconds": round(self.seconds, 1),
            "measured": f"{date.today().isoformat()}, {os.cpu_count()} cores",
        }
        text.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        self.table.to_csv(table, index=False, float_format="%.5g")
        save_figure(self.figure, figure)
        return [text, table, figure]

    def __str__(self) -> str:
        claims = [f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}" for claim, holds in self.claims.items()]
        return "\n".join([_rounded(self.table).to_string(index=False), "", self.text, *claims])

    def markdown(self, name: str = "") -> str:
        """Return sentences and table; with a name, the picture that `save` wrote between them."""
        picture = [f"![{name}]({RESULTS}/{name}.svg)"] if name else []
        return "\n\n".join([self.text, *picture, _markdown_table(self.table)])


def write_index(folder: str | os.PathLike[str]) -> Path:
    """Write the questions and answers of a folder's study files into its ``README.md``, between two marks.

    Parameters
    ----------
    folder : str or Path
        Holds study files, and their answers in ``results/``.

    Returns
    -------
    Path
        Of the README.

    Raises
    ------
    StudyFileError
        If no file of the folder asks a question, or its README has no marks.
    """
    readme = Path(folder, "README.md")
    page = readme.read_text(encoding="utf-8") if readme.exists() else f"# Studies\n\n{BEGIN}\n{END}\n"
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise StudyFileError(f"{readme} must hold the lines {BEGIN} and {END} once each: the answers go between them.")
    before, rest = page.split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{index(folder)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    return readme


def index(folder: str | os.PathLike[str]) -> str:
    """Return the questions and answers of a folder's study files as Markdown; raises as `write_index` does."""
    questions = {path: question_of(path) for path in sorted(Path(folder).glob("*.py"))}
    asked = {path: question for path, question in questions.items() if question}
    if not asked:
        raise StudyFileError(f"{folder} holds no study file: a Python file whose docstring begins with a question.")
    return "\n\n".join(_entry(path, question) for path, question in asked.items())


def question_of(path: Path) -> str:
    """Return the first paragraph of a file's docstring if it is a question, else an empty string."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(docstring.partition("\n\n")[0].split())
    return first if first.endswith("?") else ""


def _entry(path: Path, question: str) -> str:
    import pandas as pd

    title = f"## [{path.stem}]({path.name})\n\n**{question}**"
    results = path.parent / RESULTS
    stored = results / f"{path.stem}.json"
    if not stored.exists():
        return title
    values: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8"))
    table = pd.read_csv(results / f"{path.stem}.csv", keep_default_na=False, na_values=["nan"])
    answer = Answer(values["text"], table, figure=None)  # type: ignore[arg-type]
    failed = [f"\n\nDoes not hold: {claim}." for claim, holds in values["claims"].items() if not holds]
    took = f"Took {duration(values['seconds'])} ({values['measured']})."
    return f"{title}\n\n{answer.markdown(path.stem)}{''.join(failed)}\n\n{took}"


def _rounded(table: DataFrame) -> DataFrame:
    return table.map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value))


def _markdown_table(table: DataFrame) -> str:
    rows = [list(map(str, table.columns)), ["---"] * len(table.columns), *_rounded(table).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
