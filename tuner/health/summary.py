"""What the trials of a study were sick with, and which hyperparameters the sick ones share. NumPy only."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tuner.health.report import worded

if TYPE_CHECKING:
    from tuner.health.diagnosis import Finding

#: The health score from which on a trial is feasible where health is a constraint.
HEALTHY_ENOUGH = 0.5

# A shared value is told if chance would make as clear a one in fewer than one of twenty conditions, all that is looked
# at taken together, and if enough trials had it.
_CHANCE = 0.05
_FEWEST = 3
_MOST_SHARED = 3
_MOST_SPLITS = 50

Trial: TypeAlias = tuple[Mapping[str, Any], str, Sequence["Finding"], float]


def health_constraint(trial: Any) -> tuple[float]:
    """Return how far a trial of a search is from being healthy enough, at most 0 where it is.

    ``OptunaSearchCV(health="constraint")`` tells Optuna this by itself. For samplers that are still given a
    ``constraints_func``, which Optuna 5 deprecates: ``NSGAIISampler(constraints_func=health_constraint)``.

    Parameters
    ----------
    trial : optuna.Trial or FrozenTrial
        With what `OptunaSearchCV` stores; one whose gradients were not measured counts as healthy.

    Returns
    -------
    tuple of float
        `HEALTHY_ENOUGH` less the health score.
    """
    return (HEALTHY_ENOUGH - trial.user_attrs.get("health_score", 1.0),)


@dataclass(frozen=True)
class Shared:
    """Values of a hyperparameter with which trials were sick: in words, how many of those that had them, and the rest.

    Parameters
    ----------
    values : str
        ``"learning_rate > 0.03"``, ``"activation = 'sigmoid'"``.
    sick, n : int
        How many of the trials with these values had the condition, out of how many that had it or were healthy.
    sick_else, n_else : int
        The same of those with other values.
    log_chance : float
        The natural logarithm of how probable as clear a difference is by chance, all comparisons of the condition taken
        together.
    """

    values: str
    sick: int
    n: int
    sick_else: int
    n_else: int
    log_chance: float

    def __str__(self) -> str:
        return f"{self.values} ({self.sick} of {self.n} sick; else {self.sick_else} of {self.n_else})"


@dataclass(frozen=True)
class ConditionSummary:
    """One condition: how many trials had it, for how many it was the verdict, what they share, what would mend most."""

    condition: str
    n_trials: int
    n_verdicts: int
    shared: tuple[Shared, ...]
    remedy: str


@dataclass(frozen=True)
class HealthSummary:
    """The health of a study.

    Parameters
    ----------
    n_trials, n_sick : int
        The trials whose health is known, and those among them that were not healthy.
    conditions : tuple of ConditionSummary
        The most frequent verdict first.
    """

    n_trials: int
    n_sick: int
    conditions: tuple[ConditionSummary, ...]

    def lines(self, most: int = 4) -> list[str]:
        """Return at most `most` lines for a terminal; none if no trial's health is known."""
        if not self.n_trials:
            return []
        verdicts = [c for c in self.conditions if c.n_verdicts]
        counts = ", ".join(f"{c.n_verdicts} {_words(c.condition)}" for c in verdicts)
        lines = [f"health: {self.n_sick} of {self.n_trials} trials were sick{f': {counts}' if counts else ''}"]
        for condition in verdicts:
            said = [f"mostly with {condition.shared[0]}"] if condition.shared else []
            said += [f"try {condition.remedy}"] if condition.remedy else []
            if said:
                lines.append(f"  {_words(condition.condition)}: {'; '.join(said)}")
        return lines[:most]

    def tags(self) -> dict[str, Any]:
        """Return the counts by name, for a tracker."""
        tags = {"health.trials": self.n_trials, "health.sick_trials": self.n_sick}
        return tags | {f"health.{c.condition}": c.n_trials for c in self.conditions}

    def html(self) -> str:
        """Return a page."""
        rows = [
            [
                _words(c.condition),
                str(c.n_trials),
                str(c.n_verdicts),
                "; ".join(map(str, c.shared)) or "nothing that stands out",
                c.remedy,
            ]
            for c in self.conditions
        ]
        head = ["condition", "trials", "as the verdict", "shared, compared with the healthy trials", "remedy"]
        table = "".join(
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>\n"
            for tag, row in [("th", head), *(("td", row) for row in rows)]
        )
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Health of the study</title><style>'
            "body{font:14px sans-serif;margin:1.5em}table{border-collapse:collapse}"
            "th,td{text-align:left;vertical-align:top;padding:.4em .8em;border-bottom:1px solid #ccc}"
            f"</style></head>\n<body><h1>{self.n_sick} of {self.n_trials} trials were sick</h1>\n"
            + (f"<table>\n{table}</table>\n" if rows else "")
            + "</body></html>\n"
        )


