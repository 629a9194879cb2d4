"""Search spaces: lists, distributions and callables in, an estimator's own parameters out.

Optuna stores only None, booleans, numbers and strings, and knows a callable space's parameters by whatever names it
gave them. A `Space` stands between: what a trial stores can always be turned back into the estimator's parameters.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial, FrozenTrial, Trial
from sklearn.base import clone

from tuner.errors import HyperparameterError, did_you_mean

Params: TypeAlias = dict[str, Any]
SpaceFunction: TypeAlias = Callable[[Trial], Params]

#: On a trial: the parameters that it was proposed, in words. What Optuna stores does not show what a callable space
#: made of it.
PROPOSED = "tuner:params"

# A continuous distribution is sampled through its quantiles; those at 0 and 1 themselves may be infinite.
_QUANTILE_MARGIN = 1e-9
_LABEL_LENGTH = 60


def search_space(estimator: Any) -> dict[str, BaseDistribution]:
    """Return the ready search space of an estimator that holds Keras estimators.

    Parameters
    ----------
    estimator : estimator
        A Keras estimator, or anything that holds one: a pipeline, a ``TransformedTargetRegressor``, ...

    Returns
    -------
    dict of str to optuna distribution
        By the estimator's own parameter names, prefixes such as ``kerasclassifier__`` included.

    Raises
    ------
    HyperparameterError
        If there is no Keras estimator inside.
    """
    from tuner.hyperparameters import HYPERPARAMETERS, LogRange

    space: dict[str, BaseDistribution] = {}
    for prefix in keras_steps(estimator):
        for name, hyperparameter in HYPERPARAMETERS.items():
            match hyperparameter.search:
                case None:
                    continue
                case LogRange(low, high):
                    space[prefix + name] = FloatDistribution(low, high, log=True)
                case choices:
                    space[prefix + name] = _Choices(choices.values).distribution
    if not space:
        raise HyperparameterError(
            f"{type(estimator).__name__} holds no Keras estimator, so there is no ready search space for it: "
            "give param_distributions."
        )
    return space


def keras_steps(estimator: Any) -> dict[str, Any]:
    """Return the Keras estimators inside an estimator by the prefix of their parameters (``""`` for itself)."""
    if hasattr(estimator, "check_hyperparameters"):
        return {"": estimator}
    inner = estimator.get_params(deep=True).items()
    return {f"{name}__": v for name, v in inner if hasattr(v, "check_hyperparameters") and not isinstance(v, type)}


def configured(estimator: Any, params: Params, random_state: int | None = None, health: bool = True) -> Any:
    """Return a clone of the estimator with the parameters set, all hyperparameters checked.

    Parameters
    ----------
    estimator : estimator
    params : dict
    random_state : int, optional
        Given to every estimator inside, those among `params` included, whose own is None.
    health : bool
        False switches the measuring of gradients off in every Keras estimator inside.

    Raises
    ------
    HyperparameterError
        If a name is unknown or a value is not allowed.
    """
    for name in params:
        _check_name(name, estimator, params)
    # The values are cloned as well: they may be estimators, and those of another trial must not be shared.
    candidate = clone(estimator)
    try:
        candidate.set_params(**clone(params, safe=False))
    except ValueError as error:
        raise HyperparameterError(str(error)) from error
    if random_state is not None:
        own = candidate.get_params(deep=True).items()
        unset = [name for name, value in own if name.split("__")[-1] == "random_state" and value is None]
        candidate.set_params(**dict.fromkeys(unset, random_state))
    for step in keras_steps(candidate).values():
        if not health:
            step.set_params(health=False)
        step.check_hyperparameters()
    return candidate


def describe(value: Any) -> str:
    """Return a text for any value that is the same in every process: no memory addresses, no running numbers."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {describe(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(describe, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(describe, value)) + "]"
    if isinstance(value, type):
        return value.__qualname__
    if hasattr(value, "get_config"):  # Keras objects; their names are numbered through
        config = {k: v for k, v in value.get_config().items() if k != "name"}
        return f"{type(value).__name__}({', '.join(f'{k}={describe(v)}' for k, v in config.items())})"
    text = value.__repr__(N_CHAR_MAX=math.inf) if hasattr(value, "get_params") else repr(value)
    return re.sub(r"\s+", " ", re.sub(r" at 0x[0-9a-fA-F]+", "", text))


