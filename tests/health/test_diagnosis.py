"""The diagnosis names the cause of textbook cases, stays silent on healthy networks, and survives any numbers."""

import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from small_networks import Data, Recipe, first_epochs, make_data, train

from tuner.health.diagnosis import CAUSES, CONDITIONS, JUDGES, LIMITS, Evidence, Finding, fatal, judge
from tuner.health.measurements import LAYER_MEASURES, NETWORK_MEASURES, LayerFacts, Measurements, NetworkFacts
from tuner.health.report import HealthReport
from tuner.hyperparameters import HYPERPARAMETERS

DATA = make_data()
REGRESSION = make_data("regression")
BINARY = make_data("binary")


def learned_by_heart():
    """Return few rows whose labels are noise, which a network can only learn by heart."""
    data = make_data("binary", n=128, features=40, noise=0.5)
    return Data(data.X, data.Y, data.task, data.X_test, data.Y_test)


def set_layers(measured, measure, value, layer=slice(None), since=0):
    """Overwrite a measure of one or all layers, from an epoch on."""
    for numbers in measured.layers[since:]:
        numbers[layer, LAYER_MEASURES.index(measure)] = value


def set_network(measured, measure, value):
    """Overwrite a measure of the network."""
    for numbers in measured.network:
        numbers[NETWORK_MEASURES.index(measure)] = value


# name: (recipe, data, verdict, conditions that must be found beside it)
SICK = {
    "deep sigmoid with plain gradient descent": (
        Recipe(depth=10, activation="sigmoid", optimizer="sgd", rate=0.1),
        DATA,
        "vanishing_gradients",
        {"stalled_loss"},
    ),
    "deep relu of weights three times too large": (
        Recipe(depth=10, init=1.0, optimizer="sgd", rate=0.01),
        DATA,
        "poor_initialization",
        {"exploding_gradients"},
    ),
    "tanh with weights too large": (
        Recipe(depth=5, activation="tanh", init=3.0, optimizer="sgd", rate=0.05),
        DATA,
        "poor_initialization",
        {"saturated_units"},
    ),
    "all weights zero": (
        Recipe(depth=3, activation="tanh", init="zeros", optimizer="sgd", rate=0.05),
        DATA,
        "poor_initialization",
        {"stalled_loss"},
    ),
    "sigmoids on inputs of a hundred": (
        Recipe(depth=2, activation="sigmoid", optimizer="sgd", rate=0.05),
        DATA.with_inputs(lambda X: 100 * X),
        "unscaled_inputs",
        set(),
    ),
    "inputs far from zero": (
        Recipe(depth=3, optimizer="sgd", rate=0.05),
        DATA.with_inputs(lambda X: X + 30),
        "unscaled_inputs",
        set(),
    ),
    "a rate too large for gradient descent": (
        Recipe(depth=3, activation="tanh", optimizer="momentum", rate=3.0),
        DATA,
        "update_too_large",
        set(),
    ),
    "a rate too large for Adam": (Recipe(depth=3, activation="elu", rate=0.3), DATA, "update_too_large", set()),
    "a rate too small for gradient descent": (
        Recipe(depth=3, activation="tanh", optimizer="sgd", rate=1e-4),
        DATA,
        "update_too_small",
        set(),
    ),
    "a rate too small for Adam": (Recipe(depth=3, rate=1e-6), DATA, "update_too_small", set()),
    "three layers of sigmoids": (
        Recipe(depth=3, activation="sigmoid", optimizer="sgd", rate=0.3),
        DATA,
        "vanishing_gradients",
        {"update_too_small"},
    ),
    "large weights of sigmoids, and a rate too small": (
        Recipe(depth=2, activation="sigmoid", init=1.0, optimizer="sgd", rate=0.02),
        DATA,
        "update_too_small",
        set(),
    ),
    "steps that saturate softsign": (
        Recipe(depth=2, activation="softsign", rate=0.4),
        BINARY,
        "update_too_large",
        set(),
    ),
    "relu with a bias of -10": (Recipe(depth=3, bias=-10.0), DATA, "poor_initialization", set()),
    "a diverging regression": (
        Recipe(depth=3, optimizer="sgd", rate=10.0),
        REGRESSION,
        "update_too_large",
        {"non_finite"},
    ),
    "rows learned by heart": (
        Recipe(depth=3, units=64, rate=3e-3, epochs=60),
        learned_by_heart(),
        "overfitting",
        set(),
    ),
}

