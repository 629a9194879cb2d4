"""What scikit-learn lacks in preprocessing."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data


class GlobalScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Standardise by one mean and one standard deviation over all entries, as is customary for the pixels of images.

    ``StandardScaler`` has a mean and a deviation for each feature instead. A pixel at the border, which is 0 in nearly
    every image, then gets weight out of proportion; here the features keep their relations.

    Attributes
    ----------
    mean_ : float
        Of all entries; 33.32 for the training images of MNIST, with values from 0 to 255.
    scale_ : float
        Their standard deviation (dividing by their number), 1 where they are all the same; 78.57 for MNIST.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Where X has column names that are all strings.

    Examples
    --------
    >>> from tuner import GlobalScaler
    >>> GlobalScaler().fit_transform([[1.0, 2.0], [3.0, 6.0]]).mean()
    0.0
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Measure mean and deviation.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
        y : None
            Ignored.

        Returns
        -------
        self
        """
        X = self._validated(X, reset=True)
        # In float64: a mean of millions of float32 pixels would lose digits.
        self.mean_ = float(X.mean(dtype=np.float64))
        deviation = 0.0 if X.min() == X.max() else float(X.std(dtype=np.float64))
        self.scale_ = deviation or 1.0
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return X standardised, (n_samples, ...), float32 where X is, otherwise float64."""
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        return (X - X.dtype.type(self.mean_)) / X.dtype.type(self.scale_)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return what was standardised as it was."""
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        return X * X.dtype.type(self.scale_) + X.dtype.type(self.mean_)

    def _validated(self, X: Any, *, reset: bool) -> np.ndarray:
        return validate_data(self, X, reset=reset, dtype=(np.float64, np.float32), allow_nd=True)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
