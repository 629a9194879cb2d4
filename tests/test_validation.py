import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.model_selection import cross_validate as fold_by_fold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tuner import KerasClassifier, NonFiniteLossError, cross_validate
from tuner.engine import stacked

NETWORK = KerasClassifier(units=16, epochs=5, random_state=0)
CV = StratifiedKFold(3, shuffle=True, random_state=0)


@pytest.mark.parametrize(
    "estimator", [NETWORK, make_pipeline(StandardScaler(), NETWORK), LogisticRegression()], ids=str
)
def test_the_scores_are_those_of_scikit_learn(estimator, digits):
    X, y = digits
    X = X / 16
    settings = {"cv": CV, "scoring": ["accuracy", "neg_log_loss"], "return_train_score": True}
    ours, theirs = cross_validate(estimator, X, y, **settings), fold_by_fold(estimator, X, y, **settings)
    assert ours.keys() - theirs.keys() == {"series"} and theirs.keys() <= ours.keys()
    for name in theirs:
        if "time" not in name:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)


def test_folds_train_together_on_one_copy_of_the_table(digits, monkeypatch):
    X, y = digits
    crews = []

    class Watched(stacked.StackedCrew):
        def __init__(self, prepared):
            super().__init__(prepared)
            crews.append((len(self.lanes), self.arguments.X.shape))

    monkeypatch.setattr(stacked, "StackedCrew", Watched)
    result = cross_validate(NETWORK, X, y, cv=CV)
    assert crews == [(3, X.shape)]
    assert len(result["series"]["split2_test_loss"]) == 5


def test_weights_and_groups_are_split_with_the_data(digits):
    X, y = digits
    groups = np.arange(len(y)) % 4
    weights = np.where(groups == 0, 0.0, 1.0)
    result = cross_validate(NETWORK, X, y, groups=groups, cv=GroupKFold(4), params={"sample_weight": weights})
    assert result["test_score"].shape == (4,)


def test_what_went_wrong_is_raised(digits):
    X, y = digits
    with pytest.raises(NonFiniteLossError):
        cross_validate(clone(NETWORK).set_params(optimizer="sgd", learning_rate=1e38), X, y, cv=CV)