HEALTHY = {
    "relu, He, Adam": (Recipe(rate=3e-3), DATA),
    "one layer": (Recipe(depth=0, rate=3e-2), DATA),
    "tanh, Glorot, depth 5": (Recipe(depth=5, activation="tanh", optimizer="momentum", rate=0.03), DATA),
    "depth 20 with batch normalisation": (Recipe(depth=20, bn="before", rate=1e-2, epochs=24), BINARY),
    "depth 20 with shortcuts": (Recipe(depth=20, activation="tanh", residual=True, rate=1e-3), DATA),
    "regression": (Recipe(activation="elu", rate=3e-3), REGRESSION),
    "sigmoid, shallow": (Recipe(depth=1, activation="sigmoid", rate=3e-2), DATA),
    "raw inputs that do no harm": (Recipe(depth=2, rate=3e-3), DATA.with_inputs(lambda X: 5 * X + 1)),
    "squared error": (Recipe(depth=2, loss="mean_squared_error", rate=3e-3), BINARY),
}


@pytest.mark.parametrize("name", SICK)
def test_textbook_cases_have_their_cause(name):
    recipe, data, verdict, others = SICK[name]
    report = judge(train(recipe, data, folds=3))
    assert report.verdict == verdict, str(report)
    assert others <= set(report.conditions), str(report)
    assert report.score < 0.6
    assert report.causes[0].remedies


@pytest.mark.parametrize("name", HEALTHY)
def test_networks_that_learn_are_healthy(name):
    measurements = train(*HEALTHY[name], folds=3)
    report = judge(measurements)
    assert (report.verdict, report.score) == ("healthy", 1.0), str(report)
    for epochs in range(len(measurements[0].epochs)):
        assert fatal([first_epochs(m, epochs) for m in measurements], updates_left=0) is None


def test_a_held_out_score_that_keeps_falling_moves_in_vain_and_one_that_rises_does_not():
    [measured] = train(Recipe(rate=3e-3), REGRESSION)
    there = np.linspace(0.9, 0.1, 12)
    for test_loss, found in ((there, False), (there[::-1], True)):
        swinging = replace(measured, history={**measured.history, "test_loss": list(test_loss)})
        assert ("oscillating_loss" in judge([swinging]).conditions) == found


def test_wrong_outputs_of_squared_error_are_found_and_cross_entropy_is_proposed():
    patients = train(Recipe(depth=1, activation="tanh", optimizer="sgd", rate=0.1, loss="mean_squared_error"), BINARY)
    set_network(patients[0], "output_wrong", 0.5)
    patients[0].history.update(loss=[0.24] * 12, accuracy=[0.5] * 12)
    report = judge(patients)
    assert report.verdict == "saturated_outputs"
    assert report.causes[0].remedies[0].edit == {"loss": "auto", "output_activation": "auto"}
    entropy = replace(patients[0], facts=replace(patients[0].facts, loss="binary_crossentropy"))
    assert "saturated_outputs" not in judge([entropy]).conditions


@pytest.mark.parametrize(
    ("sick", "why"),
    [
        (Recipe(depth=3, optimizer="sgd", rate=10.0), "non_finite"),
        (Recipe(depth=3, bias=-10.0), "vanishing_gradients|dead_units"),
        (Recipe(depth=20, activation="sigmoid", optimizer="sgd", rate=0.1), "vanishing_gradients"),
    ],
    ids=["non-finite", "dead", "vanished"],
)
def test_what_will_not_recover_is_fatal_when_all_folds_agree(sick, why):
    folds = [first_epochs(m, 3) for m in train(sick, REGRESSION if "non" in why else DATA, folds=2)]
    reason = fatal(folds, updates_left=100)
    assert reason is not None and re.match(why, reason) and "\n" not in reason
    healthy = first_epochs(train(Recipe(), DATA)[0], 3)
    assert fatal([*folds, healthy], updates_left=100) is None


def test_how_far_the_updates_to_come_can_go_decides_whether_a_faded_error_is_fatal():
    measurements = train(Recipe(depth=10, activation="sigmoid", optimizer="sgd", rate=0.1), DATA, folds=2)
    ratio = measurements[0].layer("update_ratio")[2, 0]
    folds = [first_epochs(m, 2) for m in measurements]
    assert "hidden_1" in fatal(folds, updates_left=0.01 / ratio)
    assert fatal(folds, updates_left=10 / ratio) is None


