"""Search spaces: what is proposed, what Optuna stores, and back again."""

import math

import numpy as np
import optuna
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from tuner.errors import HyperparameterError
from tuner.spaces import changes, describe, make_space, quiet, search_space

TREE = DecisionTreeClassifier()


def suggested_and_stored(space, seed=0):
    """The parameters proposed to a trial, and the trial as a storage gives it back."""
    with quiet():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    params = space.suggest(trial)
    study.tell(trial, 1.0)
    return params, study.trials[-1]


# Every kind of range ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (FloatDistribution(1e-3, 1, log=True), FloatDistribution(1e-3, 1, log=True)),
        (IntDistribution(1, 9, step=2), IntDistribution(1, 9, step=2)),
        ([1, 2, 3], CategoricalDistribution([1, 2, 3])),
        ((None, "a", True), CategoricalDistribution([None, "a", True])),
        (np.array([1, 2]), CategoricalDistribution([1, 2])),
        (CategoricalDistribution(["a", "b"]), CategoricalDistribution(["a", "b"])),
        (scipy.stats.uniform(1, 2), FloatDistribution(1.0, 3.0)),
        (scipy.stats.loguniform(1e-3, 1.0), FloatDistribution(1e-3, 1.0, log=True)),
        (scipy.stats.randint(2, 5), IntDistribution(2, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_ranges_become_optuna_distributions(given, stored):
    _, trial = suggested_and_stored(make_space({"ccp_alpha": given}, TREE))
    assert trial.distributions == {"ccp_alpha": stored}


def test_other_scipy_distributions_are_sampled_through_their_quantiles():
    space = make_space({"ccp_alpha": scipy.stats.norm(5, 0.1), "max_depth": scipy.stats.poisson(50)}, TREE)
    samples = [suggested_and_stored(space, seed)[0] for seed in range(100)]
    alphas = [s["ccp_alpha"] for s in samples]
    assert np.mean(alphas) == pytest.approx(5, abs=0.05)
    assert np.std(alphas) == pytest.approx(0.1, rel=0.3)
    assert all(type(s["max_depth"]) is int for s in samples)
    assert np.mean([s["max_depth"] for s in samples]) == pytest.approx(50, rel=0.1)


def test_numpy_choices_become_python_values():
    params, _ = suggested_and_stored(make_space({"max_depth": [np.int64(3)]}, TREE))
    assert type(params["max_depth"]) is int


plain = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=3)
choices = st.lists(plain | st.tuples(plain, plain) | st.just(len) | st.builds(object), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(choices=choices, low=st.floats(1e-6, 1), width=st.floats(0, 10), seed=st.integers(0, 1000))
@example(choices=[None], low=1.0, width=2**-52, seed=0)
def test_what_is_stored_gives_back_what_was_suggested(choices, low, width, seed):
    ranges = {"criterion": choices, "ccp_alpha": FloatDistribution(low, low + width), "splitter": scipy.stats.norm()}

    def function(trial):
        return {
            "criterion": trial.suggest_categorical("c", choices),
            "ccp_alpha": float(trial.suggest_float("a", low, low + width)),
        }

    for given_space in (ranges, function):
        space = make_space(given_space, TREE)
        params, trial = suggested_and_stored(space, seed)
        replayed = space.params_of(trial)
        assert replayed.keys() == params.keys()
        for name, value in params.items():
            assert replayed[name] is value or (replayed[name] == value and type(replayed[name]) is type(value))
        assert any(params["criterion"] is choice or params["criterion"] == choice for choice in choices)
        assert all(v is None or isinstance(v, (bool, int, float, str)) for v in trial.params.values())


@settings(max_examples=50, deadline=None)
@given(choices=choices)
def test_every_distinct_choice_can_be_drawn(choices):
    space = make_space({"criterion": choices}, TREE)
    distribution = suggested_and_stored(space)[1].distributions["criterion"]
    assert len(set(map(repr, distribution.choices))) == len(distribution.choices)
    drawn = [space.dimensions["criterion"].decode(stored) for stored in distribution.choices]
    for choice in choices:
        assert any(d is choice or (d == choice and type(d) is type(choice)) for d in drawn)


def test_objects_are_stored_under_short_stable_labels():
    space = make_space({"criterion": [(64, 64), SVC(C=2.0), np.mean, lambda x: x, lambda x: -x, object()]}, TREE)
    (distribution,) = suggested_and_stored(space)[1].distributions.values()
    assert distribution.choices[:3] == ("(64, 64)", "SVC(C=2.0)", "<function mean>")
    assert distribution.choices[4] == distribution.choices[3] + " #2"
    assert "0x" not in " ".join(distribution.choices)


def test_describe_is_free_of_addresses_and_running_numbers():
    import keras

    first, second = keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.5)
    assert describe(first) == describe(second)
    assert describe(keras.initializers.RandomUniform(-1, 1, seed=3)) == "RandomUniform(seed=3, minval=-1, maxval=1)"
    assert describe({"a": [first.__class__, None]}) == "{'a': [SGD, None]}"
    assert "0x" not in describe(make_pipeline(StandardScaler(), SVC(kernel=lambda a, b: a @ b.T)))


# The ready space ----------------------------------------------------------------------------------------------------


def test_ready_space_knows_pipelines():
    from tuner import KerasClassifier, KerasRegressor

    names = {"learning_rate", "kernel_initializer", "activation", "batch_normalization"}
    assert set(search_space(KerasClassifier())) == names
    nested = make_pipeline(StandardScaler(), make_pipeline(MinMaxScaler(), KerasClassifier()))
    assert set(search_space(nested)) == {f"pipeline__kerasclassifier__{name}" for name in names}
    target = TransformedTargetRegressor(make_pipeline(StandardScaler(), KerasRegressor()))
    assert set(search_space(target)) == {f"regressor__kerasregressor__{name}" for name in names}
    assert set(suggested_and_stored(make_space(None, target))[0]) == set(search_space(target))


def test_no_ready_space_without_a_keras_estimator():
    with pytest.raises(HyperparameterError, match="Pipeline holds no Keras estimator"):
        search_space(make_pipeline(StandardScaler(), Ridge()))


# Callables ----------------------------------------------------------------------------------------------------------


def conditional(trial):
    kernel = trial.suggest_categorical("k", ["linear", "rbf"])
    params = {"svc__kernel": kernel, "svc__C": trial.suggest_float("c", 0.1, 10, log=True)}
    if kernel == "rbf":
        params["svc__gamma"] = trial.suggest_float("gamma", 1e-3, 1, log=True)
    return params


def test_conditional_space_is_replayed_by_the_estimators_own_names():
    space = make_space(conditional, make_pipeline(StandardScaler(), SVC()))
    kernels = set()
    for seed in range(10):
        params, trial = suggested_and_stored(space, seed)
        assert space.params_of(trial) == params
        assert ("svc__gamma" in params) == (params["svc__kernel"] == "rbf")
        kernels.add(params["svc__kernel"])
    assert kernels == {"linear", "rbf"}


def test_trial_of_a_changed_callable_is_refused():
    _, trial = suggested_and_stored(make_space(conditional, make_pipeline(StandardScaler(), SVC())))

    def wider(trial):
        return {**conditional(trial), "svc__C": trial.suggest_float("c2", 0.1, 100)}

    def other_range(trial):
        kernel = trial.suggest_categorical("k", ["linear", "rbf", "poly"])
        return {"svc__kernel": kernel, "svc__C": trial.suggest_float("c", 0.1, 10, log=True)}

    for changed in (wider, other_range):
        with pytest.raises(HyperparameterError, match=r"trial 0 was proposed from another search space: .*(c2|poly)"):
            make_space(changed, make_pipeline(StandardScaler(), SVC())).params_of(trial)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda trial: [1], "must return a dict"),
        (lambda trial: {"max_dept": 3}, r"'max_dept' is not a parameter .* Did you mean 'max_depth'\?"),
        (lambda trial: {"ccp_alpha": trial.suggest_float("a", 1, 0)}, "cannot be sampled"),
        (lambda trial: {"criterion": trial.suggest_categorical("c", [])}, "cannot be sampled"),
    ],
)
def test_callable_is_probed(function, message):
    with pytest.raises(HyperparameterError, match=message):
        make_space(function, TREE)


