"""The diagnosis names the conditions of networks whose interventions are known."""

import pytest
from benchmark import CONDITIONS, judged

#: Sensitivity and specificity that are reached at least on the held-out half.
BOUNDS = {condition: (0.0, 0.85) for condition in CONDITIONS}


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