def test_an_error_that_fades_but_arrives_is_not_fatal():
    measurements = train(Recipe(depth=10, activation="sigmoid", optimizer="sgd", rate=0.1), DATA, folds=2)
    folds = [first_epochs(m, 2) for m in measurements]
    assert fatal(folds, updates_left=0) is not None
    for measured in folds:
        set_layers(measured, "error_rms", np.geomspace(5e-3, 1, 11))
    assert found_alone("vanishing_gradients", folds[0])
    assert fatal(folds, updates_left=0) is None


def test_nothing_is_fatal_before_training():
    for recipe, data, _, _ in SICK.values():
        assert fatal([first_epochs(m, 0) for m in train(replace(recipe, epochs=0), data)], updates_left=0) is None
    assert fatal([], updates_left=0) is None


def test_most_folds_decide():
    sick, healthy = train(SICK["a rate too small for Adam"][0], DATA, folds=2), train(Recipe(rate=3e-3), DATA)
    report = judge([*sick, *healthy])
    assert report.verdict == "update_too_small"
    assert (report.findings[0].folds, report.findings[0].n_folds) == (2, 3)
    assert judge([sick[0], *healthy, *healthy]).verdict == "healthy"


def test_remedies_are_not_what_the_network_has():
    recipe, data, _, _ = SICK["deep sigmoid with plain gradient descent"]
    remedies = judge(train(recipe, data)).causes[0].remedies
    assert {"batch_normalization": "before"} in [remedy.edit for remedy in remedies]
    measured = train(recipe, data)[0]
    measured.facts = replace(measured.facts, normalization=True, residual=True)
    edits = [remedy.edit for finding in judge([measured]).findings for remedy in finding.remedies]
    assert not [edit for edit in edits if {"batch_normalization", "residual"} & set(edit)]


def test_remedies_are_hyperparameters_that_the_estimators_accept():
    for recipe, data, _, _ in SICK.values():
        for finding in judge(train(recipe, data)).findings:
            for remedy in finding.remedies:
                for name, value in remedy.edit.items():
                    if name == "inputs":
                        assert value == "standardize"
                        continue
                    for one in value if isinstance(value, tuple) else (value,):
                        HYPERPARAMETERS[name].check(one)


def test_lower_and_higher_rates_are_relative_to_the_trials_own():
    for name, sign in (("a rate too large for Adam", -1), ("a rate too small for Adam", 1)):
        recipe, data, verdict, _ = SICK[name]
        finding = next(f for f in judge(train(recipe, data)).findings if f.condition == verdict)
        low, high = next(r.edit["learning_rate"] for r in finding.remedies if "learning_rate" in r.edit)
        assert low < high
        assert (np.sign(np.log([low / recipe.rate, high / recipe.rate])) == sign).all()


def test_what_cannot_be_judged_is_said():
    assert judge([]).verdict == "healthy"
    assert len(judge([]).notes) == len(CONDITIONS)
    untrained = judge([first_epochs(train(Recipe(epochs=0))[0], 0)])
    assert untrained.verdict == "healthy"
    assert "stalled_loss was not judged: no epoch of training" in untrained.notes
    bare = Measurements(NetworkFacts(layers=(), notes=("a model without layers",)), history={"loss": [1.0, 0.5]})
    assert "a model without layers" in judge([bare]).notes
    assert any(note.startswith("overfitting was not judged") for note in judge([bare]).notes)


def test_a_fit_that_ended_in_its_first_epoch_is_judged():
    measured = train(Recipe(epochs=1, optimizer="sgd", rate=1e6), REGRESSION)[0]
    report = judge([measured])
    assert "non_finite" in report.conditions
    assert report.score == 0


def test_every_limit_has_a_source_and_every_condition_a_judge():
    assert all(getattr(LIMITS, limit.name).source for limit in fields(LIMITS))
    assert tuple(JUDGES) == CONDITIONS
    for condition, causes in CAUSES.items():
        assert {condition, *causes} <= set(CONDITIONS)
        for cause in causes:  # nothing is its own cause, over however many steps
            assert condition not in ancestors(cause)


def ancestors(condition):
    causes = CAUSES.get(condition, ())
    return {condition}.union(*map(ancestors, causes)) if causes else {condition}


NUMBERS = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, 1.0, 0.5, 1e-30, 1e30, np.nan, np.inf, -np.inf]),
    st.floats(0, 1),
)