# Bad spaces ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"max_depth": []}, "max_depth has no choices"),
        ({"max_depth": 3}, "a list of one"),
        ({"criterion": "gini"}, "a list of one"),
        ({"max_dept": [3]}, r"Did you mean 'max_depth'\?"),
        ({"max_depth": scipy.stats.randint(5, 3)}, "no values between"),
        ({"ccp_alpha": scipy.stats.uniform(1, -1)}, "no values between"),
    ],
)
def test_bad_mapping(space, message):
    with pytest.raises(HyperparameterError, match=message):
        make_space(space, TREE)


def test_the_name_without_its_prefix_is_recognised():
    with pytest.raises(HyperparameterError, match=r"Did you mean 'logisticregression__C'\?"):
        make_space({"C": [1.0]}, make_pipeline(StandardScaler(), LogisticRegression()))


def test_parameters_of_a_searched_step_are_left_to_it():
    space = {"svc": [SVC(), SVC(kernel="linear")], "svc__C": [1.0, 2.0]}
    assert suggested_and_stored(make_space(space, make_pipeline(StandardScaler(), SVC())))[0]["svc__C"] in (1.0, 2.0)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"activation": ["relu", "tanhh"]}, r"activation must be .* Did you mean 'tanh'\?"),
        ({"learning_rate": FloatDistribution(0.0, 1.0)}, "learning_rate must be"),
        ({"dropout": FloatDistribution(0.0, 1.0)}, "dropout must be"),
        ({"units": [(32,), (32, 0)]}, "units must be"),
    ],
)
def test_every_choice_and_both_bounds_of_a_keras_hyperparameter_are_checked(space, message):
    from tuner import KerasClassifier

    prefixed = {f"kerasclassifier__{name}": value for name, value in space.items()}
    with pytest.raises(HyperparameterError, match=message):
        make_space(prefixed, make_pipeline(StandardScaler(), KerasClassifier()))


def test_hyperparameters_that_only_make_sense_together_are_allowed():
    from tuner import KerasClassifier

    space = {"initializer_scale": FloatDistribution(0.01, 1), "kernel_initializer": ["random_uniform", "random_normal"]}
    assert make_space(space, KerasClassifier()).example["initializer_scale"] > 0


def test_changes_are_said_in_words():
    assert changes({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == [
        "a was 1 and is not there any more",
        "c is new: 4",
        "b was 2 and is 3",
    ]


def test_quantiles_at_the_ends_are_finite():
    extremes = make_space({"ccp_alpha": scipy.stats.norm()}, TREE).dimensions["ccp_alpha"].extremes
    assert all(map(math.isfinite, extremes))
