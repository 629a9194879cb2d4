"""scikit-learn's own checks of an estimator, in both precisions.

In float64 the batch holds every sample of the checks, so that weights and repeated rows are the same arithmetic.
"""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from tuner import KerasClassifier, KerasRegressor

_REASON = (
    "a float32 sum over repeated rows and over weighted rows rounds differently, and training amplifies the difference "
    "above the check's tolerance of 1e-7"
)


def expected_failures(estimator):
    if estimator.dtype == "float64":
        return {}
    kinds = ("dense", "sparse")
    return {f"check_sample_weight_equivalence_on_{kind}_data": _REASON for kind in kinds}


@parametrize_with_checks(
    [
        KerasClassifier(dtype="float64", batch_size=256),
        KerasRegressor(dtype="float64", batch_size=256),
        KerasClassifier(),
        KerasRegressor(),
    ],
    expected_failed_checks=expected_failures,
    xfail_strict=True,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator_passes_check(estimator, check):
    check(estimator)