@contextmanager
def quiet(verbose: int = 0) -> Iterator[None]:
    """Keep Optuna's log messages off, unless `verbose` asks for them."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(level if verbose > 1 else optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


class Space(ABC):
    """What to search: proposes parameters and gives back those of stored trials.

    Attributes
    ----------
    example : dict
        The parameters of a throw-away trial, by the estimator's own names.
    distributions : dict
        What Optuna was asked for in that trial, by Optuna's names.
    """

    example: Params
    distributions: dict[str, BaseDistribution]

    @abstractmethod
    def suggest(self, trial: Trial) -> Params:
        """Let Optuna propose values; return them by the estimator's own names."""

    @abstractmethod
    def params_of(self, trial: FrozenTrial) -> Params:
        """Return the parameters of a stored trial, by the estimator's own names.

        Raises
        ------
        HyperparameterError
            If the trial was proposed from another space.
        """

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Return every searched parameter, by Optuna's name, with its range in words."""


def in_words(params: Params) -> dict[str, str]:
    """Return the description of every parameter."""
    return {name: describe(value) for name, value in params.items()}


def make_space(given: Mapping[str, Any] | SpaceFunction | None, estimator: Any) -> Space:
    """Build and check the space of a search.

    Parameters
    ----------
    given : mapping, callable or None
        A mapping from parameter names to Optuna distributions, lists (tuples, arrays) or scipy distributions; a
        callable ``space(trial) -> params``; or None for ``search_space(estimator)``.
    estimator : estimator
        What is searched.

    Raises
    ------
    HyperparameterError
        If a name is unknown, a range is empty or reversed, or a value is not allowed.
    """
    space: Space
    if callable(given):
        space = _CallableSpace(given)
    else:
        given = search_space(estimator) if given is None else given
        for name in given:
            _check_name(name, estimator, given)
        space = _MappingSpace({name: _dimension(name, value) for name, value in given.items()})
        space.check(estimator)
    configured(estimator, space.example)
    return space


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Say in words how two descriptions differ."""
    lines = [f"{name} was {old[name]} and is not there any more" for name in old if name not in new]
    lines += [f"{name} is new: {new[name]}" for name in new if name not in old]
    lines += [f"{name} was {old[name]} and is {new[name]}" for name in old if new.get(name, old[name]) != old[name]]
    return lines


def _probe(space: Space) -> tuple[Params, dict[str, BaseDistribution], dict[str, Any]]:
    """Let a throw-away trial go through a space; return its parameters, what Optuna was asked for and what it gave."""
    with quiet():
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    return space.suggest(trial), trial.distributions, trial.params


def _check_name(name: str, estimator: Any, searched: Mapping[str, Any]) -> None:
    known = estimator.get_params(deep=True)
    # Where a whole step is searched, the parameters of the step that comes in are not known yet.
    if name in known or any(name.startswith(f"{step}__") for step in searched):
        return
    deeper = [k for k in known if k.endswith(f"__{name}")]
    hint = f" Did you mean {deeper[0]!r}?" if deeper else did_you_mean(name, known)
    raise HyperparameterError(
        f"{name!r} is not a parameter of {type(estimator).__name__}.{hint} "
        "estimator.get_params() lists those that can be searched."
    )


# Mappings -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Dimension:
    """One searched parameter: what Optuna stores, and how it is turned into the estimator's value."""

    distribution: BaseDistribution
    decode: Callable[[Any], Any]
    text: str
    extremes: tuple[Any, ...]


