"""What a diagnosis says: findings with their numbers and remedies, and the report that holds them.

NumPy only; pandas is imported when a table of the measurements is asked for.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.health.measurements import LAYER_MEASURES, NETWORK_MEASURES, Measurements, NetworkFacts

if TYPE_CHECKING:
    import pandas as pd

    from tuner.report.svg import Picture

#: Everything that a network can be found to suffer from.
CONDITIONS = (
    "vanishing_gradients",
    "exploding_gradients",
    "saturated_units",
    "saturated_outputs",
    "dead_units",
    "non_finite",
    "update_too_small",
    "update_too_large",
    "oscillating_loss",
    "stalled_loss",
    "poor_initialization",
    "unscaled_inputs",
    "overfitting",
)

#: The verdict on a network that suffers from none.
HEALTHY = "healthy"

#: The columns of the text form's table of layers.
KEY_MEASURES = ("grad_rms", "update_ratio", "saturation", "dead_units")


@dataclass(frozen=True)
class Remedy:
    """A change of the search space, and why.

    Parameters
    ----------
    edit : mapping of str to object
        Hyperparameters of the Keras estimators and their new values; a tuple of two numbers is a narrower range. The
        key ``"inputs"`` with the value ``"standardize"`` stands for a StandardScaler before the network, which is a
        step of the pipeline and no hyperparameter.
    reason : str
        One sentence.
    """

    edit: Mapping[str, Any]
    reason: str


@dataclass(frozen=True)
class Finding:
    """One condition of a network, with the evidence.

    Parameters
    ----------
    condition : str
        One of `CONDITIONS`.
    severity : float
        In (0, 1]; 1 is a network that learned nothing.
    layers : tuple of str
        The names of the layers that show it; empty where it concerns the whole network.
    epochs : tuple of int
        The measured epochs that show it.
    measure : str
        The measure, or the series of the history, that was judged.
    value, threshold : float
        What was measured in a typical fold, and the limit that it crosses.
    source : str
        Where the measure and the threshold come from.
    message : str
        One sentence with the numbers.
    remedies : tuple of Remedy
        The most promising first.
    folds, n_folds : int
        How many folds show it, of those in which it could be judged.
    consequence_of : str, optional
        The condition that causes this one.
    """

    condition: str
    severity: float
    layers: tuple[str, ...]
    epochs: tuple[int, ...]
    measure: str
    value: float
    threshold: float
    source: str
    message: str
    remedies: tuple[Remedy, ...] = ()
    folds: int = 1
    n_folds: int = 1
    consequence_of: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which JSON can hold."""
        values = asdict(self)
        values["remedies"] = [{"edit": _listed(r.edit), "reason": r.reason} for r in self.remedies]
        values["layers"], values["epochs"] = list(self.layers), list(self.epochs)
        values["value"], values["threshold"] = _plain(self.value), _plain(self.threshold)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """Return what `to_dict` wrote."""
        remedies = tuple(Remedy(_tupled(r["edit"]), r["reason"]) for r in values["remedies"])
        return cls(
            **{
                **values,
                "layers": tuple(values["layers"]),
                "epochs": tuple(values["epochs"]),
                "value": float(values["value"]),
                "threshold": float(values["threshold"]),
                "remedies": remedies,
            }
        )


