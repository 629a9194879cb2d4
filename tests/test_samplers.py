import math

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from tuner import RandomThenFineSampler
from tuner.errors import HyperparameterError
from tuner.spaces import quiet

SPACE = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "share": FloatDistribution(0.0, 1.0),
    "units": IntDistribution(10, 210),
    "activation": CategoricalDistribution(["relu", "tanh", "elu"]),
}
BEST = {"rate": 1e-2, "share": 0.95, "units": 110, "activation": "tanh"}


def study_of(*trials, direction="maximize", **settings):
    with quiet():
        study = optuna.create_study(direction=direction, sampler=RandomThenFineSampler(**{"seed": 0, **settings}))
    study.add_trials(trials)
    return study


def finished(value, params, state=TrialState.COMPLETE, **more):
    return create_trial(
        state=state, value=value, params=params, distributions={name: SPACE[name] for name in params}, **more
    )


def proposals(study, n, space=None):
    return [study.ask(space or SPACE).params for _ in range(n)]


OTHER = {"rate": 0.5, "share": 0.1, "units": 20, "activation": "elu"}


def test_the_whole_space_at_first_then_a_box_around_the_best():
    study = study_of(finished(0.2, OTHER), n_random=2)
    wide = proposals(study, 200)
    assert min(p["rate"] for p in wide) < 2e-4 and max(p["rate"] for p in wide) > 0.5
    assert sum(p["rate"] < 1e-2 for p in wide) == pytest.approx(100, abs=25)  # as many below the middle of the powers
    assert min(p["units"] for p in wide) < 20 and max(p["units"] for p in wide) > 200
    study.add_trial(finished(0.9, BEST))
    fine = proposals(study, 400)
    rates = [math.log10(p["rate"]) for p in fine]
    assert -2.4 <= min(rates) < -2.35 and -1.65 < max(rates) <= -1.6  # a tenth of four powers of ten on either side
    shares = [p["share"] for p in fine]
    assert 0.85 <= min(shares) < 0.87 and 0.98 < max(shares) <= 1  # cut off at the end of the range
    units = [p["units"] for p in fine]
    assert 89 <= min(units) <= 91 and 129 <= max(units) <= 131 and all(type(n) is int for n in units)
    kept = sum(p["activation"] == "tanh" for p in fine) / 400
    assert kept == pytest.approx(0.8 + 0.2 / 3, abs=0.05)
    # A better one moves the box.
    study.add_trial(finished(0.95, OTHER))
    assert all(10 <= p["units"] <= 41 for p in proposals(study, 20))


def test_minimising_looks_for_the_lowest():
    study = study_of(finished(0.2, BEST), finished(0.9, OTHER), direction="minimize", n_random=2)
    assert all(89 <= p["units"] <= 131 for p in proposals(study, 20))


def test_only_complete_trials_that_keep_to_the_constraints_count():
    pruned, failed = finished(2.0, OTHER, TrialState.PRUNED), finished(None, OTHER, TrialState.FAIL)
    assert max(p["units"] for p in proposals(study_of(finished(0.1, BEST), pruned, failed, n_random=2), 50)) > 150
    sick = finished(0.9, OTHER, constraints={"health": 1.0})
    study = study_of(pruned, failed, finished(0.1, BEST), sick, n_random=2)
    assert all(89 <= p["units"] <= 131 for p in proposals(study, 20))


def test_what_the_best_trial_does_not_have_is_drawn_from_the_whole_range():
    study = study_of(finished(0.1, {"rate": 1e-2}), n_random=1)
    drawn = proposals(study, 50)
    assert max(p["units"] for p in drawn) - min(p["units"] for p in drawn) > 150
    other_range = {"rate": FloatDistribution(1e-8, 1.0, log=True)}
    assert min(p["rate"] for p in proposals(study, 50, other_range)) < 1e-6


@given(
    low=st.integers(-50, 50),
    n=st.integers(0, 30),
    step=st.integers(1, 5),
    chosen=st.integers(0, 30),
    kind=st.sampled_from([IntDistribution, FloatDistribution]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_steps_are_kept_and_the_neighbours_are_always_within(low, n, step, chosen, kind, seed):
    distribution = kind(low, low + n * step, step=step)
    best = low + min(chosen, n) * step
    trial = create_trial(value=1.0, params={"x": best}, distributions={"x": distribution})
    study = study_of(trial, n_random=1, width=1e-9, seed=seed)
    drawn = {study.ask({"x": distribution}).params["x"] for _ in range(40)}
    assert drawn == {x for x in (best - step, best, best + step) if low <= x <= low + n * step}


def test_a_resumed_study_goes_on_as_if_it_had_not_been_interrupted():
    def objective(trial):
        return trial.suggest_float("rate", 1e-4, 1.0, log=True) + trial.suggest_int("units", 10, 210)

    def run(*parts):
        storage = optuna.storages.InMemoryStorage()
        for n in parts:
            with quiet():
                study = optuna.create_study(
                    study_name="s",
                    storage=storage,
                    sampler=RandomThenFineSampler(n_random=5, seed=3),
                    load_if_exists=True,
                )
                study.sampler.reseed_rng()
                study.optimize(objective, n_trials=n)
        return [trial.params for trial in study.trials]

    assert run(12) == run(7, 5) == run(3, 3, 6)


def test_it_finds_a_lower_minimum_than_random_search():
    """Of a bowl in four dimensions, in 60 trials, in most of ten seeds."""

    def objective(trial):
        return sum((trial.suggest_float(f"x{i}", -1, 1) - 0.3) ** 2 for i in range(4))

    won = 0
    for seed in range(10):
        found = []
        for sampler in (RandomThenFineSampler(seed=seed), optuna.samplers.RandomSampler(seed=seed)):
            with quiet():
                study = optuna.create_study(sampler=sampler)
                study.optimize(objective, n_trials=60)
            found.append(study.best_value)
        won += found[0] < found[1]
    assert won >= 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_random": 0}, "n_random must be an integer >= 1; got 0"),
        ({"width": 0}, "width must be a number > 0 and <= 1"),
        ({"resample": 2}, "resample must be a number >= 0 and <= 1; got 2"),
    ],
)
def test_what_is_not_allowed_is_said(settings, message):
    with pytest.raises(HyperparameterError, match=message):
        RandomThenFineSampler(**settings)
