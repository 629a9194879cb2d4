"""scikit-learn's own checks on the search."""

import pytest
from optuna.distributions import FloatDistribution
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from tuner import OptunaSearchCV

# As scikit-learn checks its own searches, errors are raised; and with three folds, since some checks bring classes of
# three samples, for which the default of five is refused.
SETTINGS = {"n_trials": 2, "cv": 3, "error_score": "raise", "random_state": 0}


@parametrize_with_checks(
    [
        OptunaSearchCV(LogisticRegression(), {"C": FloatDistribution(0.1, 1, log=True)}, **SETTINGS),
        OptunaSearchCV(Ridge(), {"alpha": FloatDistribution(0.1, 1, log=True)}, **SETTINGS),
    ]
)
@pytest.mark.filterwarnings("ignore")  # the checks raise and catch warnings of their own
def test_sklearn_checks(estimator, check):
    check(estimator)
