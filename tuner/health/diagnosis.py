"""What ails a network, from what was measured of it: findings with causes, consequences and remedies.

A condition is found where training falls clearly short *and* the mechanism of the condition shows in the measurements.
Either alone is no finding: raw inputs, sparse layers and small gradients harm only some networks, and a network that
falls short may just face a hard task. How far training falls short is the share of the loss of the best constant
prediction that is left at the end. Only overfitting and oscillation show in networks that do well, too.

`judge` looks at every fold by itself (`Evidence`), asks one function for every condition, keeps what more than half
of the folds show, drops what other findings bring with them, and then says which finding explains which. `fatal` is
the far more careful judgement by which a search may end a trial early. All limits are in `Limits`. NumPy only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tuner.health.measurements import Measurements, NetworkFacts
from tuner.health.report import CONDITIONS, HEALTHY, Finding, HealthReport, Remedy

__all__ = ["CONDITIONS", "HEALTHY", "LIMITS", "Finding", "HealthReport", "Limits", "Remedy", "fatal", "judge"]


class Limit(float):
    """A number with the source that it comes from."""

    source: str

    def __new__(cls, value: float, source: str) -> Limit:
        """Return the number."""
        limit = super().__new__(cls, value)
        limit.source = source
        return limit

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        return float(self), self.source


_OURS = "fitted to networks of known remedies"
_GLOROT = "Glorot & Bengio 2010"
_HE = "He et al. 2015"
_LECUN = "LeCun et al. 1998, Efficient BackProp"
_CS231N = "Karpathy, cs231n"


@dataclass(frozen=True)
class Limits:
    """Every threshold of the diagnosis, by name, with its source."""

    #: Training falls short when this share of the baseline loss is left.
    short: Limit = Limit(0.175, f"share of the loss of a constant prediction; {_OURS}")
    #: ... or, where weights or inputs are far off from the start, this share on held-out rows.
    short_held_out: Limit = Limit(0.2, f"share of the loss of a constant prediction; {_OURS}")
    #: ... and not when the training accuracy reaches this.
    accurate: Limit = Limit(0.875, f"training accuracy; {_OURS}")
    #: Nothing was learned when this share of the baseline loss is left ...
    stalled: Limit = Limit(0.94, f"share of the loss of a constant prediction; {_OURS}")
    #: ... and no more than this share of the commonest class's errors is avoided.
    better: Limit = Limit(0.09, _OURS)
    #: The error that reaches the first layer, relative to the output's; at the second layer the root of this.
    error_ratio: Limit = Limit(1e-2, f"{_GLOROT}, fig. 7; Nielsen, ch. 5")
    #: ... and in a network of sigmoids, whose slopes multiply to less than this from the second layer on.
    error_ratio_of_sigmoids: Limit = Limit(0.1, f"a sigmoid's slope is at most 1/4 (Nielsen, ch. 5); {_OURS}")
    #: The norm of the gradient, at a loss that rises or a score that swings: longer than the step that clipping leaves.
    gradient: Limit = Limit(1.25, f"Pascanu et al. 2013; {_OURS}")
    #: ... and the learning rate above which even clipped steps are too long.
    clippable: Limit = Limit(0.5, f"beside weights of norm about 5; {_OURS}")
    #: The share of a layer's activations near an asymptote.
    saturation: Limit = Limit(0.4, f"Rakitianskaia & Engelbrecht 2015; LeCun et al. 1998; {_OURS}")
    #: ... before training, of a sigmoid: the largest weights that it bears, see `Evidence.log_gain`, saturate half.
    saturation_of_sigmoids: Limit = Limit(0.9, f"Rakitianskaia & Engelbrecht 2015; {_OURS}")
    #: The share of the outputs that are saturated at the wrong end.
    wrong: Limit = Limit(0.08, f"Nielsen, ch. 3; {_OURS}")
    #: The share of a layer's units without any slope, or of its activations that became saturated in training.
    dead: Limit = Limit(0.9, f"{_CS231N}; {_OURS}")
    #: ... before training, where it is not the inputs that leave them without.
    dead_at_start: Limit = Limit(0.45, f"a unit whose weights are symmetric around 0 is dead for few; {_OURS}")
    #: An update relative to the weights, when the loss rose, or units died or became saturated.
    update_high: Limit = Limit(0.015, f"{_CS231N}: about 1e-3; {_OURS}")
    #: An update relative to the weights, when the loss still falls steadily.
    update_low: Limit = Limit(0.015, f"{_CS231N}: about 1e-3; {_OURS}")
    #: How far all updates together move the weights, relative to themselves, if they have one direction.
    travel: Limit = Limit(0.12, f"{_CS231N}: about 1e-3 in each update; {_OURS}")
    #: ... and the share of the baseline loss that has to be left then.
    unmoved: Limit = Limit(0.85, f"share of the loss of a constant prediction; {_OURS}")
    #: The fall of the loss over the second half of training, in units of the baseline, that is still learning.
    falling: Limit = Limit(0.008, _OURS)
    #: ... and the share of the baseline loss that has to be left then: many healthy networks still fall.
    unfinished: Limit = Limit(0.4, f"share of the loss of a constant prediction; {_OURS}")
    #: The same fall, and the same share, of a loss that falls fast.
    falling_fast: Limit = Limit(0.035, _OURS)
    half_finished: Limit = Limit(0.28, f"share of the loss of a constant prediction; {_OURS}")
    #: ... and the share of that fall that the held-out loss falls at least.
    held_out_fall: Limit = Limit(0.6, _OURS)
    #: The fall of the loss in each epoch of fewer than four, in units of the baseline, after which nothing is judged.
    quick: Limit = Limit(0.05, _OURS)
    #: How far the held-out score moves in an epoch of the second half of training, as a share of the most learned.
    swings: Limit = Limit(0.076, _OURS)
    #: ... and how far in vain.
    in_vain: Limit = Limit(0.048, _OURS)
    #: The least that counts as learned there, in accuracy or in units of the baseline.
    learned: Limit = Limit(0.15, _OURS)
    #: The loss before training above which its fall is no learning.
    bad_start: Limit = Limit(4.0, f"times the loss of a constant prediction; {_OURS}")
    #: The sum of the rises of the loss, in units of the baseline.
    rises: Limit = Limit(0.07, _OURS)
    #: ... and as a share of all its movement.
    rise_share: Limit = Limit(0.26, _OURS)
    #: A training loss above the baseline's and above that before training.
    jump: Limit = Limit(1.5, f"times the loss of a constant prediction; {_OURS}")
    #: The initial weights' deviation, relative to the recommended one, times or divided by.
    gain: Limit = Limit(3.3, f"{_HE}; {_GLOROT}; {_OURS}")
    #: ... and the product over all hidden layers.
    total_gain: Limit = Limit(5.0, f"{_HE}: exponential in the depth; {_OURS}")
    #: The root mean square of the inputs above, and below its inverse.
    input_rms: Limit = Limit(10.0, f"{_LECUN}: about 1")
    #: The features' means in units of their deviations.
    input_offset: Limit = Limit(2.0, f"{_LECUN}: about 0")
    #: The deviation of the features' scales, in powers of ten.
    input_spread: Limit = Limit(1.0, f"{_LECUN}: equal; {_OURS}")
    #: The rise of the held-out loss from its lowest, in units of the baseline.
    overfit: Limit = Limit(0.075, f"Prechelt 1998, Early stopping - but when?; {_OURS}")
    #: ... and the fall of the held-out accuracy from its highest, where there is one.
    overfit_accuracy: Limit = Limit(0.03, _OURS)
    #: `fatal`: the loss above the baseline.
    blown_up: Limit = Limit(1e3, f"times the loss of a constant prediction; {_OURS}")
    #: `fatal`: nothing was learned when this share of the baseline loss is left.
    nothing: Limit = Limit(0.99, _OURS)
    #: ... and the error has faded when less than this reaches the first layer, relative to the output's.
    cut_off: Limit = Limit(2e-3, f"{_GLOROT}, fig. 7; {_OURS}")


#: The limits in use.
LIMITS = Limits()

#: Optimizers that divide by the gradient's own size, so that its scale does not decide the update's (Kingma & Ba 2015).
ADAPTIVE = frozenset(
    (
        "adam",
        "adamw",
        "adamax",
        "nadam",
        "rmsprop",
        "adagrad",
        "adadelta",
        "lion",
        "adafactor",
        "muon",
        "schedulefreeadamw",
    )
)

#: Activations whose recommended initial weights are He's; those for which tuner.network resolves "auto" to He.
RECTIFIERS = frozenset(
    "relu relu6 leaky_relu prelu elu celu gelu silu swish hard_silu hard_swish mish squareplus sparse_plus "
    "penalized_tanh".split()
)

#: Activations whose slope is at most 1/4.
SIGMOIDS = frozenset(("sigmoid", "hard_sigmoid"))

#: What may cause what: the first that was found, and does not come later, explains the condition.
CAUSES: Mapping[str, tuple[str, ...]] = {
    "exploding_gradients": ("poor_initialization", "update_too_large"),
    "saturated_outputs": ("unscaled_inputs", "poor_initialization", "update_too_large"),
    "saturated_units": ("unscaled_inputs", "poor_initialization", "update_too_large", "exploding_gradients"),
    "dead_units": ("poor_initialization", "update_too_large", "exploding_gradients"),
    "vanishing_gradients": ("unscaled_inputs", "poor_initialization", "saturated_units", "dead_units"),
    "update_too_small": ("saturated_units", "vanishing_gradients", "saturated_outputs"),
    "non_finite": ("unscaled_inputs", "poor_initialization", "update_too_large", "exploding_gradients"),
    "oscillating_loss": ("poor_initialization", "update_too_large", "exploding_gradients"),
    "stalled_loss": (
        "unscaled_inputs",
        "poor_initialization",
        "update_too_large",
        "exploding_gradients",
        "saturated_units",
        "dead_units",
        "vanishing_gradients",
        "saturated_outputs",
        "update_too_small",
        "oscillating_loss",
    ),
}

#: What a condition brings with it, so that beside it this is not named: it would not help to treat it. Large or far-off
#: inputs make large gradients and updates and saturate units, and units without slope let no error through. `_own` has
#: the exceptions.
BRINGS: Mapping[str, tuple[str, ...]] = {
    "unscaled_inputs": (
        "update_too_large",
        "exploding_gradients",
        "dead_units",
        "update_too_small",
        "oscillating_loss",
        "saturated_units",
    ),
    "poor_initialization": ("update_too_large", "update_too_small", "dead_units"),
    "update_too_large": ("vanishing_gradients",),
    "dead_units": ("vanishing_gradients",),
    "vanishing_gradients": ("oscillating_loss",),
}

#: Of equally severe causes the verdict is the first: from the data to the loss, as one thing leads to another.
PRECEDENCE = (
    "unscaled_inputs",
    "poor_initialization",
    "exploding_gradients",
    "update_too_large",
    "dead_units",
    "saturated_units",
    "saturated_outputs",
    "vanishing_gradients",
    "update_too_small",
    "non_finite",
    "oscillating_loss",
    "stalled_loss",
    "overfitting",
)


@dataclass(frozen=True)
class Evidence:
    """One fold's measurements, as the conditions look at them; a NaN is what is not known.

    Parameters
    ----------
    measured : Measurements
    """

    measured: Measurements

    @property
    def facts(self) -> NetworkFacts:
        """The facts of the network."""
        return self.measured.facts

    @property
    def epochs(self) -> np.ndarray:
        """The measured epochs, (E,)."""
        return np.array(self.measured.epochs, dtype=int)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers."""
        return tuple(layer.name for layer in self.facts.layers)

    @property
    def hidden(self) -> np.ndarray:
        """Which layers are not the output, (L,)."""
        return np.arange(len(self.names)) < len(self.names) - 1

    @property
    def adaptive(self) -> bool:
        """Whether the optimizer makes updates of the same size of gradients of any size."""
        return self.facts.optimizer.lower() in ADAPTIVE

    @cached_property
    def intact(self) -> np.ndarray:
        """At which epochs every number was finite, (E,): what is measured of a broken network says nothing."""
        return self.measured.of_network("non_finite") <= 0

    def layer(self, measure: str) -> np.ndarray:
        """Return one measure of all layers, (E, L); NaN where the network was not intact."""
        return np.where(self.intact[:, None], self.measured.layer(measure), np.nan)

    def hidden_layer(self, measure: str) -> np.ndarray:
        """Return one measure of the hidden layers, (E, L); NaN for the output, and where not intact."""
        return np.where(self.hidden, self.layer(measure), np.nan)

    def network(self, measure: str) -> np.ndarray:
        """Return one measure of the network, (E,); NaN where it was not intact."""
        return np.where(self.intact, self.measured.of_network(measure), np.nan)

    def at(self, shown: np.ndarray) -> tuple[int, ...]:
        """Return the epochs at which something shows, given as bool of shape (E,) or (E, L)."""
        return tuple(int(e) for e in self.epochs[shown.any(axis=tuple(range(1, shown.ndim)))])

    def where(self, shown: np.ndarray) -> tuple[str, ...]:
        """Return the layers that show something, at any epoch, given as bool of shape (L,) or (E, L)."""
        return tuple(np.array(self.names, dtype=object)[np.atleast_2d(shown).any(axis=0)])

    @cached_property
    def losses(self) -> np.ndarray:
        """The training loss of every epoch, (T,): the history's, else the probe's."""
        if "loss" in self.measured.history:
            return np.asarray(self.measured.history["loss"], dtype=float).ravel()
        return self.network("loss")[self.epochs > 0]

    @cached_property
    def held_out(self) -> tuple[str, np.ndarray]:
        """Name and values (T,) of the loss on rows that were not trained on; ("", []) without one."""
        for name in ("val_loss", "test_loss"):
            series = np.asarray(self.measured.history.get(name, ()), dtype=float).ravel()
            if np.isfinite(series).any():
                return name, series
        return "", np.array([])

    @cached_property
    def start(self) -> float:
        """The probe's loss before training."""
        return float(self.network("loss")[0]) if len(self.epochs) and self.epochs[0] == 0 else math.nan

    @cached_property
    def baseline(self) -> float:
        """The loss of the best constant prediction, else the loss before training."""
        for value in (self.facts.baseline_loss, self.start):
            if value is not None and math.isfinite(value) and value > 0:
                return float(value)
        return math.nan

    @cached_property
    def broken(self) -> bool:
        """Whether training ended in numbers that are not finite."""
        ended = bool(len(self.losses)) and not math.isfinite(self.losses[-1])
        return ended or bool(len(self.epochs) and self.measured.of_network("non_finite")[-1] > 0)

    @cached_property
    def left(self) -> float:
        """The share of the baseline loss that is left, in [0, 1]: a median of the last three epochs."""
        if self.broken:
            return 1.0
        if not len(self.losses):
            return math.nan
        return float(np.clip(np.median(self.losses[-3:]) / self.baseline, 0.0, 1.0))

    @cached_property
    def accuracy(self) -> float:
        """The training accuracy at the end; NaN without one."""
        series = np.asarray(self.measured.history.get("accuracy", ()), dtype=float).ravel()
        return float(np.median(series[-3:])) if len(series) else math.nan

    @cached_property
    def trivial_accuracy(self) -> float:
        """The accuracy of always naming the commonest class; NaN where that is not known."""
        return math.nan if self.facts.baseline_accuracy is None else self.facts.baseline_accuracy

    @cached_property
    def short(self) -> bool:
        """Whether training falls clearly short."""
        return self.broken or (self.behind and not self.accuracy >= LIMITS.accurate)

    @cached_property
    def thrown(self) -> bool:
        """Whether training falls short by steps that made the loss rise: a fair accuracy does not excuse that."""
        return self.broken or (self.behind and self.unsteady)

    @cached_property
    def behind(self) -> bool:
        """Whether much of the loss is left, after enough epochs to judge that."""
        return bool(self.left > LIMITS.short) and not self.young

    @cached_property
    def young(self) -> bool:
        """Whether there were too few epochs to judge a loss that falls quickly."""
        if len(self.course) >= 4 or not len(self.course) or self.jumped:
            return False
        before = min(self.start / self.baseline, 1.0) if math.isfinite(self.start) else 1.0
        return bool((before - self.course[-1]) / len(self.course) > LIMITS.quick)

    @cached_property
    def short_held_out(self) -> bool:
        """Whether training falls clearly short, or the held-out rows show that it does."""
        return self.short or bool(
            self.left_held_out > LIMITS.short_held_out
            and not self.accuracy_held_out >= LIMITS.accurate
            and not self.young
        )

    @cached_property
    def left_held_out(self) -> float:
        """The share of the baseline loss that is left on held-out rows; NaN without them."""
        series = self.held_out[1]
        return float(np.clip(np.median(series[-3:]) / self.baseline, 0.0, 1.0)) if len(series) else math.nan

    @cached_property
    def best_held_out(self) -> float:
        """The least share of the baseline loss that was left on held-out rows after an epoch; NaN without them."""
        series = self.held_out[1]
        return float(np.nanmin(series) / self.baseline) if len(series) else math.nan

    @cached_property
    def held_out_accuracies(self) -> np.ndarray:
        """The accuracy on held-out rows after every epoch, (T,); empty without one."""
        name = self.held_out[0].replace("loss", "accuracy")
        return np.asarray(self.measured.history.get(name, ()), dtype=float).ravel()

    @cached_property
    def accuracy_held_out(self) -> float:
        """The accuracy on held-out rows at the end; NaN without one."""
        return float(np.median(self.held_out_accuracies[-3:])) if len(self.held_out_accuracies) else math.nan

    @cached_property
    def error_ratio(self) -> np.ndarray:
        """The error that reaches the layers, relative to the output's, (E, L)."""
        error = self.layer("error_rms")
        return np.where(error[:, -1:] > 0, error / error[:, -1:], np.nan)

    def fades(self, limit: float) -> np.ndarray:
        """Return at which epochs less than a limit of the error is left at the first layer, (E,).

        It fades layer by layer: a loss in the first layer alone comes from the inputs, and with one hidden layer there
        is no way on which it could.
        """
        if len(self.names) < 3:
            return np.zeros(len(self.epochs), dtype=bool)
        ratio = self.error_ratio
        return (ratio[:, 0] < limit) & (ratio[:, 1] < math.sqrt(limit))

    @cached_property
    def fade_limit(self) -> Limit:
        """The share of the error at the first layer below which it has faded."""
        sigmoids = all(layer.activation in SIGMOIDS for layer in self.facts.layers[:-1])
        return LIMITS.error_ratio_of_sigmoids if sigmoids else LIMITS.error_ratio

    @cached_property
    def faded(self) -> np.ndarray:
        """At which epochs the error fades on its way, by the limit of the network's activations, (E,)."""
        return self.fades(self.fade_limit)

    @cached_property
    def vanished(self) -> bool:
        """Whether the error fades in at least half of the intact epochs."""
        return bool(2 * self.faded.sum() >= max(self.intact.sum(), 1))

    @cached_property
    def fades_above(self) -> bool:
        """Whether bounded activations let the first error fade before the second layer, whatever the inputs are."""
        error, bounded = self.layer("error_rms")[:1], np.isfinite(self.hidden_layer("saturation")[:1]).any()
        return len(self.names) > 2 and bool(bounded and (error[:, 1] < LIMITS.error_ratio * error[:, -1]).any())

    @cached_property
    def blew_up(self) -> bool:
        """Whether the loss rose far above its start, or numbers became infinite: nothing small does that."""
        return self.broken or self.jumped

    @cached_property
    def off_inputs(self) -> tuple[str, float, Limit | float] | None:
        """The measure in which the inputs are furthest from mean 0 and deviation 1, its value and limit, or None."""
        rms, offset, spread = (
            float(self.measured.of_network(f"input_{name}")[0]) for name in ("rms", "offset", "spread")
        )
        size = max(rms, 1 / rms) if rms > 0 else math.nan
        ways = [
            (offset / LIMITS.input_offset, "input_offset", offset, LIMITS.input_offset),
            (spread / LIMITS.input_spread, "input_spread", spread, LIMITS.input_spread),
            (size / LIMITS.input_rms, "input_rms", rms, LIMITS.input_rms if rms > 1 else 1 / LIMITS.input_rms),
        ]
        if rms < 1 and self.blew_up:
            ways = ways[:2]
        over = [way for way in ways if way[0] > 1]
        return max(over, key=lambda way: way[0])[1:] if over else None

    @cached_property
    def log_gain(self) -> np.ndarray:
        """The logarithm of the weights' size before training, relative to the recommended, (L,); NaN where unknown.

        Recommended is a deviation, times the root of the fan-in, of the root of 2 for rectifiers (He et al. 2015) and
        of 1 for others (Glorot & Bengio 2010). As good are the smaller weights that Glorot's rule gives to a layer that
        is wider than its inputs, and to a convolution, of which it counts a kernel's positions in the fan-out; and of
        sigmoids weights up to four times as large, which make up for their slope of at most 1/4 (Nielsen, chapter 5).
        """
        if not len(self.epochs) or self.epochs[0] != 0:
            return np.full(len(self.names), np.nan)
        wanted = [math.sqrt(2) if layer.activation in RECTIFIERS else 1.0 for layer in self.facts.layers]
        size = [math.sqrt(layer.fan_in / max(layer.n_weights, 1)) for layer in self.facts.layers]
        lookup = [layer.kind == "Embedding" for layer in self.facts.layers]  # no sum over a fan-in
        gain = np.where(lookup, np.nan, self.layer("weight_norm")[0] * np.array(size) / np.array(wanted))
        gain = np.log(np.maximum(gain, 1e-30))
        for i, layer in enumerate(self.facts.layers):
            if "Conv" in layer.kind:
                # The channels that come in are not known, but no more than came out of the convolution before.
                before = self.facts.layers[i - 1] if i else None
                channels = before.units if before and "Conv" in before.kind else 1
                glorot = math.log(math.sqrt(2 / (1 + layer.units / channels)) / wanted[i])
                gain[i] -= np.clip(gain[i], min(glorot, 0.0), 0.0)
            elif layer.kind == "Dense" and layer.units > layer.fan_in:
                gain[i] -= np.clip(gain[i], 0.5 * math.log(2 * layer.fan_in / (layer.fan_in + layer.units)), 0.0)
            if layer.activation in SIGMOIDS:
                gain[i] -= np.clip(gain[i], 0.0, math.log(4))
        return gain

    @cached_property
    def n_updates(self) -> float:
        """How many updates there were; 32 an epoch where that is not known."""
        rows, batch = self.facts.n_rows, self.facts.batch_size
        return max(len(self.losses), 1) * (math.ceil(rows / batch) if rows and batch else 32.0)

    @cached_property
    def update_ratio(self) -> np.ndarray:
        """The update ratios after training began, (E, L): NaN before."""
        return np.where(self.epochs[:, None] >= 1, self.layer("update_ratio"), np.nan)

    @cached_property
    def typical_update(self) -> np.ndarray:
        """The median update ratio of each layer, (L,), over the epochs in which one of any layer was measured.

        A layer without one counts as not updated; NaN without any.
        """
        seen = np.isfinite(self.update_ratio).any(axis=1)
        if not seen.any():
            return np.full(len(self.names), np.nan)
        return np.median(np.nan_to_num(self.update_ratio[seen]), axis=0)

    @cached_property
    def hardly_moved(self) -> bool:
        """Whether all updates together can hardly have moved most layers."""
        return bool(self.names) and bool(0 < np.median(self.typical_update) * self.n_updates < LIMITS.travel)

    @cached_property
    def course(self) -> np.ndarray:
        """The finite training losses relative to the baseline, (T,)."""
        return self.losses[np.isfinite(self.losses)] / self.baseline

    @cached_property
    def rises(self) -> float:
        """The sum of the rises of the relative loss."""
        steps = np.diff(self.course)
        return float(steps[steps > 0].sum())

    @cached_property
    def rise_share(self) -> float:
        """The share of the loss's movement that is upwards."""
        return self.rises / max(float(np.abs(np.diff(self.course)).sum()), 1e-12)

    @cached_property
    def jumped(self) -> bool:
        """Whether the loss rose above that of a constant prediction and that before training."""
        start = self.start / self.baseline if math.isfinite(self.start) else 1.0
        return bool((self.course > LIMITS.jump * max(start, 1.0)).any())

    @cached_property
    def unsteady(self) -> bool:
        """Whether steps made the training loss rise far above its start, or go up and down."""
        if self.jumped:
            return True
        if self.fades(LIMITS.error_ratio)[:1].any() and not (self.course < LIMITS.stalled).any():
            return False  # the last layers alone are trained, and find nothing
        return self.rises > LIMITS.rises and self.rise_share > LIMITS.rise_share

    @cached_property
    def falling(self) -> float:
        """The fall of the relative loss over the second half of training; NaN of fewer than four epochs."""
        return _late_fall(self.course)

    @cached_property
    def falling_held_out(self) -> float:
        """The same of the held-out loss."""
        return _late_fall(self.held_out[1] / self.baseline)

    @cached_property
    def swings(self) -> tuple[float, float]:
        """How far the held-out score moves in an epoch of the second half, and how far in vain; NaN without one.

        A mean over epochs, as a share of the most that was learned; in vain is what does not lead up from the first to
        the last of them.
        """
        score = self.held_out_score[1]
        if len(score) < 4 or not np.isfinite(score).all():
            return math.nan, math.nan
        steps = np.diff(np.maximum(score, -1.0))[-(len(score) // 2) :]
        learned = max(score.max(), LIMITS.learned)
        moved = np.abs(steps).mean()
        return float(moved / learned), float((moved - max(steps.mean(), 0.0)) / learned)

    @cached_property
    def swinging(self) -> bool:
        """Whether the held-out score moves far in an epoch, and too far in vain."""
        moved, in_vain = self.swings
        return moved > LIMITS.swings and in_vain > LIMITS.in_vain

    @cached_property
    def held_out_score(self) -> tuple[str, np.ndarray]:
        """What was learned on held-out rows after every epoch, (T,), and the series that tells it.

        It is the accuracy above that of the commonest class, else 1 minus the relative loss.
        """
        accuracy = self.held_out_accuracies - self.trivial_accuracy
        if np.isfinite(accuracy).any():
            return self.held_out[0].replace("loss", "accuracy"), accuracy
        return self.held_out[0], 1 - self.held_out[1] / self.baseline

    @property
    def severity(self) -> float:
        """How severe a condition is that keeps the network from learning."""
        return float(np.clip(self.left if math.isfinite(self.left) else 1.0, 0.05, 1.0))


def _late_fall(series: np.ndarray) -> float:
    """Return the fall of a series over its second half, NaN of fewer than four values."""
    n = len(series)
    return float(np.median(series[n // 2 :][:3]) - np.median(series[-3:])) if n >= 4 else math.nan


# A condition returns a finding, None where it does not hold, or a string that says why that cannot be judged.
Judgement = Finding | str | None

_UNTRAINED = "no epoch of training"
_NEVER = "on held-out rows it is no better than a constant prediction after any epoch"
_NO_BASELINE = "the training loss, or what a constant prediction would cost, is not known"


def _unknown(e: Evidence) -> str | None:
    """Return why no condition of training can be judged, or None."""
    if not len(e.losses) and not e.broken:
        return _UNTRAINED
    if not e.broken and not math.isfinite(e.left):
        return _NO_BASELINE
    if not len(e.epochs):
        return "nothing was measured"
    return None if e.names else "no layers were measured"


def _narrower(e: Evidence, low: float, high: float, reason: str) -> tuple[Remedy, ...]:
    """Return a range of learning rates relative to the trial's own, where that is known."""
    rate = e.facts.learning_rate
    if rate is None or not math.isfinite(rate) or rate <= 0:
        return ()
    return (Remedy({"learning_rate": (rate * low, rate * high)}, reason),)


def _batch_normalization(e: Evidence) -> tuple[Remedy, ...]:
    if e.facts.normalization:
        return ()
    reason = "batch normalisation keeps activations and gradients in range (Ioffe & Szegedy 2015)"
    return (Remedy({"batch_normalization": "before"}, reason),)


def _residual(e: Evidence) -> tuple[Remedy, ...]:
    if e.facts.residual or len(e.names) < 4:
        return ()
    return (Remedy({"residual": True}, "shortcuts carry the gradient past the layers (He et al. 2016)"),)


def _clipping(e: Evidence) -> tuple[Remedy, ...]:
    if e.facts.clipnorm:
        return ()
    return (Remedy({"clipnorm": 1.0}, "clipping bounds the step whatever the gradient (Pascanu et al. 2013)"),)


def _activation(e: Evidence, name: str, reason: str) -> tuple[Remedy, ...]:
    if all(layer.activation == name for layer in e.facts.layers[:-1]):
        return ()
    return (Remedy({"activation": name}, reason),)


def _initializer(e: Evidence) -> tuple[Remedy, ...]:
    """Return the initializer that keeps the variance of the network's activation."""
    used = Counter(layer.activation for layer in e.facts.layers[:-1])
    activation = min(used, key=lambda name: (-used[name], name)) if used else "linear"
    name = "he_normal" if activation in RECTIFIERS else "lecun_normal" if activation == "selu" else "glorot_uniform"
    asked = {"kernel_initializer": e.facts.kernel_initializer, "bias_initializer": e.facts.bias_initializer}
    wanted = {"kernel_initializer": name, "bias_initializer": "zeros"}
    edit = {key: value for key, value in wanted.items() if asked[key] != value}
    return (Remedy(edit, f"it keeps the variance of a {activation} network's signal"),) if edit else ()


_STANDARDIZE = Remedy({"inputs": "standardize"}, "put a StandardScaler before the network, in its pipeline")


def non_finite(e: Evidence) -> Judgement:
    """Find weights, gradients, activations or a loss that are NaN or infinite."""
    if not len(e.losses) and not len(e.epochs):
        return "nothing was measured"
    if not e.broken:
        return None
    counts = e.measured.layer("non_finite")
    total = np.nan_to_num(e.measured.of_network("non_finite"), nan=1.0)
    worst = float(total[-1]) if len(total) else 1.0
    when = e.at(total > 0)
    since = f" since epoch {when[0]}" if when else ""
    return Finding(
        condition="non_finite",
        severity=1.0,
        layers=e.where(counts > 0),
        epochs=when,
        measure="non_finite",
        value=max(worst, 1.0),
        threshold=0.0,
        source="a number that is not finite ends training",
        message=f"Weights, gradients, activations or the loss are NaN or infinite{since}.",
        remedies=(*_narrower(e, 1 / 100, 1 / 5, "smaller steps do not overflow"), *_clipping(e)),
    )


def unscaled_inputs(e: Evidence) -> Judgement:
    """Find features far from mean 0 and deviation 1."""
    if reason := _unknown(e):
        return reason
    if not e.short_held_out or e.fades_above:
        return None
    if e.off_inputs is None:
        return None
    measure, value, threshold = e.off_inputs
    says = {
        "input_offset": f"the features' means are {value:.3g} times their deviations",
        "input_spread": f"the features' scales differ by {value:.2g} powers of ten (one standard deviation)",
        "input_rms": f"the inputs' root mean square is {value:.3g} instead of about 1",
    }
    return Finding(
        condition="unscaled_inputs",
        severity=e.severity,
        layers=e.names[:1],
        epochs=(int(e.epochs[0]),),
        measure=measure,
        value=value,
        threshold=float(threshold),
        source=getattr(LIMITS, measure).source,
        message=f"The inputs are not scaled: {says[measure]}, and {_left(e)}.",
        remedies=(_STANDARDIZE,) + _batch_normalization(e),
    )


def _left(e: Evidence) -> str:
    """Return in words how far training falls short."""
    if e.broken:
        return "training broke down"
    return f"{e.left:.0%} of a constant prediction's loss is left"


def poor_initialization(e: Evidence) -> Judgement:
    """Find initial weights far from those that keep a signal's variance, or that leave a layer dead."""
    if reason := _unknown(e):
        return reason
    if e.epochs[0] != 0:
        return "the network was not measured before its first epoch"
    if not e.short_held_out:
        return None
    judged = e.hidden if len(e.names) > 1 else np.array([True])
    gain = np.where(judged, e.log_gain, np.nan)
    if not e.short or e.blew_up:
        # Only large weights blow up, or fit the training rows and no others (Chizat et al. 2019).
        gain = np.maximum(gain, 0.0)
    saturation = e.hidden_layer("saturation")[0]
    dead = np.where(np.isfinite(e.layer("saturation")[0]), np.nan, e.hidden_layer("dead_units")[0])
    off = np.abs(gain) > math.log(LIMITS.gain)
    # Inputs of a usual size and weights of a usual size saturate and kill few units: the biases do.
    fewest = LIMITS.dead_at_start if e.off_inputs is None else LIMITS.dead
    none = dead >= fewest
    saturated = [
        LIMITS.saturation_of_sigmoids if layer.activation in SIGMOIDS else LIMITS.saturation for layer in e.facts.layers
    ]
    far = (saturation >= np.array(saturated)) & (e.off_inputs is None)
    # Small deviations multiply from layer to layer, but a bounded activation stops growth, and normalisation both.
    bounded = np.isfinite(saturation).any()
    total = float(np.nansum(gain))
    if abs(total) > math.log(LIMITS.total_gain) and not e.facts.normalization and (total < 0 or not bounded):
        off |= np.sign(gain) == np.sign(total)
    if off.any():
        worst = int(np.nanargmax(np.where(off, np.abs(gain), np.nan)))
        limit, value = LIMITS.gain, math.exp(gain[worst])
        said = f"before training the weights of {e.names[worst]} are {value:.2g} times as large as recommended"
        if abs(gain[worst]) <= math.log(LIMITS.gain):
            limit, value = LIMITS.total_gain, math.exp(total)
            said = f"before training the layers' weights together change a signal's size by a factor of {value:.2g}"
        threshold = float(limit if value > 1 else 1 / limit)
        measure, source = "weight_norm", limit.source
    elif none.any():
        worst = int(np.nanargmax(dead))
        value, measure, threshold, source = float(dead[worst]), "dead_units", float(fewest), fewest.source
        said = f"before training {value:.0%} of the units of {e.names[worst]} have no slope"
    elif far.any():
        worst = int(np.nanargmax(np.where(far, saturation, np.nan)))
        value, measure, source = float(saturation[worst]), "saturation", saturated[worst].source
        threshold = float(saturated[worst])
        said = f"before training {value:.0%} of the activations of {e.names[worst]} are saturated"
    else:
        return None
    return Finding(
        condition="poor_initialization",
        severity=e.severity,
        layers=e.where(off | none | far),
        epochs=(0,),
        measure=measure,
        value=value,
        threshold=threshold,
        source=source,
        message=f"The network starts badly: {said}, and {_left(e)}.",
        remedies=_initializer(e) + _batch_normalization(e),
    )


def vanishing_gradients(e: Evidence) -> Judgement:
    """Find an error that fades on its way to the first layer."""
    if reason := _unknown(e):
        return reason
    if not (e.short and e.vanished):
        return None
    ratio, limit = e.error_ratio, e.fade_limit
    shown = (ratio < limit) & e.hidden & e.faded[:, None]
    value = float(np.median(ratio[e.faded, 0]))
    return Finding(
        condition="vanishing_gradients",
        severity=e.severity,
        layers=e.where(shown),
        epochs=e.at(shown),
        measure="error_rms",
        value=value,
        threshold=float(limit),
        source=limit.source,
        message=f"The error that reaches {e.names[0]} is {value:.2g} times that of the output, and {_left(e)}.",
        remedies=(
            *_batch_normalization(e),
            *_residual(e),
            *_activation(e, "elu", "its slope is 1 for positive values, which does not shrink the error"),
        ),
    )


def exploding_gradients(e: Evidence) -> Judgement:
    """Find a gradient so large that steps along it make the loss rise, or the score on held-out rows swing."""
    if reason := _unknown(e):
        return reason
    # Where the error fades, the last layers alone learn, and their score swings for want of the others.
    swinging = e.short and e.swinging and not e.vanished
    if e.adaptive or e.facts.clipnorm or not (e.thrown or swinging):
        return None
    if e.facts.learning_rate is not None and e.facts.learning_rate > LIMITS.clippable:
        return None
    norm = e.network("grad_norm")
    shown = norm > LIMITS.gradient
    if not shown.any():
        return None
    value = float(np.nanmax(norm))
    effect = "loss rise" if e.thrown else "score on held-out rows swing"
    return Finding(
        condition="exploding_gradients",
        severity=e.severity,
        layers=e.where((e.layer("grad_norm") > LIMITS.gradient) & shown[:, None]),
        epochs=e.at(shown),
        measure="grad_norm",
        value=value,
        threshold=float(LIMITS.gradient),
        source=LIMITS.gradient.source,
        message=f"The gradient's norm reaches {value:.3g}, steps along it make the {effect}, and {_left(e)}.",
        remedies=(*_clipping(e), *_narrower(e, 1 / 100, 1 / 5, "smaller steps bear larger gradients")),
    )


def saturated_units(e: Evidence) -> Judgement:
    """Find hidden layers most of whose activations lie at their asymptotes, where there is no slope."""
    if reason := _unknown(e):
        return reason
    if not e.short:
        return None
    share = e.hidden_layer("saturation")
    shown = share >= LIMITS.saturation
    if not shown.any():
        return None
    value = float(np.nanmax(share))
    return Finding(
        condition="saturated_units",
        severity=e.severity,
        layers=e.where(shown),
        epochs=e.at(shown),
        measure="saturation",
        value=value,
        threshold=float(LIMITS.saturation),
        source=LIMITS.saturation.source,
        message=f"Up to {value:.0%} of a hidden layer's activations are saturated, where they hardly learn, "
        f"and {_left(e)}.",
        remedies=(
            *((_STANDARDIZE,) if e.off_inputs else ()),
            # What was not saturated before training became so by its steps.
            *(_narrower(e, 1 / 100, 1 / 5, "smaller steps stay in range") if 0 not in e.at(shown) else ()),
            *_batch_normalization(e),
            *_activation(e, "elu", "it does not saturate for positive values"),
        ),
    )


def saturated_outputs(e: Evidence) -> Judgement:
    """Find outputs that are saturated at the wrong end under squared error, where they hardly learn."""
    if reason := _unknown(e):
        return reason
    if "crossentropy" in e.facts.loss or not e.short:
        return None  # cross-entropy cancels the slope of the output, so that wrong outputs learn fastest
    wrong = e.network("output_wrong")
    shown = wrong >= LIMITS.wrong
    if not shown.any() or not shown[-1]:
        return None
    value = float(wrong[-1])
    return Finding(
        condition="saturated_outputs",
        severity=e.severity,
        layers=e.names[-1:],
        epochs=e.at(shown),
        measure="output_wrong",
        value=value,
        threshold=float(LIMITS.wrong),
        source=LIMITS.wrong.source,
        message=f"{value:.0%} of the outputs are saturated at the wrong end, where {e.facts.loss} has no slope, "
        f"and {_left(e)}.",
        remedies=(
            Remedy(
                {"output_activation": "auto"}, "a linear output has the same slope everywhere, and reaches any value"
            )
            if e.facts.task == "regression"
            else Remedy(
                {"loss": "auto", "output_activation": "auto"},
                "with cross-entropy a wrong output learns the faster the more wrong it is (Nielsen, ch. 3)",
            ),
        ),
    )


def dead_units(e: Evidence) -> Judgement:
    """Find layers most of whose units have no slope on any row, so that their weights cannot learn."""
    if reason := _unknown(e):
        return reason
    if not e.short:
        return None
    share = np.where(
        np.isfinite(e.layer("saturation")), np.nan, e.hidden_layer("dead_units")
    )  # else they are saturated
    shown = share >= LIMITS.dead
    if not shown.any():
        return None
    value = float(np.nanmax(share))
    return Finding(
        condition="dead_units",
        severity=e.severity,
        layers=e.where(shown),
        epochs=e.at(shown),
        measure="dead_units",
        value=value,
        threshold=float(LIMITS.dead),
        source=LIMITS.dead.source,
        message=f"Up to {value:.0%} of a hidden layer's units are dead: no row gives them a gradient, and {_left(e)}.",
        remedies=(
            *_activation(e, "leaky_relu", "its slope is never 0 (Maas et al. 2013)"),
            *_batch_normalization(e),
            *(
                _narrower(e, 1 / 100, 1 / 5, "large steps push units out of reach of the data")
                if 0 not in e.at(shown)
                else ()
            ),
        ),
    )


def update_too_small(e: Evidence) -> Judgement:
    """Find weights that hardly move although a gradient reaches them."""
    if reason := _unknown(e):
        return reason
    ratio = e.update_ratio
    if not np.isfinite(ratio).any():
        return "no update was measured"
    if not e.short or e.broken or e.jumped or (e.hidden_layer("dead_units") >= LIMITS.dead).any():
        return None
    typical = e.typical_update
    value = float(np.median(typical))
    started_well = not e.start > LIMITS.bad_start * e.baseline or e.left < LIMITS.unmoved
    unfinished = LIMITS.half_finished if e.falling > LIMITS.falling_fast else LIMITS.unfinished
    steady = started_well and e.falling > LIMITS.falling and e.rise_share < LIMITS.rise_share
    if e.falling_held_out < LIMITS.held_out_fall * e.falling:
        steady = False  # what there is to learn has been learned
    limit = LIMITS.update_low if steady else LIMITS.travel
    threshold = float(limit) if steady else limit / e.n_updates
    if not 0 < value < threshold or not e.left > (unfinished if steady else LIMITS.unmoved):
        return None
    course = "and still falling" if steady else "and hardly falling"
    return Finding(
        condition="update_too_small",
        severity=e.severity,
        layers=e.where(typical < threshold),
        epochs=e.at(np.isfinite(ratio)),
        measure="update_ratio",
        value=value,
        threshold=threshold,
        source=limit.source,
        message=f"An update changes the weights of most layers by less than {threshold:.1g} of themselves, and after "
        f"{e.n_updates:.0f} updates {_left(e)}, {course}.",
        remedies=_narrower(e, 5, 100, "larger steps reach a low loss within the same number of updates"),
    )


def _arose(shown: np.ndarray) -> bool:
    """Whether something shows in any layer that showed in none at first, given as bool of shape (E, L)."""
    return bool(shown.any()) and not shown[:1].any()


def update_too_large(e: Evidence) -> Judgement:
    """Find updates that are large beside the weights, and make the loss rise, or units lose their slope in training."""
    if reason := _unknown(e):
        return reason
    if not (e.short or e.thrown):
        return None
    without_slope = {measure: e.hidden_layer(measure) for measure in ("dead_units", "saturation")}
    lost = [measure for measure, share in without_slope.items() if _arose(share >= LIMITS.dead)]
    drifted = _arose(without_slope["saturation"] >= LIMITS.saturation)
    ratio = e.update_ratio
    large = ratio > LIMITS.update_high
    # Of a network that broke down within its first epoch no update was measured.
    unseen = e.broken and not np.isfinite(ratio).any()
    if not (lost or unseen or (large.any() and (e.thrown or drifted))):
        return None
    if unseen or large.any():
        shown, measure, limit = large, "update_ratio", LIMITS.update_high
        value = float(np.nanmax(ratio)) if large.any() else math.inf
        size = f"by up to {value:.2g} of themselves" if large.any() else "out of reach within an epoch"
        effect = "" if e.broken else "the loss rises, " if e.thrown else "units lose their slope, "
        said = f"Updates change the weights {size}, {effect}and {_left(e)}."
    else:
        measure, limit = lost[0], LIMITS.dead
        shown, value = without_slope[measure] >= limit, float(np.nanmax(without_slope[measure]))
        what = "units" if measure == "dead_units" else "activations"
        said = f"Up to {value:.0%} of a hidden layer's {what} lost their slope in training, and {_left(e)}."
    return Finding(
        condition="update_too_large",
        severity=e.severity,
        layers=e.where(shown),
        epochs=e.at(shown) or (1,),
        measure=measure,
        value=value,
        threshold=float(limit),
        source=limit.source,
        message=said,
        remedies=(*_narrower(e, 1 / 100, 1 / 5, "smaller steps settle"), *_clipping(e)),
    )


def oscillating_loss(e: Evidence) -> Judgement:
    """Find a score on held-out rows, or without them a training loss, that goes up and down, or down, for no gain."""
    if reason := _unknown(e):
        return reason
    if len(e.course) < 4:
        return "fewer than four epochs of training"
    if e.broken:
        return "training broke down"
    moved, in_vain = e.swings
    if math.isfinite(moved):
        (measure, score), value, limit = e.held_out_score, moved, LIMITS.swings
        found, worse = e.swinging, np.diff(score) < 0
        said = (
            f"On held-out rows the score moves by {value:.0%} of what was learned in an epoch on average, "
            f"{in_vain:.0%} in vain"
        )
    else:
        measure, value, limit, worse = "loss", e.rises, LIMITS.rises, np.diff(e.losses) > 0
        found = e.short and value > limit and e.rise_share > LIMITS.rise_share
        said = f"The training loss rose by {value:.2g} of a constant prediction's in all"
    if not found:
        return None
    return Finding(
        condition="oscillating_loss",
        severity=float(np.clip(e.left if e.short else value, 0.05, 1.0)),
        layers=(),
        epochs=tuple(int(i) + 2 for i in np.flatnonzero(worse)),
        measure=measure,
        value=value,
        threshold=float(limit),
        source=limit.source,
        message=f"{said}, and {_left(e)}.",
        remedies=_narrower(e, 1 / 100, 1 / 5, "smaller steps settle"),
    )


def stalled_loss(e: Evidence) -> Judgement:
    """Find a network that is no better than a constant prediction at the end."""
    if not len(e.losses) and not e.broken:
        return _UNTRAINED
    if e.broken:
        return None  # its loss does not stand still
    if not math.isfinite(e.left):
        return _NO_BASELINE
    # A loss may be high for a few rows that the network is wrong and sure about.
    better, better_held_out = (
        (accuracy - e.trivial_accuracy) / (1 - e.trivial_accuracy) for accuracy in (e.accuracy, e.accuracy_held_out)
    )
    stalled = e.left >= LIMITS.stalled and not better > LIMITS.better
    # Far from the start a network may fit its rows, and never any others.
    never = e.short and e.best_held_out >= LIMITS.stalled and not better_held_out > LIMITS.better
    if not (stalled or never):
        return None
    return Finding(
        condition="stalled_loss",
        severity=e.severity,
        layers=(),
        epochs=tuple(int(i) for i in e.epochs[e.epochs > 0]),
        measure="loss" if stalled else e.held_out[0],
        value=e.left if stalled else e.best_held_out,
        threshold=float(LIMITS.stalled),
        source=LIMITS.stalled.source,
        message=f"The network learned nothing: {_left(e) if stalled else _NEVER}.",
        remedies=(),
    )


def overfitting(e: Evidence) -> Judgement:
    """Find a loss on held-out rows that rises while the training loss falls."""
    name, series = e.held_out
    if not name:
        return "no loss on held-out rows"
    if e.broken or len(series) < 4 or len(e.losses) < len(series) or not math.isfinite(e.baseline):
        return None if e.broken else "fewer than four epochs of training"
    best = int(np.nanargmin(np.where(np.isfinite(series), series, np.inf)))
    end = float(np.median(series[-3:]))
    rise = (end - float(series[best])) / e.baseline
    falling = float(np.median(e.losses[-3:])) < float(e.losses[best])
    accuracy = np.asarray(e.measured.history.get(name.replace("loss", "accuracy"), ()), dtype=float).ravel()
    drop = float(np.max(accuracy) - np.median(accuracy[-3:])) if len(accuracy) else math.nan
    if not rise > LIMITS.overfit or not falling or drop < LIMITS.overfit_accuracy:
        return None
    possible = max(1 - float(series[best]) / e.baseline, 0.0)
    return Finding(
        condition="overfitting",
        severity=1.0 if rise >= possible else max(rise / possible, 0.05),
        layers=(),
        epochs=tuple(range(best + 2, len(series) + 1)),
        measure=name,
        value=rise,
        threshold=float(LIMITS.overfit),
        source=LIMITS.overfit.source,
        message=f"Since epoch {best + 1} the held-out loss has risen from {series[best]:.3g} to {end:.3g} while the "
        f"training loss fell to {np.median(e.losses[-3:]):.3g}.",
        remedies=(
            Remedy({"early_stopping": True}, f"the held-out loss was lowest after epoch {best + 1}"),
            Remedy({"dropout": 0.3}, "dropout hinders units from learning rows by heart (Srivastava et al. 2014)"),
        ),
    )


#: One function for each of `CONDITIONS`.
JUDGES: Mapping[str, Callable[[Evidence], Judgement]] = {
    "vanishing_gradients": vanishing_gradients,
    "exploding_gradients": exploding_gradients,
    "saturated_units": saturated_units,
    "saturated_outputs": saturated_outputs,
    "dead_units": dead_units,
    "non_finite": non_finite,
    "update_too_small": update_too_small,
    "update_too_large": update_too_large,
    "oscillating_loss": oscillating_loss,
    "stalled_loss": stalled_loss,
    "poor_initialization": poor_initialization,
    "unscaled_inputs": unscaled_inputs,
    "overfitting": overfitting,
}


def judge(measurements: Sequence[Measurements]) -> HealthReport:
    """Diagnose one trial.

    Parameters
    ----------
    measurements : sequence of Measurements
        One for each fold or seed, in any order.

    Returns
    -------
    HealthReport
        A condition is found when more than half of the folds in which it can be judged show it; its numbers are
        those of the fold of median severity.
    """
    evidence = [Evidence(measured) for measured in measurements]
    notes = [note for measured in measurements for note in measured.facts.notes]
    if any(e.facts.baseline_loss is None and math.isfinite(e.baseline) for e in evidence):
        notes.append("the loss of the best constant prediction is not known: that before training stands for it")
    found: dict[str, Finding] = {}
    for condition in CONDITIONS:
        with np.errstate(all="ignore"):
            judgements = [JUDGES[condition](e) for e in evidence]
        reasons = [judgement for judgement in judgements if isinstance(judgement, str)]
        if len(reasons) == len(judgements):
            notes += [f"{condition} was not judged: {reason}" for reason in reasons or ["there are no measurements"]]
            continue
        shown = [judgement for judgement in judgements if isinstance(judgement, Finding)]
        n_judged = len(judgements) - len(reasons)
        if 2 * len(shown) > n_judged:
            # A whole finding of one fold, so that its numbers fit together; sorted, for any order of the folds.
            shown.sort(key=lambda finding: (finding.severity, repr(finding)))
            found[condition] = replace(shown[len(shown) // 2], folds=len(shown), n_folds=n_judged)
    with np.errstate(all="ignore"):
        found = _own(found, evidence)
    findings = _explained(found)
    findings.sort(
        key=lambda f: (f.consequence_of is not None, -f.severity * f.folds / f.n_folds, PRECEDENCE.index(f.condition))
    )
    return HealthReport(tuple(findings), tuple(sorted(set(notes))), tuple(measurements))


def _first(finding: Finding) -> float:
    return min(finding.epochs, default=math.inf)


def _own(found: Mapping[str, Finding], evidence: Sequence[Evidence]) -> dict[str, Finding]:
    """Return the findings without what others bring with them.

    Parameters
    ----------
    found : dict of str to Finding
    evidence : sequence of Evidence
        One for each fold: the optimizer and the updates decide where `BRINGS` has exceptions.
    """
    brought = {
        (cause, condition)
        for cause, conditions in BRINGS.items()
        for condition in conditions
        if cause in found and condition in found and _first(found[cause]) <= _first(found[condition])
    }
    if _most(e.adaptive for e in evidence):
        # The steps of such an optimizer do not grow with the gradient: large weights do not make them large, nor do
        # large inputs make a score swing. And if they can hardly move the weights, no other inputs would help.
        brought -= {("poor_initialization", "update_too_large"), ("unscaled_inputs", "oscillating_loss")}
        if _most(e.hardly_moved for e in evidence if np.isfinite(e.update_ratio).any()):
            brought.discard(("unscaled_inputs", "update_too_small"))
    gone = {condition for _, condition in brought}
    if "update_too_large" not in gone and ("update_too_large", "vanishing_gradients") in brought:
        # Whatever became of the gradients, smaller steps calm what oscillates.
        brought.discard(("vanishing_gradients", "oscillating_loss"))
        gone = {condition for _, condition in brought}
    return {condition: finding for condition, finding in found.items() if condition not in gone}


def _most(flags: Iterable[bool]) -> bool:
    """Return whether more than half of some flags are set."""
    flags = list(flags)
    return 2 * sum(flags) > len(flags)


def _explained(found: Mapping[str, Finding]) -> list[Finding]:
    """Return the findings with their causes: the first of `CAUSES` that was found and does not come later."""
    explained = []
    for condition, finding in found.items():
        causes = (found[c] for c in CAUSES.get(condition, ()) if c in found)
        cause = next((c for c in causes if _first(c) <= _first(finding)), None)
        explained.append(replace(finding, consequence_of=cause.condition if cause else None))
    return explained


def fatal(measurements: Sequence[Measurements], updates_left: float) -> str | None:
    """Return why a trial in training will not recover, or None.

    Parameters
    ----------
    measurements : sequence of Measurements
        One for each fold or seed.
    updates_left : float
        How many updates are still to come in each, in units of the last one: half of one where the learning rate will
        have fallen by half.

    Returns
    -------
    str or None
        One line, when all folds suffer from the same condition from which training does not recover. A false alarm
        would discard a good trial, so doubt counts as health.
    """
    with np.errstate(all="ignore"):
        by_fold = [_fatal(Evidence(measured), updates_left) for measured in measurements]
    for reason in by_fold[0] if by_fold else ():
        if all(reason in reasons for reasons in by_fold):
            return reason
    return None


def _fatal(e: Evidence, updates_left: float) -> list[str]:
    """Return all reasons why one fold will not recover."""
    if e.broken:
        return ["non_finite: weights, gradients, activations or the loss are NaN or infinite"]
    reasons = []
    losses, trained = e.losses, e.epochs >= 1
    if len(losses) < 2 or trained.sum() < 2 or not math.isfinite(e.baseline):
        return []
    if losses[-1] >= losses[-2] > LIMITS.blown_up * e.baseline and losses[-1] > e.start:
        reasons.append(
            f"exploding_gradients: the loss is over {LIMITS.blown_up:g} times a constant prediction's and rises"
        )
    nothing = bool(np.all(losses[-2:] >= LIMITS.nothing * e.baseline)) and not e.accuracy >= LIMITS.accurate
    if not nothing or not e.hidden.any():
        return reasons
    last = np.flatnonzero(trained)[-2:]
    error = e.layer("error_rms")[last]
    # Only where the error fades, too: else the rate alone is small, and even so the loss may fall in the end.
    cut_off = error[:, 0] < LIMITS.cut_off * error[:, -1]
    if np.all(e.layer("grad_rms")[last, 0] == 0):
        reasons.append(f"vanishing_gradients: no gradient reaches {e.names[0]}")
    elif np.all(cut_off & (e.layer("update_ratio")[last, 0] * updates_left < LIMITS.travel)):
        reasons.append(
            f"vanishing_gradients: all updates to come move {e.names[0]} by less than {LIMITS.travel:.0%} of itself"
        )
    dead = (e.layer("dead_units")[last] >= 1).all(axis=0) & e.hidden
    if dead.any() and not e.facts.residual:
        reasons.append("dead_units: all units of a layer are dead")
    return reasons