@st.composite
def any_layers(draw):
    kinds = st.sampled_from(["relu", "tanh", "sigmoid", "linear", "unknown"])
    count = st.integers(1, 64)
    return tuple(
        LayerFacts(
            f"layer_{i}", draw(st.sampled_from(["Dense", "Embedding"])), draw(kinds), *draw(st.tuples(*[count] * 3))
        )
        for i in range(draw(st.integers(0, 4)))
    )


@st.composite
def any_measurements(draw, layers):
    count = st.integers(1, 64)
    maybe = st.one_of(st.none(), st.floats(0, 1e6))
    facts = NetworkFacts(
        layers,
        loss=draw(st.sampled_from(["unknown", "mean_squared_error", "binary_crossentropy"])),
        optimizer=draw(st.sampled_from(["unknown", "sgd", "adam"])),
        learning_rate=draw(maybe),
        clipnorm=draw(maybe),
        baseline_loss=draw(maybe),
        normalization=draw(st.booleans()),
        n_rows=draw(st.one_of(st.none(), count)),
        batch_size=draw(st.one_of(st.none(), count)),
    )
    series = st.lists(NUMBERS, max_size=6)
    names = st.sampled_from(["loss", "val_loss", "test_loss", "accuracy", "test_accuracy"])
    measured = Measurements(facts, history=draw(st.dictionaries(names, series)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pool = np.array(draw(st.lists(NUMBERS, min_size=1, max_size=8)))
    start = draw(st.integers(0, 2))
    for epoch in range(start, start + draw(st.integers(0, 5))):
        layers_of = rng.choice(pool, (len(layers), len(LAYER_MEASURES)))
        measured.add(epoch, layers_of, rng.choice(pool, len(NETWORK_MEASURES)))
    return measured


def any_folds():
    """Return measurements of the folds of one trial, which share their layers."""
    return any_layers().flatmap(lambda layers: st.lists(any_measurements(layers), max_size=4))


@settings(max_examples=300, deadline=None)
@given(any_folds(), st.randoms(), st.floats(0))
def test_any_numbers_give_a_report(measurements, random, updates_left):
    report = judge(measurements)
    assert set(report.conditions) <= set(CONDITIONS) and len(set(report.conditions)) == len(report.findings)
    assert (report.verdict == "healthy") == (not report.causes)
    assert 0 <= report.score <= 1
    assert all(0 < finding.severity <= 1 and 0 < finding.folds <= finding.n_folds for finding in report.findings)
    for finding in report.findings:
        assert finding.consequence_of is None or finding.consequence_of in report.conditions
        assert finding.message in " ".join(str(report).split())
    reason = fatal(measurements, updates_left)
    assert reason is None or "\n" not in reason

    shuffled = random.sample(measurements, len(measurements))
    again = judge(shuffled)
    assert (repr(again.findings), again.notes, again.score) == (repr(report.findings), report.notes, report.score)
    assert fatal(shuffled, updates_left) == reason

    read = HealthReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False)))
    assert repr(read.findings) == repr(report.findings)
    assert (read.notes, read.score, read.verdict) == (report.notes, report.score, report.verdict)
    assert len(read.measurements) == len(measurements)


@settings(max_examples=50, deadline=None)
@given(any_folds())
def test_numbers_that_are_finite_are_not_called_otherwise(measurements):
    clean = [m for m in measurements if np.isfinite(m.of_network("non_finite")).all()]
    for measured in clean:
        set_network(measured, "non_finite", 0)
        measured.history = {"loss": [1.0]}
    assert "non_finite" not in judge(clean).conditions


def test_pixels_whose_spreads_differ_are_not_what_keeps_deep_sigmoids_from_learning():
    X, y = load_digits(return_X_y=True)
    data = Data(X[:1024] / 16, np.eye(10)[y[:1024]], "multiclass", X[1024:] / 16, np.eye(10)[y[1024:]])
    measured = train(Recipe(depth=5, activation="sigmoid", optimizer="sgd", rate=0.1), data)
    assert measured[0].of_network("input_spread")[0] > 0.4
    report = judge(measured)
    assert report.verdict == "vanishing_gradients", str(report)
    assert "unscaled_inputs" not in report.conditions