def summarize(trials: Iterable[Trial]) -> HealthSummary:
    """Say what trials were sick with, and what the sick ones have in common that the healthy ones have not.

    Parameters
    ----------
    trials : iterable of (params, verdict, findings, score)
        Of every trial whose health is known: its hyperparameters as plain values, ``"healthy"`` or the condition that
        weighs most, everything that was found, and the health score.

    Returns
    -------
    HealthSummary
    """
    trials = list(trials)
    healthy = [params for params, verdict, _, _ in trials if verdict == "healthy"]
    verdicts = Counter(verdict for _, verdict, _, _ in trials if verdict != "healthy")
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        for condition in dict.fromkeys([trial[1], *(finding.condition for finding in trial[2])]):
            if condition != "healthy" and trial[1] != "healthy":
                found.setdefault(condition, []).append(trial)
    conditions = [
        ConditionSummary(
            condition=condition,
            n_trials=len(sick),
            n_verdicts=verdicts[condition],
            shared=_shared([params for params, _, _, _ in sick], healthy),
            remedy=_remedy(condition, sick),
        )
        for condition, sick in found.items()
    ]
    conditions.sort(key=lambda c: (-c.n_verdicts, -c.n_trials, c.condition))
    return HealthSummary(len(trials), verdicts.total(), tuple(conditions))


def _words(condition: str) -> str:
    return condition.replace("_", " ")


def _remedy(condition: str, trials: Sequence[Trial]) -> str:
    """Return the remedy that most trials with a condition were given first; of equal ones the first.

    Remedies are the same if they change the same hyperparameters for the same reason: their ranges differ from trial to
    trial, as they are narrowed around each trial's own learning rate.
    """
    edits: dict[tuple[tuple[str, ...], str], list[Mapping[str, Any]]] = {}
    for _, _, findings, _ in trials:
        for finding in findings:
            if finding.condition == condition:
                for remedy in finding.remedies[:1]:
                    edits.setdefault((tuple(remedy.edit), remedy.reason), []).append(remedy.edit)
    if not edits:
        return ""
    (names, reason), most = max(edits.items(), key=lambda item: len(item[1]))
    return f"{', '.join(f'{name}={_typical([edit[name] for edit in most])}' for name in names)}: {reason}"


def _typical(values: Sequence[Any]) -> str:
    """Return in words the median of ranges, and of anything else what is most frequent."""
    if all(_is_range(value) for value in values):
        low, high = np.median(np.array(values, dtype=float), axis=0)
        return worded((low, high))
    return Counter(map(worded, values)).most_common(1)[0][0]


def _is_range(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(limit, (int, float)) for limit in value)


def _shared(sick: Sequence[Mapping[str, Any]], healthy: Sequence[Mapping[str, Any]]) -> tuple[Shared, ...]:
    """Return what distinguishes the sick from the healthy, the clearest first, one for each hyperparameter."""
    trials = [*sick, *healthy]
    is_sick = np.arange(len(trials)) < len(sick)
    candidates = [
        (name, words, inside, known)
        for name in dict.fromkeys(name for params in trials for name in params)
        for words, inside, known in _candidates(name, trials)
    ]
    best: dict[str, Shared] = {}
    for name, words, inside, known in candidates:
        a, n = int((is_sick & inside).sum()), int(inside.sum())
        rest = known & ~inside
        c, m = int((is_sick & rest).sum()), int(rest.sum())
        if a < _FEWEST or n - a + m - c < _FEWEST:
            continue
        chance = math.log(len(candidates)) + _log_hypergeometric_tail(a, n, a + c, n + m)
        if chance < math.log(_CHANCE) and (name not in best or chance < best[name].log_chance):
            best[name] = Shared(words, a, n, c, m, chance)
    return tuple(sorted(best.values(), key=lambda shared: shared.log_chance)[:_MOST_SHARED])


def _candidates(name: str, trials: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
    """Give the sets of values to look at: in words, which trials have them, and which have the hyperparameter at all.

    Every value of a categorical hyperparameter, and both sides of splits of a numeric one, halfway between values that
    occur: on the logarithmic scale where they are positive and span more than a decade.
    """
    known = np.array([name in params for params in trials])
    values = [params.get(name) for params in trials]
    present = [value for value, there in zip(values, known, strict=True) if there]
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present):
        numbers = np.array([value if there else math.nan for value, there in zip(values, known, strict=True)], float)
        distinct = np.unique(numbers[np.isfinite(numbers)])
        if len(distinct) < 2:
            return
        log = distinct[0] > 0 and distinct[-1] > 10 * distinct[0]
        low, high = distinct[:-1], distinct[1:]
        splits = np.sqrt(low * high) if log else (low + high) / 2
        chosen = np.unique(np.linspace(0, len(splits) - 1, min(len(splits), _MOST_SPLITS)).round().astype(int))
        for split in splits[chosen]:
            yield f"{name} < {split:.3g}", known & (numbers < split), known
            yield f"{name} > {split:.3g}", known & (numbers > split), known
        return
    texts = np.array([repr(value) for value in values], dtype=object)
    for text in dict.fromkeys(texts[known]):
        yield f"{name} = {text}", known & (texts == text), known


def _log_hypergeometric_tail(a: int, n: int, sick: int, total: int) -> float:
    """Return the logarithm of the p-value of Fisher's exact test, one-sided.

    How probable it is that at least `a` of `n` trials are sick, drawn from `total` of which `sick` are.
    """
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])

    def log_choose(n: int, k: Any) -> Any:
        return log_factorial[n] - log_factorial[k] - log_factorial[n - k]

    k = np.arange(a, min(n, sick) + 1)
    k = k[n - k <= total - sick]
    terms = log_choose(sick, k) + log_choose(total - sick, n - k) - log_choose(total, n)
    return float(np.log(np.exp(terms - terms.max()).sum()) + terms.max())