class _MappingSpace(Space):
    def __init__(self, dimensions: Mapping[str, _Dimension]):
        self.dimensions = dimensions
        self.example, self.distributions, _ = _probe(self)

    def suggest(self, trial: Trial) -> Params:
        return {name: d.decode(_suggest(trial, name, d.distribution)) for name, d in self.dimensions.items()}

    def params_of(self, trial: FrozenTrial) -> Params:
        stored = {name: repr(distribution) for name, distribution in trial.distributions.items()}
        expected = {name: repr(d.distribution) for name, d in self.dimensions.items()}
        if difference := changes(stored, expected):
            raise _another_space(trial, difference)
        return _as_proposed(trial, {name: d.decode(trial.params[name]) for name, d in self.dimensions.items()})

    def describe(self) -> dict[str, str]:
        return {name: d.text for name, d in self.dimensions.items()}

    def check(self, estimator: Any) -> None:
        """Check every choice, and both ends of every range, of the Keras hyperparameters, each by itself."""
        steps = keras_steps(estimator)
        for name, dimension in self.dimensions.items():
            prefix = next((p for p in steps if name.startswith(p) and "__" not in name[len(p) :]), None)
            if prefix is None:
                continue
            from tuner.hyperparameters import HYPERPARAMETERS

            for value in dimension.extremes:
                HYPERPARAMETERS[name[len(prefix) :]].check(value)


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case FloatDistribution(low=low, high=high, step=step, log=log):
            # Of the narrowest range Optuna gives a NumPy number, and of every other a Python one.
            return float(trial.suggest_float(name, low, high, step=step, log=log))
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise AssertionError(distribution)


def _dimension(name: str, given: Any) -> _Dimension:
    if isinstance(given, CategoricalDistribution):
        given = given.choices
    elif type(given) in (FloatDistribution, IntDistribution):
        return _Dimension(given, lambda value: value, repr(given), (given.low, given.high))
    elif isinstance(given, BaseDistribution):
        raise HyperparameterError(
            f"{name}: {type(given).__name__} is deprecated in Optuna; use FloatDistribution, IntDistribution or "
            "CategoricalDistribution."
        )
    elif hasattr(given, "rvs"):
        return _from_scipy(name, given)
    if isinstance(given, np.ndarray):
        given = given.tolist() if given.ndim == 1 else list(given)
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        raise HyperparameterError(
            f"{name} must be searched in an Optuna distribution, a scipy distribution, or a list of choices; got "
            f"{given!r}. A value that is fixed is set on the estimator, or given as a list of one."
        )
    if len(given) == 0:
        raise HyperparameterError(f"{name} has no choices: give at least one.")
    choices = _Choices(given)
    return _Dimension(choices.distribution, choices.decode, repr(choices.distribution), choices.values)


def _from_scipy(name: str, given: Any) -> _Dimension:
    kind = getattr(given, "dist", given)  # a frozen distribution holds the general one
    if not hasattr(given, "ppf"):
        raise HyperparameterError(f"{name}: {given!r} has no ppf method; a frozen scipy distribution has one.")
    low, high = given.support()
    if not low <= high:  # scipy gives NaN for impossible parameters
        raise HyperparameterError(f"{name}: the scipy distribution has no values between {low} and {high}.")
    args, kwds = getattr(given, "args", ()), getattr(given, "kwds", {})
    if kind.name == "randint":
        return _dimension(name, IntDistribution(int(low), int(high)))
    if kind.name == "uniform":
        return _dimension(name, FloatDistribution(float(low), float(high)))
    if kind.name in ("loguniform", "reciprocal") and len(args) <= 2 and "loc" not in kwds:
        return _dimension(name, FloatDistribution(float(low), float(high), log=True))
    discrete = hasattr(kind, "pmf")

    def decode(quantile: float) -> Any:
        value = float(given.ppf(quantile))
        return int(value) if discrete else value

    quantiles = FloatDistribution(_QUANTILE_MARGIN, 1 - _QUANTILE_MARGIN)
    settings = ", ".join([*map(describe, args), *(f"{k}={describe(v)}" for k, v in kwds.items())])
    return _Dimension(quantiles, decode, f"{kind.name}({settings})", (decode(quantiles.low), decode(quantiles.high)))


# Callables ------------------------------------------------------------------------------------------------------------