@pytest.mark.parametrize(("size", "found"), [(1.0, False), (0.1, True)])
def test_glorot_weights_of_a_convolution_are_no_poor_start(size, found):
    measured = train(SICK["a rate too small for Adam"][0], DATA)[0]
    hidden = LayerFacts("hidden_1", "Conv2D", "relu", 6, 9, 54)
    measured.facts = replace(measured.facts, layers=(hidden, *measured.facts.layers[1:]))
    # Glorot's deviation is the root of 2 / (9 + 54): a kernel of 3 x 3 has 9 inputs and 9 * 6 outputs.
    norm = size * np.sqrt(54 * 2 / (9 + 54))
    set_layers(measured, "weight_norm", norm, layer=0)
    assert ("poor_initialization" in judge([measured]).conditions) == found


@pytest.mark.parametrize(("size", "found"), [(1.0, False), (0.1, True)])
def test_glorot_weights_of_a_layer_wider_than_its_inputs_are_no_poor_start(size, found):
    measured = train(SICK["a rate too small for gradient descent"][0], DATA)[0]
    hidden = LayerFacts("hidden_1", "Dense", "tanh", 256, 8, 8 * 256)
    measured.facts = replace(measured.facts, layers=(hidden, *measured.facts.layers[1:]))
    set_layers(measured, "weight_norm", size * np.sqrt(8 * 256 * 2 / (8 + 256)), layer=0)
    assert ("poor_initialization" in judge([measured]).conditions) == found


def test_no_remedy_is_what_the_network_starts_with():
    recipe, data, *_ = SICK["tanh with weights too large"]
    measured = train(recipe, data)[0]
    wanted = {"kernel_initializer": "glorot_uniform", "bias_initializer": "zeros"}
    for known in ({}, {"bias_initializer": "zeros"}, wanted):
        measured.facts = replace(measured.facts, **known)
        cause = judge([measured]).causes[0]
        assert cause.condition == "poor_initialization"
        edits = {key: value for remedy in cause.remedies for key, value in remedy.edit.items()}
        assert edits and {key: edits[key] for key in wanted if key in edits} == {
            key: value for key, value in wanted.items() if key not in known
        }


@pytest.mark.parametrize(("activation", "measure"), [("relu", "dead_units"), ("tanh", "saturation")])
def test_units_without_slope_after_the_first_updates_are_the_evidence_of_too_large_a_rate(activation, measure):
    measured = train(Recipe(depth=3, activation=activation, rate=1e-6), DATA)[0]
    set_layers(measured, measure, 0.0, layer=0)
    set_layers(measured, measure, 1.0, layer=0, since=1)
    set_layers(measured, "update_ratio", 1e-4, since=1)
    [finding] = [found for found in judge([measured]).findings if found.condition == "update_too_large"]
    assert (finding.measure, finding.value, finding.layers) == (measure, 1.0, ("hidden_1",))
    assert finding.epochs == tuple(measured.epochs[1:]) and "lost their slope" in finding.message


def test_after_few_epochs_only_what_does_not_fall_is_judged():
    slow = train(Recipe(depth=3, activation="tanh", init=0.6, optimizer="sgd", rate=0.02, epochs=3), DATA)[0]
    slow.history["loss"] = [1.3, 1.1, 0.9]
    slow.history["accuracy"] = [0.4, 0.5, 0.6]
    assert judge([slow]).verdict == "healthy", str(judge([slow]))
    slow.history["loss"] = [1.3, 1.31, 1.3]
    assert judge([slow]).verdict == "poor_initialization"


def test_large_weights_that_only_fit_the_training_rows_are_found():
    measured = train(Recipe(depth=3, activation="tanh", init=1.0, optimizer="sgd", rate=0.05, epochs=30), DATA)[0]
    assert measured.history["accuracy"][-1] > 0.9 > 0.75 > measured.history["test_accuracy"][-1]
    assert judge([measured]).verdict == "poor_initialization"


def test_a_held_out_score_that_swings_is_found_though_training_does_well():
    measured = train(Recipe(rate=3e-3), DATA)[0]
    assert judge([measured]).verdict == "healthy"
    measured.history["loss"][-2] += 0.1
    measured.history["test_accuracy"] = [0.6, 0.8] * 6
    report = judge([measured])
    assert report.verdict == "oscillating_loss"
    finding = report.findings[0]
    assert finding.measure == "test_accuracy" and finding.epochs == tuple(range(3, 13, 2))
    measured.history["test_accuracy"] = list(np.linspace(0.3, 0.9, 12))  # large steps, but all in one direction
    assert judge([measured]).verdict == "healthy"


def found_alone(condition, measured):
    """Return whether a condition is found of a fold, whatever else is."""
    return isinstance(JUDGES[condition](Evidence(measured)), Finding)


