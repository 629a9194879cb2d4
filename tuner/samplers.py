"""Who proposes the trials of a search: the samplers that have a name, and one that Optuna lacks."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, BruteForceSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from tuner.errors import HyperparameterError
from tuner.hyperparameters import Number
from tuner.spaces import Space, quiet

#: The names that a search takes for its sampler.
NAMES = ("tpe", "random", "random_then_fine", "grid")


class RandomThenFineSampler(BaseSampler):
    """Random search over the whole space, then within a narrow box around the best trial so far.

    The multi-resolution search of Bengio, "Practical recommendations for gradient-based training of deep architectures"
    (2012), section 3.3, with uniform draws (section 3.4) in place of a grid. Each proposal is a function of the seed,
    the trial's number and the trials that are complete, so that a resumed study goes on as if it had not been
    interrupted.

    Parameters
    ----------
    n_random : int, default=20
        How many trials must be complete before the search becomes fine. Failed and pruned trials do not count, nor can
        one be the best. Of several objectives the first one counts; trials that break a constraint come last.
    width : float, default=0.2
        The width of the box as a share of each range, above 0 and at most 1: half of it lies on either side of the best
        value, as far as the range goes. The box of a logarithmic range has this share of its logarithms. In steps, the
        neighbours of the best value are always within.
    resample : float, default=0.2
        The probability with which a categorical parameter is drawn anew from all its choices; otherwise it keeps the
        best trial's.
    seed : int or None, default=None

    Raises
    ------
    HyperparameterError
        If an argument is out of range.
    """

    def __init__(self, n_random: int = 20, *, width: float = 0.2, resample: float = 0.2, seed: int | None = None):
        for name, value, allowed in (
            ("n_random", n_random, Number(1, integer=True)),
            ("width", width, Number(0, 1, low_open=True)),
            ("resample", resample, Number(0, 1)),
        ):
            if not allowed.accepts(value):
                raise HyperparameterError(f"{name} must be {allowed}; got {value!r}.")
        self.n_random = n_random
        self.width = width
        self.resample = resample
        self._seed = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])

    def reseed_rng(self) -> None:
        """Do nothing: another trial has another number, and so other draws."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: every parameter is drawn by itself."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter, near the best trial's value where the search is fine and that trial has one."""
        name = int.from_bytes(hashlib.sha256(param_name.encode()).digest()[:8], "big")
        rng = np.random.default_rng([self._seed, trial.number, name])
        best = self._best(study)
        known = best is not None and best.distributions.get(param_name) == param_distribution
        around = best.params[param_name] if best is not None and known else None
        if isinstance(param_distribution, CategoricalDistribution):
            if known and rng.random() >= self.resample:
                return around
            return param_distribution.choices[rng.integers(len(param_distribution.choices))]
        assert isinstance(param_distribution, FloatDistribution | IntDistribution)
        return _draw(rng, param_distribution, around, self.width)

    def _best(self, study: Study) -> FrozenTrial | None:
        """Return the best trial so far, None while the search is random."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(trials) < self.n_random:
            return None
        sign = 1 if study.directions[0] == StudyDirection.MAXIMIZE else -1
        return max(trials, key=lambda t: (all(c <= 0 for c in t.constraints.values()), sign * t.values[0]))


def _draw(
    rng: np.random.Generator, distribution: FloatDistribution | IntDistribution, around: float | None, width: float
) -> float | int:
    """Return a number of a range, or of the box around a number in it."""
    low, high, step = distribution.low, distribution.high, distribution.step
    margin = step / 2 if step else 0.0  # what is rounded to the first and to the last step
    first, last = low - margin, high + margin
    there, back = (math.log, math.exp) if distribution.log else (float, float)
    if around is not None:
        half = width / 2 * (there(last) - there(first))
        reach = 3 * margin  # the neighbours of a step, and what is rounded to them
        first, last = (
            max(first, min(back(there(around) - half), around - reach)),
            min(last, max(back(there(around) + half), around + reach)),
        )
    value = back(rng.uniform(there(first), there(last)))
    if step:
        value = low + step * round((value - low) / step)
    value = min(max(value, low), high)
    return int(value) if isinstance(distribution, IntDistribution) else value


def named_sampler(name: str, seed: int, first: int) -> BaseSampler:
    """Return the sampler of the round that begins after `first` trials.

    Parameters
    ----------
    name : str
        One of `NAMES`. "tpe" is a multivariate tree-structured Parzen estimator, which models how parameters act
        together; the constant liar keeps the proposals of one round apart. Optuna changed the defaults of both between
        4.9 and 5.0. "grid" goes through every combination once, in random order.
    seed, first : int
    """
    mixed = int(np.random.SeedSequence([seed, first]).generate_state(1)[0])
    if name == "tpe":
        return TPESampler(seed=mixed, multivariate=True, constant_liar=True)
    if name == "random":
        return RandomSampler(seed=mixed)
    if name == "random_then_fine":
        return RandomThenFineSampler(seed=seed)
    with warnings.catch_warnings():
        # Its interface may change, says Optuna. GridSampler cannot go through conditional spaces.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return BruteForceSampler(seed=mixed)


def n_combinations(space: Space) -> int:
    """Return how many trials the sampler "grid" goes through, conditions of the space included.

    Raises
    ------
    HyperparameterError
        If a range is continuous.
    """

    def ask(trial: Trial) -> float:
        space.suggest(trial)
        return 0.0

    check_grid(space.distributions)
    with quiet():
        study = optuna.create_study(sampler=named_sampler("grid", seed=0, first=0))
        study.optimize(ask)  # until the sampler has been everywhere
    return len(study.trials)


def check_grid(distributions: Mapping[str, BaseDistribution]) -> None:
    """Raise unless there is an end to the combinations.

    Raises
    ------
    HyperparameterError
        Naming the first range that is continuous.
    """
    for name, distribution in distributions.items():
        if isinstance(distribution, FloatDistribution) and distribution.step is None:
            raise HyperparameterError(
                f"{name}: sampler='grid' needs a list of values, or a range with a step; got {distribution!r}, which "
                "is continuous. Give the values of the grid, or take another sampler."
            )