@dataclass(frozen=True)
class HealthReport:
    """What `judge` says about the folds of one trial.

    Parameters
    ----------
    findings : tuple of Finding
        Causes first, the most severe first, then consequences.
    notes : tuple of str
        What could not be measured or judged, and why.
    measurements : tuple of Measurements
        One for each fold; empty in a report that was stored without its numbers.
    """

    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    measurements: tuple[Measurements, ...] = field(default=(), repr=False)

    @property
    def causes(self) -> tuple[Finding, ...]:
        """The findings that no other finding explains."""
        return tuple(finding for finding in self.findings if finding.consequence_of is None)

    @property
    def verdict(self) -> str:
        """The most severe condition that is a cause; "healthy" without one."""
        return self.causes[0].condition if self.causes else HEALTHY

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of all conditions found, in the order of `findings`."""
        return tuple(finding.condition for finding in self.findings)

    @property
    def score(self) -> float:
        """The health score: 1 less the largest, over causes, of severity times the share of folds that show it.

        1 is healthy, 0 a network that learned nothing in any fold. Consequences do not count: they are already in the
        severity of their cause.
        """
        return 1.0 - max((finding.severity * finding.folds / finding.n_folds for finding in self.causes), default=0.0)

    @property
    def layers(self) -> pd.DataFrame:
        """Every number measured: columns fold, epoch, layer, measure, value; layer is "" for the network's own."""
        import pandas as pd

        columns: dict[str, list[Any]] = {name: [] for name in ("fold", "epoch", "layer", "measure", "value")}
        for fold, measured in enumerate(self.measurements):
            names = [layer.name for layer in measured.facts.layers]
            for i, epoch in enumerate(measured.epochs):
                numbers = [*np.asarray(measured.layers[i], dtype=float).ravel(), *measured.network[i]]
                columns["fold"] += [fold] * len(numbers)
                columns["epoch"] += [epoch] * len(numbers)
                columns["layer"] += [name for name in names for _ in LAYER_MEASURES] + [""] * len(NETWORK_MEASURES)
                columns["measure"] += [*LAYER_MEASURES * len(names), *NETWORK_MEASURES]
                columns["value"] += numbers
        return pd.DataFrame(columns).astype({"fold": int, "epoch": int, "value": float})

    def profile(self, measure: str = "error_rms", epoch: int = 0) -> tuple[tuple[str, ...], np.ndarray]:
        """Return one measure from layer to layer.

        Parameters
        ----------
        measure : str
            One of `LAYER_MEASURES`.
        epoch : int
            How many epochs the network had been trained for.

        Returns
        -------
        names : tuple of str, length L
        values : array of shape (L,)
            The geometric mean over the folds that were measured then; NaN where no fold was.
        """
        names, by_fold = self._by_fold(measure)
        found = [by_epoch[epoch] for by_epoch in by_fold if epoch in by_epoch]
        if not found:
            return names, np.full(len(names), np.nan)
        with np.errstate(all="ignore"):
            return names, np.exp(_mean(np.log(np.abs(np.array(found, dtype=float)))))

    def table(self, measure: str) -> tuple[tuple[int, ...], tuple[str, ...], np.ndarray]:
        """Return one measure over layers and epochs.

        Parameters
        ----------
        measure : str
            One of `LAYER_MEASURES`.

        Returns
        -------
        epochs : tuple of int, length E
            All epochs that any fold was measured after.
        names : tuple of str, length L
        values : array of shape (L, E)
            The mean over the folds that were measured then; NaN where all of theirs are.
        """
        names, by_fold = self._by_fold(measure)
        epochs = tuple(sorted({epoch for by_epoch in by_fold for epoch in by_epoch}))
        values = np.full((len(by_fold), len(epochs), len(names)), np.nan)
        for fold, by_epoch in enumerate(by_fold):
            places = [i for i, epoch in enumerate(epochs) if epoch in by_epoch]
            values[fold, places] = np.array([by_epoch[epochs[i]] for i in places]).reshape(len(places), len(names))
        return epochs, names, _mean(values).T if by_fold else np.zeros((len(names), 0))

    @property
    def statistics(self) -> dict[str, float]:
        """What the network's measures come to, as means over the folds; NaN where there is nothing to compute from.

        Returns
        -------
        dict of str to float
            - ``gradient_slope``: by how many powers of ten ``grad_rms`` grows from a layer to the next, the slope of a
              least-squares line, before training; ``gradient_ratio``: the first layer's to the last one's
            - ``error_slope``, ``error_ratio``: the same of ``error_rms``, which no width and no input scale distorts
            - ``variance_ratio``: ``activation_variance`` of the last hidden layer to that of the first, before training
              (Glorot & Bengio 2010 want 1)
            - ``loss_left``: the last training loss as a share of what the best constant prediction costs
            - ``loss_rises``: the sum of the training loss's rises as a share of all its movement: near 0 where it falls
              steadily, 0.5 where it oscillates in place, more where it diverges
            - ``loss_fall``: the fall of the training loss over the second half of training, as a share of its largest
              value: near 0 where it stalls
            - ``held_out_gap``: the last loss on held-out rows less the training loss, as a share of the constant's
        """
        by_fold = [_statistics(measured) for measured in self.measurements]
        names = by_fold[0] if by_fold else _statistics(Measurements(NetworkFacts(())))
        return {name: float(_mean(np.array([fold[name] for fold in by_fold] or [math.nan]))) for name in names}

    def _by_fold(self, measure: str) -> tuple[tuple[str, ...], list[dict[int, np.ndarray]]]:
        """Return the names of the layers, and for every fold the values (L,) by epoch."""
        if measure not in LAYER_MEASURES:
            raise ValueError(f"measure must be one of {', '.join(LAYER_MEASURES)}; got {measure!r}.")
        if not self.measurements:
            return (), []
        names = tuple(layer.name for layer in self.measurements[0].facts.layers)
        return names, [dict(zip(m.epochs, m.layer(measure), strict=True)) for m in self.measurements]

    def to_dict(self, numbers: bool = True) -> dict[str, Any]:
        """Return plain values, which JSON can hold.

        Parameters
        ----------
        numbers : bool
            Whether to include what was measured; without it, `from_dict` returns a report whose `layers` are empty.
        """
        values = {
            "verdict": self.verdict,
            "score": self.score,
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": list(self.notes),
        }
        if not numbers:
            return values
        statistics = {name: _plain(value) for name, value in self.statistics.items()}
        return values | {"statistics": statistics, "measurements": [m.to_dict() for m in self.measurements]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HealthReport:
        """Return what `to_dict` wrote; measured numbers come back with five digits."""
        return cls(
            findings=tuple(Finding.from_dict(finding) for finding in values["findings"]),
            notes=tuple(values["notes"]),
            measurements=tuple(Measurements.from_dict(measured) for measured in values.get("measurements", ())),
        )

    def heat_map(self) -> Picture:
        """Return a picture of the gradients' size by layer and epoch."""
        from tuner.report.svg import heat_map

        return heat_map(self)

    def depth_profile(self) -> Picture:
        """Return a picture of the error and the activations from layer to layer, before training and at the end."""
        from tuner.report.svg import depth_profile

        return depth_profile(self)

    def __str__(self) -> str:
        n = len(self.measurements)
        over = f", {n} fold{'s' * (n > 1)}" if n else ""
        lines = [f"{self.verdict} (health score {self.score:.2f}{over})"]
        shown: set[str] = set()
        for finding in self.causes:
            lines += ["", *self._family(finding, "", shown)]
        if self.measurements:
            lines += ["", *self._layer_table()]
        if self.notes:
            lines += ["", "Not measured or not judged:"]
            lines += [line for note in self.notes for line in _wrapped(f"- {note}", "")]
        return "\n".join(lines)

    def _family(self, finding: Finding, indent: str, shown: set[str]) -> Iterable[str]:
        """Yield the lines of a finding, and below it those of its consequences."""
        shown.add(finding.condition)
        inner = indent + "  "
        headline = f"{finding.condition}: {finding.message}"
        yield from _wrapped(headline, indent, inner)
        if finding.layers:
            yield from _wrapped(f"layers: {_shortened(finding.layers)}", inner)
        if finding.epochs:
            yield f"{inner}epochs: {_shortened(tuple(map(str, finding.epochs)))}"
        if finding.n_folds > 1:
            yield f"{inner}in {finding.folds} of {finding.n_folds} folds"
        limit = f"threshold {finding.threshold:.3g} ({finding.source})"
        yield from _wrapped(f"{finding.measure} {finding.value:.3g}, {limit}", inner)
        for remedy in finding.remedies:
            edit = ", ".join(f"{name}={worded(value)}" for name, value in remedy.edit.items())
            yield from _wrapped(f"try {edit}: {remedy.reason}", inner)
        for other in self.findings:
            if other.consequence_of == finding.condition and other.condition not in shown:
                yield from self._family(other, inner, shown)

    def _layer_table(self) -> Iterable[str]:
        """Yield the lines of a table of the layers with their latest key measures."""
        latest = []
        for measure in KEY_MEASURES:
            epochs, names, values = self.table(measure)
            latest.append(values[:, -1] if epochs else np.full(len(names), np.nan))
        if not names:
            return
        width = max(len("layer"), *map(len, names))
        yield f"{'layer':<{width}}" + "".join(f"{name:>14}" for name in KEY_MEASURES)
        for name, row in zip(names, np.transpose(latest), strict=True):
            yield f"{name:<{width}}" + "".join(f"{value:>14.3g}" for value in row)


def _statistics(measured: Measurements) -> dict[str, float]:
    """Return the statistics of one fold, see `HealthReport.statistics`."""
    nan, found = math.nan, {}
    started = bool(measured.epochs) and measured.epochs[0] == 0 and len(measured.facts.layers) > 0
    with np.errstate(all="ignore"):
        for name, measure in (("gradient", "grad_rms"), ("error", "error_rms")):
            values = np.log10(measured.layer(measure)[0]) if started else np.array([nan])
            usable = len(values) > 1 and bool(np.isfinite(values).all())
            found[f"{name}_slope"] = float(np.polyfit(np.arange(len(values)), values, 1)[0]) if usable else nan
            found[f"{name}_ratio"] = float(10 ** (values[0] - values[-1]))
        variance = measured.layer("activation_variance")[0][:-1] if started else np.array([])
        found["variance_ratio"] = float(variance[-1] / variance[0]) if len(variance) else nan
        losses = np.asarray(measured.history.get("loss", ()), dtype=float).ravel()
        series = (measured.history.get(name) for name in ("val_loss", "test_loss"))
        held_out = next((values for values in series if values is not None and len(values)), [nan])
        steps, baseline = np.diff(losses), measured.facts.baseline_loss or nan
        last = float(losses[-1]) if len(losses) else nan
        found["loss_left"] = last / baseline
        moved = float(np.abs(steps).sum()) if len(steps) else nan
        found["loss_rises"] = float(steps[steps > 0].sum()) / moved if moved else 0.0
        found["loss_fall"] = float((losses[len(losses) // 2] - last) / losses.max()) if len(losses) > 1 else nan
        found["held_out_gap"] = (float(np.asarray(held_out, dtype=float)[-1]) - last) / baseline
    return found


def _wrapped(text: str, indent: str, inner: str | None = None) -> list[str]:
    """Return the lines of a text; those after the first are indented further."""
    inner = indent + "  " if inner is None else inner
    lines = textwrap.TextWrapper(
        100, initial_indent=indent, subsequent_indent=inner, break_long_words=False, break_on_hyphens=False
    )
    return lines.wrap(text)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis without the entries that are NaN."""
    known = ~np.isnan(values)
    with np.errstate(all="ignore"):  # a mean of nothing is NaN, as it should be
        return np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _listed(edit: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in edit.items()}


def _tupled(edit: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in edit.items()}


def worded(value: Any) -> str:
    """Return the value of an edit in words; two numbers are a range."""
    return f"{value[0]:.2g} to {value[1]:.2g}" if isinstance(value, tuple) else str(value)


def _shortened(names: Sequence[str]) -> str:
    """Return names with commas, the middle of a long list left out."""
    return ", ".join(names if len(names) <= 6 else (*names[:3], "...", *names[-2:]))
