"""Keras networks as scikit-learn estimators.

`KerasClassifier` and `KerasRegressor` behave as scikit-learn's ``MLPClassifier`` and ``MLPRegressor`` do. Between data
and engine stands the *lane* (`tuner.engine.base`): `make_lane` turns (X, y, weights) into one, an engine trains it, and
`adopt_lane` takes the result over. ``fit`` is these three in a row; a search makes the lanes of all folds first and has
them trained together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from numbers import Real
from typing import Any, Self

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from tuner import hyperparameters, network, seeds
from tuner.engine import engine_for
from tuner.engine.base import Lane, LaneState, OnEpoch, Part, TrainedLane
from tuner.engine.compilation import make_optimizer, optimizer_config
from tuner.errors import DataError, HyperparameterError, NonFiniteLossError, did_you_mean
from tuner.health.diagnosis import judge
from tuner.health.report import HealthReport

# What the weights were made for: these cannot change while training goes on from them.
_NETWORK_PARAMETERS = (
    "hidden_layers",
    "units",
    "activation",
    "batch_normalization",
    "dropout",
    "residual",
    "dtype",
    "model",
    "model_params",
)

# A change in one of these starts a new optimizer when partial_fit goes on.
_OPTIMIZER_PARAMETERS = (
    "optimizer",
    "learning_rate",
    "momentum",
    "learning_rate_schedule",
    "layerwise_learning_rates",
    "weight_decay",
    "clipnorm",
    "loss",
    "target_range",
)


class KerasEstimator(BaseEstimator):
    """What classifier and regressor share; see `KerasClassifier` for the parameters."""

    # The parameters that the code below reads; the subclasses' constructors set these and the others.
    batch_size: int
    dtype: str
    early_stopping: bool
    epochs: int
    model: Callable[..., Any] | None
    model_params: Mapping[str, Any] | None
    random_state: Any
    validation_fraction: float
    verbose: int
    warm_start: bool

    # -- parameters ------------------------------------------------------------------------------------------------

    @classmethod
    @cache
    def _get_param_names(cls) -> list[str]:
        """Return the names of the parameters; scikit-learn would read the signature forty times for a trial."""
        return super()._get_param_names()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with `deep` also those of the model callable, as ``model__name``.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add the callable's own parameters: its defaults, overridden by ``model_params``.

        Returns
        -------
        dict of str to object
        """
        params: dict[str, Any] = super().get_params(deep=False)
        if deep and callable(self.model):
            defaults = {name: value for name, value in network.own_parameters(self.model).items() if not _empty(value)}
            params |= {f"model__{name}": value for name, value in {**defaults, **(self.model_params or {})}.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``model__name`` sets one of the model callable's own.

        Parameters
        ----------
        **params : object

        Returns
        -------
        self

        Raises
        ------
        HyperparameterError
            If a name is unknown.
        """
        own = {name.removeprefix("model__"): value for name, value in params.items() if name.startswith("model__")}
        known = self._get_param_names()
        for name, value in params.items():
            if name.startswith("model__"):
                continue
            if name not in known:
                raise HyperparameterError(
                    f"{name!r} is not a parameter of {type(self).__name__}.{did_you_mean(name, known)} Its parameters "
                    f"are {', '.join(known)}."
                )
            setattr(self, name, value)
        if own:
            if not callable(self.model):
                raise HyperparameterError(
                    f"{', '.join(f'model__{name}' for name in own)} cannot be set: they are parameters of a model "
                    f"callable, and model={self.model!r}."
                )
            self._check_model_params(own)
            self.model_params = {**(self.model_params or {}), **own}
        return self

    def _check_model_params(self, names: Iterable[str]) -> None:
        if self.model is None:
            return
        if given := [name for name in names if name in network.GIVEN]:
            raise HyperparameterError(
                f"model__{given[0]} is given to the model callable by the estimator: set {given[0]} there."
            )
        if network.takes_anything(self.model):
            return
        known = network.own_parameters(self.model)
        for name in names:
            if name not in known:
                raise HyperparameterError(
                    f"model__{name} is not a parameter of the model callable.{did_you_mean(name, known)} Its own "
                    f"parameters are {', '.join(known) or 'none'}; those of the network are set on the estimator."
                )

    def check_hyperparameters(self) -> None:
        """Check every hyperparameter, by itself and together with the others, without data.

        Raises
        ------
        HyperparameterError
            Naming the parameter, its value and what was expected.
        """
        params = self.get_params(deep=False)
        hyperparameters.check(params)
        if isinstance(self.optimizer, str):
            optimizer_config(params, total_steps=1)  # every value has been checked
        else:
            make_optimizer(params, total_steps=1)
        if self.model is not None:
            given = self.model_params or {}
            self._check_model_params(given)
            missing = [n for n, d in network.own_parameters(self.model).items() if _empty(d) and n not in given]
            if missing:
                raise HyperparameterError(
                    f"the model callable wants {', '.join(missing)}, which have no default: give them in model_params."
                )

    # -- training --------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network, from fresh weights unless ``warm_start`` is set.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            More dimensions where ``model`` is a callable.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        self

        Raises
        ------
        HyperparameterError, DataError
            Before any training.
        NonFiniteLossError
            If the loss became NaN or infinite.
        """
        lane = self.make_lane(X, y, sample_weight)
        return self.adopt_lane(self.train_lanes([lane], self._print_epoch if self.verbose else None)[0])

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        if self.early_stopping:
            raise HyperparameterError(
                "partial_fit trains one epoch and cannot stop early: set early_stopping=False, or call fit."
            )
        going_on = self.__sklearn_is_fitted__()
        lane = self._lane(X, y, sample_weight, reset=not going_on, classes=classes, state=self._state(), epochs=1)
        return self.adopt_lane(self.train_lanes([lane])[0])

    def make_lane(self, X: Any, y: Any, sample_weight: Any = None, X_test: Any = None, y_test: Any = None) -> Lane:
        """Check the hyperparameters and the data and make the lane that ``fit`` would train.

        Sets ``n_features_in_``, ``feature_names_in_`` and, in a classifier, ``classes_``.

        Parameters
        ----------
        X, y, sample_weight
            As in ``fit``.
        X_test, y_test : optional
            The held-out fold, whose loss is recorded after every epoch and never acted upon.

        Returns
        -------
        Lane

        Raises
        ------
        HyperparameterError, DataError
        """
        state = None
        if self.warm_start and self.__sklearn_is_fitted__():
            state = LaneState(self.model_, self._epoch, self.history_, health=self._measurements)
        return self._lane(X, y, sample_weight, reset=True, state=state, epochs=self.epochs, test=(X_test, y_test))

    def _lane(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        reset: bool,
        epochs: int,
        state: LaneState | None = None,
        classes: Any = None,
        test: tuple[Any, Any] = (None, None),
    ) -> Lane:
        self.check_hyperparameters()
        X, y = self._validate(X, y, reset=reset)
        if state is None:
            self._task, n_outputs = self._learn_targets(y, classes)
            self._output = network.resolve_output(self._task, n_outputs, self.get_params(deep=False))
            self._input_shape = X.shape[1:]
            self._seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        else:
            self._check_goes_on(X, y, classes)
        output = self._output
        weights = self._weights(X, y, sample_weight)
        train = Part(X, self._encode(y, output), weights)
        validation = None
        if self.early_stopping:
            train, validation = self._split(train, y)
        return Lane(
            hyperparameters=self.get_params(deep=False),
            seed=self._seed,
            task=self._task,
            output=output,
            train=train,
            epochs=epochs,
            validation=validation,
            test=None if test[0] is None else self._test_part(*test, output),
            state=state,
        )

    def train_lanes(self, lanes: Sequence[Lane], on_epoch: OnEpoch | None = None) -> list[TrainedLane]:
        """Train lanes together on the engine that the hyperparameter ``engine`` selects; see `Engine.train`."""
        return engine_for(lanes[0].hyperparameters).train(lanes, on_epoch)

    def follow_lane(self, predict: Callable[[Any], np.ndarray] | None) -> None:
        """Predict with a lane that is still in training, until `adopt_lane`.

        Parameters
        ----------
        predict : callable or None
            Gives the outputs (n, k) for checked features; None ends it.
        """
        self._follow = predict

    def adopt_lane(self, trained: TrainedLane) -> Self:
        """Take over what an engine trained from the lane that `make_lane` made last.

        Parameters
        ----------
        trained : TrainedLane

        Returns
        -------
        self

        Raises
        ------
        NonFiniteLossError
        """
        self._follow = None
        self._measurements = trained.health
        if trained.non_finite:
            # Weights that were trained on in place are lost: nothing must predict with them.
            self.__dict__.pop("_trained", None)
            raise NonFiniteLossError(
                epoch=len(trained.history["loss"]),
                history=trained.history,
                health=None if trained.health is None else judge([trained.health]),
            )
        self._trained = trained
        self.history_ = trained.history
        self.n_iter_ = len(trained.history["loss"])
        self._epoch = trained.epoch
        self._fitted_with = self.get_params(deep=False)
        self._optimizer_values = None
        return self

    @property
    def model_(self) -> Any:
        """The trained ``keras.Model``, compiled."""
        if "_trained" not in vars(self):
            raise AttributeError(f"this {type(self).__name__} has no model_ yet: call fit first.")
        return self._trained.model

    @property
    def health_(self) -> HealthReport:
        """What the measures of gradients, activations and updates say about the training."""
        if "_measurements" not in vars(self):
            raise AttributeError(f"this {type(self).__name__} has no health_ yet: call fit first.")
        if self._measurements is None:
            raise AttributeError(f"this {type(self).__name__} was fitted with health=False and has no health_.")
        return judge([self._measurements])

    def _state(self) -> LaneState | None:
        if not self.__sklearn_is_fitted__():
            return None
        now = self.get_params(deep=False)
        unchanged = all(_same(self._fitted_with[name], now[name]) for name in _OPTIMIZER_PARAMETERS if name in now)
        return LaneState(
            self.model_,
            self._epoch,
            self.history_,
            keep_optimizer=unchanged and bool(self.model_.compiled),
            optimizer_values=self._optimizer_values if unchanged else None,
            health=self._measurements,
        )

    def _check_goes_on(self, X: Any, y: Any, classes: Any) -> None:
        """Raise unless data and hyperparameters fit the network that training goes on with."""
        for name in _NETWORK_PARAMETERS:
            old, new = self._fitted_with[name], getattr(self, name)
            if not _same(old, new):
                raise HyperparameterError(
                    f"training goes on with a network made with {name}={old!r}, and {name} is now {new!r}: restore it, "
                    "or fit anew with warm_start=False."
                )
        if X.shape[1:] != self._input_shape:
            raise DataError(
                f"training goes on with a network for samples of shape {self._input_shape}, but X has samples of shape "
                f"{X.shape[1:]}: pass the same features, or fit anew with warm_start=False."
            )
        self._check_targets(y, classes)
        output = network.resolve_output(self._task, self._n_targets, self.get_params(deep=False))
        kept = ("units", "activation", "sparse")
        if any(not _same(getattr(output, name), getattr(self._output, name)) for name in kept):
            raise HyperparameterError(
                f"training goes on with a network made for loss={self._output.loss!r}, which has "
                f"{self._output.units} outputs of {self._output.activation!r}; loss={output.loss!r} wants "
                f"{output.units} of {output.activation!r}: restore it, or fit anew with warm_start=False."
            )
        self._output = output

    def _print_epoch(
        self, epoch: int, histories: Sequence[Mapping[str, Sequence[float]]], predict: Any, health: Any
    ) -> list[int]:
        series = ", ".join(f"{name} {values[-1]:.4g}" for name, values in histories[0].items())
        print(f"epoch {epoch + 1}/{self.epochs}: {series}", flush=True)
        return []

    # -- data ------------------------------------------------------------------------------------------------------

    def checked_features(self, X: Any) -> Any:
        """Return X as `make_lane` would, which must have been called before: as numbers of the network's dtype.

        Raises
        ------
        DataError
        """
        return validate_data(self, X, reset=False, **self._checks())

    def _validate(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        numeric = isinstance(self, RegressorMixin)
        if y is None:
            # Raises what scikit-learn raises for a target that is missing.
            validate_data(self, X, y, reset=reset, **self._checks())
        return validate_data(self, X, y, reset=reset, multi_output=True, y_numeric=numeric, **self._checks())

    def _checks(self) -> dict[str, Any]:
        return {"accept_sparse": "csr", "dtype": self.dtype, "allow_nd": self.model is not None}

    def _weights(self, X: Any, y: Any, sample_weight: Any) -> np.ndarray | None:
        if sample_weight is None:
            return None
        return _check_sample_weight(sample_weight, X, dtype=np.dtype(self.dtype), ensure_non_negative=True)

    def _split(self, part: Part, y: Any) -> tuple[Part, Part]:
        """Split off what early stopping watches: stratified for one column of labels, seeded."""
        stratify = y if isinstance(self, ClassifierMixin) and y.ndim == 1 else None
        try:
            train, validation = train_test_split(
                np.arange(len(part)),
                test_size=self.validation_fraction,
                random_state=seeds.split_seed(self._seed),
                stratify=stratify,
            )
        except ValueError as error:
            raise DataError(
                f"early_stopping cannot split off validation_fraction={self.validation_fraction} of {len(part)} "
                f"samples: {error} Give more samples, change validation_fraction, or set early_stopping=False."
            ) from error
        weights = part.sample_weight
        if weights is not None and not (weights[train].any() and weights[validation].any()):
            raise DataError("early_stopping leaves a part in which every weight is 0: give more samples a weight.")
        return part.take(np.sort(train)), part.take(np.sort(validation))

    def _test_part(self, X: Any, y: Any, output: network.Output) -> Part | None:
        X, y = self._validate(X, y, reset=False)
        known = np.flatnonzero(self._known_rows(y))
        return Part(X, self._encode(y[known], output), rows=known) if len(known) else None

    def _outputs(self, X: Any) -> np.ndarray:
        """Return the network's outputs (n, k)."""
        check_is_fitted(self)
        X = self.checked_features(X)
        if self._follow is not None:
            return self._follow(X)
        if X.shape[1:] != self._input_shape:
            raise DataError(
                f"X has samples of shape {X.shape[1:]}, but {type(self).__name__} was fitted on samples of "
                f"shape {self._input_shape}."
            )
        return self._trained.outputs(X)

    def _learn_targets(self, y: Any, classes: Any) -> tuple[str, int]:
        """Return the task and its number of classes, labels or targets; remember what predictions need."""
        raise NotImplementedError

    def _check_targets(self, y: Any, classes: Any) -> None:
        """Raise unless y fits the network that training goes on with."""
        raise NotImplementedError

    @property
    def _n_targets(self) -> int:
        """The number of classes, labels or targets."""
        raise NotImplementedError

    def _encode(self, y: Any, output: network.Output) -> np.ndarray:
        """Return the targets as the loss wants them, see `tuner.engine.base`."""
        raise NotImplementedError

    def _known_rows(self, y: Any) -> np.ndarray:
        """Return a mask (n,) of the rows whose target can be encoded."""
        return np.ones(y.shape[0], dtype=bool)

    # -- scikit-learn and pickle -----------------------------------------------------------------------------------

    _follow: Callable[[Any], np.ndarray] | None = None

    def __sklearn_is_fitted__(self) -> bool:
        return self._follow is not None or "_trained" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = self.model is not None
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_follow", None)
        if "_trained" in state:
            model = state.pop("_trained").model
            state["_model_bytes"] = network.to_bytes(model)
            if model.compiled:
                state["_optimizer_values"] = [np.asarray(v) for v in model.optimizer.variables]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        packed = state.pop("_model_bytes", None)
        super().__setstate__(state)
        if packed is not None:
            content, custom_objects = packed
            model = network.from_bytes(content, custom_objects, self._fitted_with["dtype"])
            self._trained = TrainedLane(lambda: model, self.history_, self._epoch, non_finite=False)


def _same(a: Any, b: Any) -> bool:
    """Whether two values of a parameter are the same: equal plain values are, other objects only if identical."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    plain = (str, Real, tuple, list, dict)
    return a is b or (type(a) is type(b) and isinstance(a, plain) and a == b)


def _empty(default: Any) -> bool:
    return default is inspect.Parameter.empty


class KerasClassifier(ClassifierMixin, KerasEstimator):
    """A neural network classifier.

    Binary, multiclass and multilabel targets; labels of any type.

    Parameters
    ----------
    hidden_layers : int or None, default=None
        Number of hidden layers. None: one for each entry of `units`, or 2 where `units` is an integer.
    units : int or sequence of int, default=64
        Units of every hidden layer, or of each.
    activation : str or callable, default="relu"
        Any activation of Keras, by name, or a function; or "scaled_sigmoid", 4σ(x) − 2, or "penalized_tanh", tanh(x)
        above 0 and tanh(x) / 4 below (Xu, Huang & Li 2016); "prelu", ReLU with a slope below 0 that every unit learns,
        from 1/4 on (He et al. 2015); or "maxout", the larger of two affine maps (Goodfellow et al. 2013).
    kernel_initializer : str or keras.initializers.Initializer, default="auto"
        Any initialiser of Keras, or "lsuv": orthonormal kernels, scaled layer by layer until the outputs of each have
        variance 1 on a batch of the training rows (Mishkin & Matas 2016), the output layer and the dense and
        convolutional layers of a `model` included that are given it. "auto" pairs He normal (He et al. 2015) with the
        ReLU family and the penalised tanh, LeCun normal (LeCun et al. 1998; Klambauer et al. 2017) with SELU and Glorot
        uniform (Glorot & Bengio 2010) with the rest.
    initializer_scale : float or None, default=None
        Half-width of "random_uniform", standard deviation of "random_normal" and "truncated_normal".
    bias_initializer : str or keras.initializers.Initializer, default="zeros"
    batch_normalization : {None, "before", "after"}, default=None
        Whether each hidden layer is normalised (Ioffe & Szegedy 2015), before or after its activation.
    dropout : float, default=0.0
        Share of the units of each hidden layer that a training step leaves out, in [0, 1) (Srivastava et al. 2014).
    residual : bool, default=False
        Whether each hidden layer's input is added to it before the activation (He et al. 2016).
    output_activation : str or callable, default="auto"
        "auto": what goes with the loss; softmax, or sigmoid for two classes and for several labels.
    loss : str, callable or keras.losses.Loss, default="auto"
        "auto": cross-entropy, binary cross-entropy where the output activation is a sigmoid.
    optimizer : str or keras.optimizers.Optimizer, default="adam"
        Any optimizer of Keras, by name; "momentum" and "nesterov" are SGD with momentum 0.9. An instance is rebuilt
        from its configuration at every fit.
    learning_rate, momentum, weight_decay, clipnorm : float or None, default=None
        Override the optimizer's own value. `clipnorm` bounds the norm of each weight's gradient
        (Pascanu et al. 2013).
    learning_rate_schedule : {None, "cosine", "exponential", "step"} or LearningRateSchedule, default=None
        The named ones span `epochs`: cosine to 0 (Loshchilov & Hutter 2017), exponential to 1 %, step to a tenth at one
        half and to a hundredth at three quarters.
    layerwise_learning_rates : float, sequence of float or None, default=None
        Factors above 0 of the learning rate, weight decay included. A number is the decay from the last layer, whose
        factor is 1, to each layer before it: below 1 the first layers learn more slowly, above 1 faster, as against
        vanishing gradients. A sequence has one factor for each hidden layer (its normalisation and projection included)
        and one for the output; for a custom `model`, one for each of ``model.layers`` that has trainable weights.
    batch_size : int, default=32
    epochs : int, default=20
    early_stopping : bool, default=False
        Whether to split off `validation_fraction` of the training data (stratified), stop when the loss there has not
        improved by more than `tol` for `n_iter_no_change` epochs, and restore the best epoch.
    validation_fraction : float, default=0.1
    n_iter_no_change : int, default=10
    tol : float, default=1e-4
    class_weight : dict, "balanced" or None, default=None
        Weight of each class, multiplied into the sample weights.
    target_range : tuple (low, high) or None, default=None
        The targets that stand for "no" and "yes", (0, 1) by default. LeCun et al., "Efficient BackProp" (1998), section
        4.5, advise against the asymptotes of a sigmoid or tanh: (0.1, 0.9), (-0.8, 0.8). For losses that judge every
        output by itself, such as "mean_squared_error"; "auto" is then a sigmoid as output activation, or a tanh where
        `low` is below 0.
    shuffle : bool, default=True
        Whether each epoch visits the samples in a new order.
    callbacks : sequence of keras.callbacks.Callback or None, default=None
        Copied at every fit; they force the plain Keras engine.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the present weights, with a fresh optimizer.
    random_state : int, RandomState or None, default=None
        Fixes the initial weights, the order of the batches, dropout and the early-stopping split.
    verbose : int, default=0
        Above 0, one line is printed for each epoch.
    dtype : {"float32", "float64"}, default="float32"
    health : bool, default=True
        Whether to measure gradients, activations and updates in training, for ``health_``.
    engine : {"auto", "stacked", "keras"}, default="auto"
        What trains the network. "stacked": all folds of a search as lanes of one compiled program, with an error where
        the network cannot be vectorised; "keras": plain Keras; "auto": the first where it can be, else the second.
    model : callable or None, default=None
        Returns an uncompiled ``keras.Model`` in place of the built-in network. It is given those of `input_shape`
        (without the batch), `n_outputs`, and the parameters above from `hidden_layers` to `loss` that its signature
        names.
    model_params : dict or None, default=None
        Further arguments of `model`, reached one by one as ``model__name``.

    Attributes
    ----------
    model_ : keras.Model
        The trained network.
    health_ : HealthReport
        What was measured in training, and what was wrong with it; also of a fit that ended in `NonFiniteLossError`.
    history_ : dict of str to list of float
        ``loss`` and ``accuracy`` after each epoch, and ``val_...`` with early stopping.
    n_iter_ : int
        The number of epochs trained.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Where X has column names that are all strings.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from tuner import KerasClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> KerasClassifier(epochs=50, learning_rate=0.01, random_state=0).fit(X, y).score(X, y) > 0.9
    True
    """

    classes_: np.ndarray

    def __init__(
        self,
        *,
        hidden_layers: int | None = None,
        units: int | Sequence[int] = 64,
        activation: Any = "relu",
        kernel_initializer: Any = "auto",
        initializer_scale: float | None = None,
        bias_initializer: Any = "zeros",
        batch_normalization: str | None = None,
        dropout: float = 0.0,
        residual: bool = False,
        output_activation: Any = "auto",
        loss: Any = "auto",
        optimizer: Any = "adam",
        learning_rate: float | None = None,
        momentum: float | None = None,
        learning_rate_schedule: Any = None,
        layerwise_learning_rates: Any = None,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        batch_size: int = 32,
        epochs: int = 20,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        class_weight: Any = None,
        target_range: tuple[float, float] | None = None,
        shuffle: bool = True,
        callbacks: Any = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
        dtype: str = "float32",
        health: bool = True,
        engine: str = "auto",
        model: Callable[..., Any] | None = None,
        model_params: Mapping[str, Any] | None = None,
    ):
        self.hidden_layers = hidden_layers
        self.units = units
        self.activation = activation
        self.kernel_initializer = kernel_initializer
        self.initializer_scale = initializer_scale
        self.bias_initializer = bias_initializer
        self.batch_normalization = batch_normalization
        self.dropout = dropout
        self.residual = residual
        self.output_activation = output_activation
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.learning_rate_schedule = learning_rate_schedule
        self.layerwise_learning_rates = layerwise_learning_rates
        self.weight_decay = weight_decay
        self.clipnorm = clipnorm
        self.batch_size = batch_size
        self.epochs = epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.class_weight = class_weight
        self.target_range = target_range
        self.shuffle = shuffle
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.dtype = dtype
        self.health = health
        self.engine = engine
        self.model = model
        self.model_params = model_params

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one epoch more, with the optimizer going on.

        Parameters
        ----------
        X, y, sample_weight
            As in ``fit``.
        classes : array-like of shape (n_classes,), optional
            All classes; wanted by the first call.

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, sample_weight, classes)

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted labels, (n_samples,) or (n_samples, n_labels) of 0 and 1 for a multilabel target."""
        outputs = self._outputs(X)
        if self._task == "multilabel":
            return (outputs > self._output.threshold).astype(int)
        if outputs.shape[1] == 1:
            return self.classes_[(outputs[:, 0] > self._output.threshold).astype(int)]
        return self.classes_[outputs.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, (n_samples, n_classes), or of each label.

        Sigmoid outputs of several classes are divided by their sum; the outputs of a loss with ``from_logits=True``
        pass through the softmax or the sigmoid first. With ``target_range=(low, high)`` an output o stands for
        (o - low) / (high - low), cut off at 0 and 1: squared error fits the
        mean of the targets, low + p (high - low) for the probability p.

        Raises
        ------
        HyperparameterError
            If the outputs are no probabilities, as with ``output_activation="tanh"``.
        """
        outputs = self._outputs(X)
        if self._output.logits:
            outputs = _softmax(outputs) if outputs.shape[1] > 1 and self._task != "multilabel" else _sigmoid(outputs)
        low, high = self._output.targets
        if (low, high) != (0, 1):
            outputs = np.clip((outputs - low) / (high - low), 0, 1)
        elif outputs.min() < 0 or outputs.max() > 1:
            raise HyperparameterError(
                f"output_activation={self._output.activation!r} gives outputs between {outputs.min():.3g} and "
                f"{outputs.max():.3g}, which are no probabilities: use 'softmax' or 'sigmoid', or a loss made with "
                "from_logits=True."
            )
        if self._task == "multilabel":
            return outputs
        if outputs.shape[1] == 1:
            return np.hstack([1 - outputs, outputs])
        total = outputs.sum(axis=1, keepdims=True)
        # All zero is possible for sigmoids: every class is then equally unlikely.
        return np.divide(outputs, total, out=np.full_like(outputs, 1 / outputs.shape[1]), where=total > 0)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def _validate(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        X, y = super()._validate(X, y, reset=reset)
        kind = type_of_target(y, input_name="y")
        if kind not in ("binary", "multiclass", "multilabel-indicator"):
            check_classification_targets(y)  # which asks for the type again
        if kind == "multiclass-multioutput":
            raise DataError(
                f"y has {y.shape[1]} columns of several classes each; KerasClassifier takes one column of labels, or "
                "one column of 0 and 1 for each label (multilabel)."
            )
        if kind == "multilabel-indicator":
            return X, y.toarray() if scipy.sparse.issparse(y) else y
        return X, column_or_1d(y, warn=True)

    def _learn_targets(self, y: Any, classes: Any) -> tuple[str, int]:
        if y.ndim == 2:
            self.classes_ = np.arange(y.shape[1])
            return "multilabel", y.shape[1]
        self.classes_ = np.unique(y if classes is None else np.asarray(classes))
        if len(self.classes_) < 2:
            raise DataError(f"y has one class only, {self.classes_[0]!r}; a classifier needs at least two classes.")
        if not self._known_rows(y).all():
            raise DataError(f"y has classes that are not in classes={self.classes_.tolist()}.")
        return ("binary" if len(self.classes_) == 2 else "multiclass"), len(self.classes_)

    def _check_targets(self, y: Any, classes: Any) -> None:
        columns = self._n_targets if self._task == "multilabel" else None
        if (y.shape[1] if y.ndim == 2 else None) != columns:
            raise DataError(
                f"y has shape {y.shape}, but the network was fitted on "
                f"{'one column of labels' if columns is None else f'{columns} columns of 0 and 1'}."
            )
        if columns is None and not self._known_rows(y).all():
            raise DataError(
                f"y has classes that the network does not know: {np.setdiff1d(y, self.classes_).tolist()}. It was "
                f"fitted on {self.classes_.tolist()}; pass `classes` in the first partial_fit, or fit anew without "
                "warm_start."
            )
        if classes is not None and not np.array_equal(np.unique(np.asarray(classes)), self.classes_):
            raise DataError(
                f"classes={np.asarray(classes).tolist()} differ from those of the first partial_fit, "
                f"{self.classes_.tolist()}."
            )

    @property
    def _n_targets(self) -> int:
        return len(self.classes_)

    def _known_rows(self, y: Any) -> np.ndarray:
        return super()._known_rows(y) if y.ndim == 2 else np.isin(y, self.classes_)

    def _encode(self, y: Any, output: network.Output) -> np.ndarray:
        if self._task == "multilabel":
            yes = y != 0
        else:
            indices = np.searchsorted(self.classes_, y)
            if output.sparse:
                return indices[:, np.newaxis].astype(self.dtype)
            yes = indices[:, np.newaxis] == (1 if output.units == 1 else np.arange(len(self.classes_)))
        low, high = np.asarray(output.targets, self.dtype)
        return np.where(yes, high, low)

    def _weights(self, X: Any, y: Any, sample_weight: Any) -> np.ndarray | None:
        weights = super()._weights(X, y, sample_weight)
        if self.class_weight is None:
            return weights
        if isinstance(self.class_weight, str):
            by_class = compute_sample_weight(self.class_weight, y).astype(self.dtype)
        else:
            by_class = self._class_weights()[np.searchsorted(self.classes_, y)]
        return by_class if weights is None else weights * by_class

    def _class_weights(self) -> np.ndarray:
        """Return the weight of each class, 1 where the dict does not say."""
        if self._task == "multilabel":
            raise HyperparameterError(
                "class_weight as a dict needs one column of labels; y has a column for each label: use 'balanced', or "
                "sample_weight."
            )
        known = self.classes_.tolist()
        for label in self.class_weight:
            if label not in known:
                hint = did_you_mean(str(label), map(str, known))
                raise HyperparameterError(f"class_weight names {label!r}, which is no class of y: {known}.{hint}")
        return np.array([self.class_weight.get(label, 1) for label in known], dtype=self.dtype)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class KerasRegressor(RegressorMixin, KerasEstimator):
    """A neural network regressor for one target or several.

    Parameters
    ----------
    hidden_layers, units, activation, kernel_initializer, initializer_scale, bias_initializer, batch_normalization, \
dropout, residual
        The network, as in `KerasClassifier`.
    output_activation : str or callable, default="auto"
        "auto" is the identity.
    loss : str, callable or keras.losses.Loss, default="auto"
        "auto" is the squared error.
    optimizer, learning_rate, momentum, learning_rate_schedule, layerwise_learning_rates, weight_decay, clipnorm, \
batch_size, epochs, early_stopping, validation_fraction, n_iter_no_change, tol, shuffle, callbacks, warm_start, \
random_state, verbose, dtype, health, engine
        The training, as in `KerasClassifier`.
    model, model_params
        A network of one's own, as in `KerasClassifier`.

    Attributes
    ----------
    model_ : keras.Model
        The trained network.
    health_ : HealthReport
        What was measured in training, and what was wrong with it; also of a fit that ended in `NonFiniteLossError`.
    history_ : dict of str to list of float
        ``loss`` and ``mean_absolute_error`` after each epoch, and ``val_...`` with early stopping.
    n_iter_ : int
        The number of epochs trained.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Where X has column names that are all strings.
    """

    def __init__(
        self,
        *,
        hidden_layers: int | None = None,
        units: int | Sequence[int] = 64,
        activation: Any = "relu",
        kernel_initializer: Any = "auto",
        initializer_scale: float | None = None,
        bias_initializer: Any = "zeros",
        batch_normalization: str | None = None,
        dropout: float = 0.0,
        residual: bool = False,
        output_activation: Any = "auto",
        loss: Any = "auto",
        optimizer: Any = "adam",
        learning_rate: float | None = None,
        momentum: float | None = None,
        learning_rate_schedule: Any = None,
        layerwise_learning_rates: Any = None,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        batch_size: int = 32,
        epochs: int = 20,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        shuffle: bool = True,
        callbacks: Any = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
        dtype: str = "float32",
        health: bool = True,
        engine: str = "auto",
        model: Callable[..., Any] | None = None,
        model_params: Mapping[str, Any] | None = None,
    ):
        self.hidden_layers = hidden_layers
        self.units = units
        self.activation = activation
        self.kernel_initializer = kernel_initializer
        self.initializer_scale = initializer_scale
        self.bias_initializer = bias_initializer
        self.batch_normalization = batch_normalization
        self.dropout = dropout
        self.residual = residual
        self.output_activation = output_activation
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.learning_rate_schedule = learning_rate_schedule
        self.layerwise_learning_rates = layerwise_learning_rates
        self.weight_decay = weight_decay
        self.clipnorm = clipnorm
        self.batch_size = batch_size
        self.epochs = epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.shuffle = shuffle
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.dtype = dtype
        self.health = health
        self.engine = engine
        self.model = model
        self.model_params = model_params

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one epoch more, with the optimizer going on.

        Parameters
        ----------
        X, y, sample_weight
            As in ``fit``.

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted targets, of the shape that y had: (n_samples,) or (n_samples, n_outputs)."""
        outputs = self._outputs(X)
        # scikit-learn wants float64 of several columns, whatever they were computed in.
        return outputs.astype(np.float64) if self._target_shape else outputs[:, 0]

    def _learn_targets(self, y: Any, classes: Any) -> tuple[str, int]:
        self._target_shape = y.shape[1:]
        return "regression", self._n_targets

    def _check_targets(self, y: Any, classes: Any) -> None:
        if y.shape[1:] != self._target_shape:
            raise DataError(f"y has shape {y.shape}, but the network was fitted on (n, {self._n_targets}) targets.")

    @property
    def _n_targets(self) -> int:
        return self._target_shape[0] if self._target_shape else 1

    def _encode(self, y: Any, output: network.Output) -> np.ndarray:
        with np.errstate(over="ignore"):
            encoded = y.reshape(y.shape[0], -1).astype(self.dtype)
        if not np.isfinite(encoded).all():
            raise DataError(f"y holds values too large for {self.dtype}: scale the target, or set dtype='float64'.")
        return encoded

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * logits))  # does not overflow
