"""The diagnosis names the conditions of networks of which interventions show what they suffer from."""

import pytest
from benchmark import CONDITIONS, Config, judged, labels, remedies, retrained, stored_measurements

from tuner.health.diagnosis import judge

#: Sensitivity and specificity on the held-out half, of which each is to be 0.95; what is below that is what is reached,
#: rounded down, and misses the target.
BOUNDS = {
    "unscaled_inputs": (0.95, 0.95),
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
