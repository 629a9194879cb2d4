"""Which learning rate, initialiser, activation and batch normalisation suit handwritten digits?

The data are scikit-learn's bundled digits: 1,797 images of 8 x 8 pixels. They are ordered by writer, so the folds are
shuffled: in order, a fold holds writers that its network has never seen.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tuner import KerasClassifier, Study

study = Study(
    name="digits",
    data=lambda: load_digits(return_X_y=True),  # X (1797, 64), y (1797,)
    estimator=make_pipeline(StandardScaler(), KerasClassifier(units=64, epochs=20, random_state=0)),
    space={
        "kerasclassifier__learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
        "kerasclassifier__kernel_initializer": CategoricalDistribution(["glorot_uniform", "he_normal", "lecun_normal"]),
        "kerasclassifier__activation": CategoricalDistribution(["relu", "tanh", "selu", "sigmoid"]),
        "kerasclassifier__batch_normalization": CategoricalDistribution([None, "before", "after"]),
    },
    cv=StratifiedKFold(5, shuffle=True, random_state=0),
    scoring="accuracy",
    n_trials=20,
    random_state=0,
)
