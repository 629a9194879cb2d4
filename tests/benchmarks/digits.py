"""The digits study that several benchmarks run: data, folds, space, and our search on them."""

from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tuner import KerasClassifier, OptunaSearchCV

UNITS, EPOCHS, BATCH_SIZE = (64, 64), 20, 32
X, y = load_digits(return_X_y=True)
CV = StratifiedKFold(5, shuffle=True, random_state=0)

SPACE = {
    "activation": CategoricalDistribution(["relu", "tanh", "sigmoid", "elu"]),
    "batch_normalization": CategoricalDistribution([None, "before", "after"]),
    "kernel_initializer": CategoricalDistribution(["glorot_uniform", "he_normal", "lecun_normal", "orthogonal"]),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
}


def search(tracker, n_trials, *, space=SPACE, rows=slice(None), units=UNITS, epochs=EPOCHS, **settings):
    """Run our search with Adam and everything tracked, but no refit, which is not a trial; return it."""
    network = KerasClassifier(units=units, epochs=epochs, batch_size=BATCH_SIZE, random_state=0)
    return OptunaSearchCV(
        make_pipeline(StandardScaler(), network),
        {f"kerasclassifier__{name}": values for name, values in space.items()},
        cv=CV,
        n_trials=n_trials,
        random_state=0,
        refit=False,
        tracking=tracker,
        **settings,
    ).fit(X[rows], y[rows])


def warm_up(tracker):
    """Pay what the first calls of TensorFlow, Optuna and MLflow cost, on a network that no benchmark trains."""
    search(tracker, 1, space={}, rows=slice(200), units=(3,), epochs=1)


def mlp(**params):
    """Return scikit-learn's network for equal work: no penalty, and no end before the last epoch."""
    return MLPClassifier(
        UNITS, alpha=0, solver="adam", batch_size=BATCH_SIZE, max_iter=EPOCHS, n_iter_no_change=EPOCHS, **params
    )