def test_a_rate_too_small_for_adam_is_named_beside_unscaled_inputs():
    recipe, data, *_ = SICK["a rate too small for Adam"]
    small = data.with_inputs(lambda X: 0.01 * X)
    [measured] = train(recipe, small)
    assert {"unscaled_inputs", "update_too_small"} <= set(judge([measured]).conditions)
    # Longer steps move the weights, and what is left to learn is left because of the inputs.
    set_layers(measured, "update_ratio", 5e-3, since=1)
    measured.history["loss"] = measured.history["test_loss"] = list(np.linspace(1.1, 0.8, 12))
    assert found_alone("update_too_small", measured)
    assert "update_too_small" not in judge([measured]).conditions
    # The gradients of plain gradient descent, and with them its steps, are small because the inputs are.
    [measured] = train(replace(recipe, optimizer="sgd", rate=0.05, activation="tanh"), small)
    assert found_alone("update_too_small", measured)
    assert judge([measured]).verdict == "unscaled_inputs"
    assert "update_too_small" not in judge([measured]).conditions


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_inputs_and_weights_explain_the_large_steps_of_gradient_descent_but_not_those_of_adam(optimizer):
    [measured] = train(Recipe(depth=3, activation="elu", rate=0.01), DATA.with_inputs(lambda X: X + 30))
    measured.facts = replace(measured.facts, optimizer=optimizer)
    measured.history.update(loss=[1.0, 1.4] * 6, accuracy=[0.4] * 12, test_accuracy=[0.3, 0.5] * 6)
    assert found_alone("oscillating_loss", measured)
    assert ("oscillating_loss" in judge([measured]).conditions) == (optimizer == "adam")

    [measured] = train(Recipe(depth=3, activation="tanh", init=3.0, rate=0.01), DATA)
    measured.facts = replace(measured.facts, optimizer=optimizer)
    measured.history.update(loss=[1.0, 1.4] * 6, accuracy=[0.4] * 12)
    set_layers(measured, "update_ratio", 0.1, since=1)
    assert found_alone("update_too_large", measured)
    assert ("update_too_large" in judge([measured]).conditions) == (optimizer == "adam")


def test_steps_that_make_the_score_swing_are_too_large_whatever_they_do_to_the_gradients():
    [measured] = train(Recipe(depth=3, activation="tanh", optimizer="momentum", rate=3.0), DATA)
    measured.history["test_accuracy"] = [0.3, 0.5] * 6
    set_layers(measured, "error_rms", (1e-9, 1e-6, 1e-3, 1.0), since=1)
    assert found_alone("vanishing_gradients", measured)
    found = judge([measured]).conditions
    assert {"update_too_large", "oscillating_loss"} <= set(found) and "vanishing_gradients" not in found


def test_large_gradients_explode_also_where_only_the_held_out_score_swings():
    measured = train(Recipe(depth=3, activation="tanh", optimizer="sgd", rate=0.01), DATA)[0]
    measured.history["accuracy"], measured.history["loss"] = [0.6] * 12, list(np.linspace(0.9, 0.6, 12))
    measured.history["test_accuracy"] = [0.4, 0.6] * 6
    assert "exploding_gradients" not in judge([measured]).conditions
    set_network(measured, "grad_norm", 10.0)
    [finding] = [found for found in judge([measured]).findings if found.condition == "exploding_gradients"]
    assert "score on held-out rows swing" in finding.message and finding.remedies[0].edit == {"clipnorm": 1.0}
    set_layers(measured, "error_rms", (1e-9, 1e-6, 1e-3, 1.0))  # the last layers alone learn
    assert "exploding_gradients" not in judge([measured]).conditions


def test_weights_that_a_sigmoid_bears_are_no_poor_start_though_they_saturate_it():
    recipe = Recipe(depth=2, activation="sigmoid", init=1.0, optimizer="sgd", rate=0.02)
    measured = train(recipe, DATA)[0]
    for share, found in ((0.6, False), (0.95, True)):
        set_layers(measured, "saturation", share, layer=0)
        assert ("poor_initialization" in judge([measured]).conditions) == found


def test_what_a_condition_brings_with_it_is_not_named_beside_it():
    recipe, data, verdict, _ = SICK["a diverging regression"]
    far = data.with_inputs(lambda X: 100 * X)
    assert "update_too_large" in judge(train(recipe, data)).conditions
    report = judge(train(recipe, far))
    assert report.verdict == "unscaled_inputs"
    assert not {"update_too_large", "exploding_gradients"} & set(report.conditions)