class _CallableSpace(Space):
    def __init__(self, function: SpaceFunction):
        self.function = function
        self.example, self.distributions, stored = _probe(self)
        again = self.suggest(FixedTrial(stored))  # type: ignore[arg-type]
        if difference := changes(in_words(self.example), in_words(again)):
            raise HyperparameterError(
                f"the search space gives other parameters for the same proposals: {'; '.join(difference)}. "
                "Let the trial suggest whatever varies."
            )
        self._text = {name: repr(distribution) for name, distribution in self.distributions.items()}

    def suggest(self, trial: Trial) -> Params:
        try:
            params = self.function(_AnyChoices(trial))  # type: ignore[arg-type]
        except ValueError as error:  # this is how Optuna refuses reversed bounds and empty choices
            raise HyperparameterError(f"the search space cannot be sampled: {error}") from error
        if not isinstance(params, dict) or not all(isinstance(name, str) for name in params):
            raise HyperparameterError(
                f"the search space must return a dict from the estimator's parameter names to values; got {params!r}."
            )
        return params

    def params_of(self, trial: FrozenTrial) -> Params:
        replayed = FixedTrial(trial.params, number=trial.number)
        try:
            with warnings.catch_warnings():  # Optuna warns of values out of range; the comparison below says more
                warnings.simplefilter("ignore")
                params = self.suggest(replayed)  # type: ignore[arg-type]
        except HyperparameterError as error:
            raise _another_space(trial, [str(error.__cause__ or error)]) from error
        stored = {name: repr(distribution) for name, distribution in trial.distributions.items()}
        if difference := changes(stored, {name: repr(d) for name, d in replayed.distributions.items()}):
            raise _another_space(trial, difference)
        return _as_proposed(trial, params)

    def describe(self) -> dict[str, str]:
        return self._text


class _AnyChoices:
    """A trial whose categorical choices may be any objects."""

    def __init__(self, trial: Trial | FixedTrial):
        self._trial = trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        coded = _Choices(choices)
        return coded.decode(self._trial.suggest_categorical(name, coded.distribution.choices))


def _as_proposed(trial: FrozenTrial, params: Params) -> Params:
    """Return the parameters if they are those that the stored trial was trained with."""
    now = in_words(params)
    if difference := changes(trial.user_attrs.get(PROPOSED, now), now):
        raise _another_space(trial, difference)
    return params


def _another_space(trial: FrozenTrial, difference: list[str]) -> HyperparameterError:
    return HyperparameterError(
        f"the stored trial {trial.number} was proposed from another search space: {'; '.join(difference)}. "
        "Restore the space, or start anew: another study_name, or tuner run --fresh."
    )


# Choices --------------------------------------------------------------------------------------------------------------


class _Choices:
    """Categorical choices of any kind, and what Optuna stores for them.

    Plain values are stored as they are, any other object under a short label.
    """

    def __init__(self, choices: Sequence[Any]):
        values = [choice.item() if isinstance(choice, np.generic) else choice for choice in choices]
        plain = [value for value in values if _is_plain(value)]
        self._objects: dict[str, Any] = {}
        stored: list[Any] = []
        for value in values:
            # Optuna cannot tell True from 1, nor 1 from 1.0: where both are choices they get labels, too.
            if _is_plain(value) and not any(value == other and type(value) is not type(other) for other in plain):
                if value not in stored:
                    stored.append(value)
            elif not any(value is known for known in self._objects.values()):
                label = _label(value, taken={*self._objects, *(v for v in plain if isinstance(v, str))})
                self._objects[label] = value
                stored.append(label)
        self.distribution = CategoricalDistribution(stored)

    @property
    def values(self) -> tuple[Any, ...]:
        return tuple(map(self.decode, self.distribution.choices))

    def decode(self, stored: Any) -> Any:
        """Return the choice for which Optuna stores a plain value."""
        return self._objects.get(stored, stored) if isinstance(stored, str) else stored


def _is_plain(value: Any) -> bool:
    return value is None or type(value) in (bool, int, float, str)


def _label(value: Any, taken: set[str]) -> str:
    label = describe(value)
    if len(label) > _LABEL_LENGTH:
        label = f"{label[:_LABEL_LENGTH]}... {hashlib.sha1(label.encode()).hexdigest()[:8]}"
    copies = 1 + sum(other == label or other.startswith(f"{label} #") for other in taken)
    return label if copies == 1 else f"{label} #{copies}"
