"""A report says what was found in words, numbers and plain values."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tuner.health.measurements import LAYER_MEASURES, NETWORK_MEASURES, LayerFacts, Measurements, NetworkFacts
from tuner.health.report import Finding, HealthReport, Remedy

CAUSE = Finding(
    condition="unscaled_inputs",
    severity=0.8,
    layers=("hidden_1",),
    epochs=(0,),
    measure="input_rms",
    value=100.0,
    threshold=10.0,
    source="LeCun et al. 1998",
    message="The inputs are not scaled.",
    remedies=(Remedy({"inputs": "standardize"}, "put a StandardScaler before the network"),),
    folds=4,
    n_folds=5,
)
CONSEQUENCE = replace(
    CAUSE,
    condition="update_too_large",
    severity=1.0,
    measure="update_ratio",
    value=np.inf,
    message="An update is too large.",
    remedies=(Remedy({"learning_rate": (1e-4, 1e-3)}, "smaller steps settle"),),
    consequence_of="unscaled_inputs",
)


def measured(scale=1.0, epochs=(0, 1)):
    layers = tuple(LayerFacts(name, "Dense", "tanh", 4, 3, 16) for name in ("hidden_1", "output"))
    result = Measurements(NetworkFacts(layers, notes=("no loss on held-out rows",)), history={"loss": [1.0, np.nan]})
    for epoch in epochs:
        numbers = np.arange(2.0 * len(LAYER_MEASURES)).reshape(2, -1) + 1
        result.add(epoch, scale * numbers, np.full(len(NETWORK_MEASURES), float(epoch)))
    return result


def test_the_worst_cause_is_the_verdict_and_its_consequence_is_not():
    report = HealthReport((CAUSE, CONSEQUENCE))
    assert report.verdict == "unscaled_inputs"
    assert report.conditions == ("unscaled_inputs", "update_too_large")
    assert report.score == pytest.approx(1 - 0.8 * 4 / 5)
    assert (HealthReport().verdict, HealthReport().score) == ("healthy", 1.0)


def test_text_says_what_was_found_where_and_what_to_try():
    text = str(HealthReport((CAUSE, CONSEQUENCE), ("overfitting was not judged: no loss",), (measured(),)))
    lines = text.splitlines()
    assert lines[0] == "unscaled_inputs (health score 0.36, 1 fold)"
    for line in (
        "unscaled_inputs: The inputs are not scaled.",
        "  layers: hidden_1",
        "  in 4 of 5 folds",
        "  input_rms 100, threshold 10 (LeCun et al. 1998)",
        "  try inputs=standardize: put a StandardScaler before the network",
        "  update_too_large: An update is too large.",
        "    try learning_rate=0.0001 to 0.001: smaller steps settle",
        "- overfitting was not judged: no loss",
    ):
        assert line in lines
    assert [line.split()[0] for line in lines if line.startswith(("hidden_1 ", "output "))] == ["hidden_1", "output"]


def test_layers_hold_every_number():
    frame = HealthReport(measurements=(measured(), measured(2))).layers
    assert list(frame.columns) == ["fold", "epoch", "layer", "measure", "value"]
    assert len(frame) == 2 * 2 * (2 * len(LAYER_MEASURES) + len(NETWORK_MEASURES))
    row = frame[(frame.fold == 1) & (frame.epoch == 1) & (frame.layer == "output") & (frame.measure == "grad_rms")]
    assert row.value.item() == measured(2).layer("grad_rms")[1, 1]
    of_network = frame[(frame.fold == 0) & (frame.epoch == 1) & (frame.layer == "") & (frame.measure == "loss")]
    assert of_network.value.item() == 1
    assert HealthReport().layers.empty and list(HealthReport().layers.columns) == list(frame.columns)


def test_profile_is_the_geometric_mean_over_folds():
    report = HealthReport(measurements=(measured(1), measured(4)))
    names, values = report.profile("error_rms", epoch=1)
    assert names == ("hidden_1", "output")
    np.testing.assert_allclose(values, 2 * measured().layer("error_rms")[1])
    assert np.isnan(report.profile(epoch=7)[1]).all()
    with pytest.raises(ValueError, match="measure must be one of"):
        report.profile("grad")


def test_table_is_the_mean_over_the_folds_that_were_measured():
    report = HealthReport(measurements=(measured(1, epochs=(0, 1)), measured(3, epochs=(0, 1, 2))))
    epochs, names, values = report.table("slope")
    assert (epochs, names, values.shape) == ((0, 1, 2), ("hidden_1", "output"), (2, 3))
    one = measured().layer("slope")[0]
    np.testing.assert_allclose(values, np.stack([2 * one, 2 * one, 3 * one], axis=1))


def test_without_measurements_there_is_nothing_to_draw():
    assert HealthReport().profile()[0] == ()
    assert HealthReport().table("slope")[2].shape == (0, 0)


@pytest.mark.parametrize("numbers", [True, False])
def test_plain_values_make_the_report_again(numbers):
    report = HealthReport((CAUSE, CONSEQUENCE), ("a note",), (measured(),))
    again = HealthReport.from_dict(json.loads(json.dumps(report.to_dict(numbers), allow_nan=False)))
    assert again.findings == report.findings and again.notes == report.notes
    assert (again.verdict, again.score) == (report.verdict, report.score)
    assert len(again.measurements) == numbers
    assert again.layers.equals(report.layers) if numbers else again.layers.empty


def test_the_statistics_are_those_of_a_linear_network():
    """With errors and gradients that fall by ten at every layer the slope is 1."""
    layers = tuple(LayerFacts(f"layer_{i}", "Dense", "linear", 3, 3, 9) for i in range(4))
    measured = Measurements(
        NetworkFacts(layers, baseline_loss=2.0),
        history={"loss": [1.8, 1.0, 1.4, 0.4], "test_loss": [1.0, 0.9, 0.8, 0.6]},
    )
    for epoch in (0, 4):
        values = np.ones((4, len(LAYER_MEASURES)))
        for name in ("grad_rms", "error_rms"):
            values[:, LAYER_MEASURES.index(name)] = 10.0 ** np.arange(-3, 1)
        values[:, LAYER_MEASURES.index("activation_variance")] = [1, 0.5, 0.25, 9]
        measured.add(epoch, values, np.ones(len(NETWORK_MEASURES)))
    statistics = HealthReport((), (), (measured, measured)).statistics
    assert statistics["gradient_slope"] == pytest.approx(1)
    assert statistics["error_ratio"] == pytest.approx(1e-3)
    assert statistics["variance_ratio"] == pytest.approx(0.25)
    assert statistics["loss_left"] == pytest.approx(0.2)
    assert statistics["loss_rises"] == pytest.approx(0.4 / 2.2)
    assert statistics["loss_fall"] == pytest.approx((1.4 - 0.4) / 1.8)
    assert statistics["held_out_gap"] == pytest.approx(0.1)
    assert all(math.isnan(value) for value in HealthReport((), (), ()).statistics.values())


def test_long_lines_go_on_below_their_beginning():
    words = "because of this and that " * 8
    finding = replace(CAUSE, message=words, remedies=(Remedy({"inputs": "standardize"}, words),))
    report = HealthReport((finding, replace(CONSEQUENCE, message=words)), (words,))
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 100
    for i, start in enumerate(lines[:-1]):
        if start.lstrip().startswith(("unscaled_inputs:", "update_too_large:", "try ", "- ")):
            indent = len(start) - len(start.lstrip())
            assert lines[i + 1].startswith((indent + 2) * " ") or len(start) < 80
