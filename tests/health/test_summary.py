"""What the sick trials of a study share."""

from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from tuner.health import HEALTHY_ENOUGH, health_constraint
from tuner.health.summary import summarize

HEALTHY = ("healthy", (), 1.0)


def finding(condition, **edit):
    remedies = (SimpleNamespace(edit=edit, reason="it helps"),) if edit else ()
    return SimpleNamespace(condition=condition, remedies=remedies)


def sick(condition="exploding", *others, **edit):
    return condition, (finding(condition, **edit), *map(finding, others)), 0.2


def test_a_threshold_is_found_on_the_logarithmic_scale():
    rates = np.logspace(-4, 0, 21)
    trials = [({"rate": rate, "seed": i % 3}, *(sick() if rate > 0.02 else HEALTHY)) for i, rate in enumerate(rates)]
    summary = summarize(trials)
    assert (summary.n_trials, summary.n_sick) == (21, 9)
    [condition] = summary.conditions
    [shared] = condition.shared
    assert shared.values == "rate > 0.02", "halfway, in decades, between 0.0158 and 0.0251"
    assert (shared.sick, shared.n, shared.sick_else, shared.n_else) == (9, 9, 0, 12)
    assert str(shared) == "rate > 0.02 (9 of 9 sick; else 0 of 12)"


def test_a_small_range_is_split_halfway_and_low_values_may_be_the_sick_ones():
    trials = [({"layers": n}, *(sick() if n < 3 else HEALTHY)) for n in [1, 2, 3, 4] * 5]
    [condition] = summarize(trials).conditions
    assert [shared.values for shared in condition.shared] == ["layers < 2.5"]


@pytest.mark.parametrize("value", ["sigmoid", None, True, "(64, 32)"])
def test_a_choice_is_named(value):
    trials = [({"choice": value}, *sick("vanishing"))] * 6 + [({"choice": "relu"}, *HEALTHY)] * 6
    [condition] = summarize(trials).conditions
    assert condition.shared[0].values == f"choice = {value!r}"


def test_nothing_is_said_of_what_chance_may_have_done():
    rng = np.random.default_rng(0)
    said = 0
    for _ in range(40):
        trials = [
            ({"a": rng.uniform(), "b": str(rng.integers(4)), "c": 10 ** rng.uniform(-5, 0)}, *kind)
            for kind in [sick()] * 12 + [HEALTHY] * 12
        ]
        said += sum(bool(condition.shared) for condition in summarize(trials).conditions)
    assert said <= 4, "5 % of the studies, chance itself included"
    few = [({"rate": 1.0}, *sick())] * 2 + [({"rate": 0.1}, *HEALTHY)] * 50
    assert summarize(few).conditions[0].shared == ()


def test_a_hyperparameter_that_only_some_trials_have_is_compared_among_these():
    trials = [({"momentum": 0.99}, *sick())] * 8 + [({"momentum": 0.5}, *HEALTHY)] * 8 + [({}, *HEALTHY)] * 8
    [condition] = summarize(trials).conditions
    [shared] = condition.shared
    assert (shared.values, shared.n, shared.n_else) in [("momentum > 0.745", 8, 8)]


def test_conditions_are_counted_by_verdict_and_by_what_was_found_besides():
    trials = [({}, *sick("vanishing", "saturated"))] * 3 + [({}, *sick("exploding"))] * 2 + [({}, *HEALTHY)]
    conditions = {c.condition: (c.n_verdicts, c.n_trials) for c in summarize(trials).conditions}
    assert list(conditions.items()) == [("vanishing", (3, 3)), ("exploding", (2, 2)), ("saturated", (0, 3))]
    assert summarize(trials).lines() == ["health: 5 of 6 trials were sick: 3 vanishing, 2 exploding"]
    assert summarize(trials).tags() == {
        "health.trials": 6,
        "health.sick_trials": 5,
        "health.vanishing": 3,
        "health.exploding": 2,
        "health.saturated": 3,
    }


def test_the_most_frequent_remedy_is_told():
    trials = [({}, *sick(learning_rate=0.001))] * 3 + [({}, *sick(clipnorm=1.0))] * 2
    summary = summarize(trials)
    assert summary.conditions[0].remedy == "learning_rate=0.001: it helps"
    assert summary.lines()[1] == "  exploding: try learning_rate=0.001: it helps"
    [narrower] = summarize([({}, *sick(learning_rate=(1e-5, 2e-4)))]).conditions
    assert narrower.remedy == "learning_rate=1e-05 to 0.0002: it helps"


def test_remedies_whose_ranges_differ_count_as_one_and_show_the_median_range():
    rates = [1e-2, 1e-4, 1.0]
    trials = [({}, *sick(learning_rate=(rate / 100, rate / 10), clipnorm=1.0)) for rate in rates]
    trials += [({}, *sick(batch_normalization="before"))] * 2
    [condition] = summarize(trials).conditions
    assert condition.remedy == "learning_rate=0.0001 to 0.001, clipnorm=1.0: it helps", "what three of five were given"


def test_remedies_of_one_hyperparameter_show_its_most_frequent_value():
    trials = [({}, *sick(activation=name)) for name in ("elu", "relu", "relu", "selu")]
    trials += [({}, *sick(clipnorm=1.0))] * 3
    assert summarize(trials).conditions[0].remedy == "activation=relu: it helps"


def test_a_terminal_gets_four_lines_at_most_and_none_where_nothing_is_known():
    trials = [({"x": i}, *sick(f"condition_{i}", a=i)) for i in range(9)]
    assert len(summarize(trials).lines()) == 4
    assert summarize([]).lines() == []
    assert summarize([({}, *HEALTHY)] * 3).lines() == ["health: 0 of 3 trials were sick"]


def test_the_page_is_well_formed_whatever_a_value_is_called():
    class Tags(HTMLParser):
        def __init__(self):
            super().__init__()
            self.seen = []

        def handle_starttag(self, tag, attrs):
            self.seen.append(tag)

    trials = [({"f": "<script>"}, *sick(loss="<b>"))] * 6 + [({"f": "x"}, *HEALTHY)] * 6
    parser = Tags()
    page = summarize(trials).html()
    parser.feed(page)
    assert "script" not in parser.seen and "b" not in parser.seen and "table" in parser.seen
    assert "0 of 0 trials" in summarize([]).html()


def test_a_study_of_many_trials_is_summarised_at_once():
    rng = np.random.default_rng(0)
    trials = [
        ({f"p{j}": rng.uniform() for j in range(10)} | {"rate": rate}, *(sick() if rate > 0.5 else HEALTHY))
        for rate in rng.uniform(size=3000)
    ]
    shared = summarize(trials).conditions[0].shared[0]
    low = float(shared.values.removeprefix("rate > "))
    assert 0.47 < low < 0.53


def test_the_constraint_is_what_is_missing_to_be_healthy_enough():
    for score, feasible in ((1.0, True), (HEALTHY_ENOUGH, True), (0.1, False)):
        (value,) = health_constraint(SimpleNamespace(user_attrs={"health_score": score}))
        assert (value <= 0) == feasible
    assert health_constraint(SimpleNamespace(user_attrs={}))[0] <= 0
