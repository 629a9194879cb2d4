"""Dense networks in NumPy, trained and measured as `tuner.health.measurements` says: patients for the diagnosis."""

from dataclasses import dataclass, replace

import numpy as np

from tuner.health.measurements import (
    LAYER_MEASURES,
    NETWORK_MEASURES,
    SATURATED_ROWS,
    SATURATION_MARGIN,
    LayerFacts,
    Measurements,
    NetworkFacts,
    baseline_accuracy,
)

PROBE = 256
BATCH = 32
SELU_ALPHA, SELU_SCALE = 1.6732632, 1.0507010


def sigmoid(z):
    return 0.5 * (1 + np.tanh(0.5 * z))


def _gelu(z):
    inner = np.tanh(0.7978845608 * (z + 0.044715 * z**3))
    slope = 0.5 * (1 + inner) + 0.5 * z * (1 - inner**2) * 0.7978845608 * (1 + 0.134145 * z**2)
    return 0.5 * z * (1 + inner), slope


def _elu(z):
    below = np.exp(np.minimum(z, 0))
    return np.where(z > 0, z, below - 1), np.where(z > 0, 1, below)


def _selu(z):
    below = SELU_ALPHA * np.exp(np.minimum(z, 0))
    return SELU_SCALE * np.where(z > 0, z, below - SELU_ALPHA), SELU_SCALE * np.where(z > 0, 1, below)


# name -> z -> (value, slope)
ACTIVATIONS = {
    "linear": lambda z: (z, np.ones_like(z)),
    "relu": lambda z: (np.maximum(z, 0), (z > 0).astype(z.dtype)),
    "leaky_relu": lambda z: (np.where(z > 0, z, 0.2 * z), np.where(z > 0, 1, 0.2).astype(z.dtype)),
    "elu": _elu,
    "selu": _selu,
    "gelu": _gelu,
    "tanh": lambda z: (np.tanh(z), 1 - np.tanh(z) ** 2),
    "softsign": lambda z: (z / (1 + abs(z)), 1 / (1 + abs(z)) ** 2),
    "sigmoid": lambda z: (sigmoid(z), sigmoid(z) * (1 - sigmoid(z))),
}
RANGES = {"tanh": (-1, 1), "softsign": (-1, 1), "sigmoid": (0, 1), "softmax": (0, 1)}


@dataclass(frozen=True)
class Recipe:
    """What decides one network and its training; `std` or a name chooses the initial weights."""

    depth: int = 3
    units: int = 32
    activation: str = "relu"
    init: str | float = "auto"
    bias: float = 0.0
    bn: str | None = None
    residual: bool = False
    optimizer: str = "adam"
    rate: float = 1e-3
    clipnorm: float | None = None
    loss: str = "auto"
    epochs: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Data:
    X: np.ndarray
    Y: np.ndarray  # one column per output
    task: str
    X_test: np.ndarray
    Y_test: np.ndarray

    def with_inputs(self, change):
        return replace(self, X=change(self.X), X_test=change(self.X_test))

    def standardized(self):
        mean, scale = self.X.mean(0), self.X.std(0) + 1e-12
        return self.with_inputs(lambda X: (X - mean) / scale)


def make_data(task="multiclass", n=1024, features=12, seed=0, noise=0.0, classes=4):
    """Return rows of standard normal features, of which the targets are a smooth function that is not linear."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n + 512, features))
    scores = np.tanh(X @ rng.normal(size=(features, 8)) / 2) @ rng.normal(size=(8, classes))
    scores = scores / scores.std(0) + 0.5 * X[:, :classes]
    if task == "regression":
        Y = scores[:, :1] / scores[:, :1].std() + noise * rng.normal(size=(len(X), 1))
    elif task == "binary":
        Y = (scores[:, :1] > np.median(scores[:, 0])).astype(float)
        Y = np.where(rng.random(Y.shape) < noise, 1 - Y, Y)
    else:
        labels = scores.argmax(1)
        labels = np.where(rng.random(len(labels)) < noise, rng.integers(0, classes, len(labels)), labels)
        Y = np.eye(classes)[labels]
    return Data(X[:n], Y[:n], task, X[n:], Y[n:])


def initial(recipe, fan_in, fan_out, rng):
    name = recipe.init
    if name == "auto":
        name = {"selu": "lecun"}.get(recipe.activation, "he" if "relu" in recipe.activation else "glorot")
        name = "he" if recipe.activation in ("elu", "gelu") else name
    if name == "zeros":
        return np.zeros((fan_in, fan_out), np.float32)
    std = {"he": (2 / fan_in) ** 0.5, "glorot": (2 / (fan_in + fan_out)) ** 0.5, "lecun": fan_in**-0.5}.get(name, name)
    return (std * rng.normal(size=(fan_in, fan_out))).astype(np.float32)


class Lanes:
    """Networks of one structure, which differ in data, initial weights, rate and clipping; the first axis counts them.

    The first recipe decides the structure for all.
    """

    def __init__(self, recipes, datas):
        self.recipes, self.datas = recipes, datas
        self.r = r = recipes[0]
        self.X = np.stack([d.X for d in datas]).astype(np.float32)
        self.Y = np.stack([d.Y for d in datas]).astype(np.float32)
        self.task = datas[0].task
        self.output = {"regression": "linear", "binary": "sigmoid", "multiclass": "softmax"}[self.task]
        entropy = {"binary": "binary_crossentropy", "multiclass": "categorical_crossentropy"}
        self.loss = entropy.get(self.task, "mean_squared_error") if r.loss == "auto" else r.loss
        widths = [self.X.shape[2]] + [r.units] * r.depth + [self.Y.shape[2]]
        rngs = [np.random.default_rng(recipe.seed) for recipe in recipes]
        self.params = []
        for i, (m, k) in enumerate(zip(widths, widths[1:], strict=False)):
            w = np.stack([initial(recipe, m, k, rng) for recipe, rng in zip(recipes, rngs, strict=True)])
            b = np.stack([np.full((1, k), recipe.bias if i < r.depth else 0.0) for recipe in recipes])
            self.params.append([w, b.astype(np.float32)])
            if r.bn and i < r.depth:
                self.params[-1] += [np.ones_like(b, np.float32), np.zeros_like(b, np.float32)]
        self.moving = [[np.zeros((len(recipes), 1, k)), np.ones((len(recipes), 1, k))] for k in widths[1:-1]]
        self.slots = [[[np.zeros_like(p), np.zeros_like(p)] for p in group] for group in self.params]
        self.rate = np.array([recipe.rate for recipe in recipes], np.float32)[:, None, None]
        self.clip = np.array([recipe.clipnorm or np.inf for recipe in recipes])[:, None, None]
        self.step = 0
        self.change = [np.full_like(group[0], np.nan) for group in self.params]

    def norm(self, i, x, keep, training):
        gamma, beta = self.params[i][2:]
        if not training:
            mean, var = self.moving[i]
            return ((x - mean) / np.sqrt(var + 1e-3) * gamma + beta).astype(np.float32), None
        mean, var = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        if keep:
            self.moving[i] = [0.95 * a + 0.05 * b for a, b in zip(self.moving[i], (mean, var), strict=True)]
        inv = 1 / np.sqrt(var + 1e-3)
        hat = (x - mean) * inv
        return hat * gamma + beta, (hat, inv)

    def forward(self, X, keep=False, training=True):
        x, tape = X, []
        for i, group in enumerate(self.params):
            into, cache = x, None
            z = x @ group[0] + group[1]
            if i == self.r.depth:
                tape.append((into, z, None, None, None))
                break
            if self.r.bn == "before":
                z, cache = self.norm(i, z, keep, training)
            if self.r.residual and i > 0:
                z = z + into
            a, slope = ACTIVATIONS[self.r.activation](z)
            x = a
            if self.r.bn == "after":
                x, cache = self.norm(i, a, keep, training)
            tape.append((into, z, a, slope, cache))
        if self.output == "softmax":
            e = np.exp(z - z.max(-1, keepdims=True))
            p = e / e.sum(-1, keepdims=True)
        else:
            p = sigmoid(z) if self.output == "sigmoid" else z
        return p, tape

    def losses(self, p, Y):
        """Return the loss of every row, (G, n)."""
        if self.loss == "mean_squared_error":
            return ((p - Y) ** 2).mean(-1)
        p = np.clip(p, 1e-7, 1 - 1e-7)
        if self.loss == "binary_crossentropy":
            return -(Y * np.log(p) + (1 - Y) * np.log(1 - p)).mean(-1)
        return -(Y * np.log(p)).sum(-1)

    def backward(self, p, Y, tape):
        """Return the gradients of the mean loss, and by every z those of the rows' summed losses."""
        n = p.shape[1]
        if self.loss == "mean_squared_error":
            d = 2 * (p - Y) / p.shape[2]
            if self.output == "softmax":
                d = p * (d - (d * p).sum(-1, keepdims=True))
            elif self.output == "sigmoid":
                d = d * p * (1 - p)
        else:
            d = (p - Y) / (p.shape[2] if self.output == "sigmoid" else 1)
        errors, grads = [None] * len(tape), [None] * len(tape)
        for i in range(len(tape) - 1, -1, -1):
            into, _, _, slope, cache = tape[i]
            extra, shortcut = [], None
            if i < self.r.depth:
                if self.r.bn == "after":
                    d, extra = self.norm_back(i, d, cache)
                d = d * slope
                errors[i] = d
                shortcut = d if self.r.residual and i > 0 else None
                if self.r.bn == "before":
                    d, extra = self.norm_back(i, d, cache)
            else:
                errors[i] = d
            grads[i] = [into.swapaxes(1, 2) @ d / n, d.sum(1, keepdims=True) / n] + [g / n for g in extra]
            d = d @ self.params[i][0].swapaxes(1, 2)
            d = d if shortcut is None else d + shortcut
        return grads, errors

    def norm_back(self, i, d, cache):
        hat, inv = cache
        extra = [(d * hat).sum(1, keepdims=True), d.sum(1, keepdims=True)]
        dh = d * self.params[i][2]
        return inv * (dh - dh.mean(1, keepdims=True) - hat * (dh * hat).mean(1, keepdims=True)), extra

    def update(self, grads):
        self.step += 1
        total = np.sqrt(sum((g.astype(float) ** 2).sum((1, 2), keepdims=True) for group in grads for g in group))
        scale = np.where(total > self.clip, self.clip / total, 1).astype(np.float32)
        for i, group in enumerate(grads):
            for j, g in enumerate(group):
                g, slot = g * scale, self.slots[i][j]
                if self.r.optimizer == "adam":
                    slot[0] = 0.9 * slot[0] + 0.1 * g
                    slot[1] = 0.999 * slot[1] + 0.001 * g * g
                    first, second = slot[0] / (1 - 0.9**self.step), slot[1] / (1 - 0.999**self.step)
                    delta = -self.rate * first / (np.sqrt(second) + 1e-7)
                elif self.r.optimizer == "momentum":
                    slot[0] = 0.9 * slot[0] - self.rate * g
                    delta = slot[0]
                else:
                    delta = -self.rate * g
                delta = delta.astype(np.float32)
                self.params[i][j] = self.params[i][j] + delta
                if j == 0:
                    self.change[i] = delta

    def measure(self):
        X, Y = self.X[:, :PROBE], self.Y[:, :PROBE]
        p, tape = self.forward(X)
        loss = self.losses(p, Y).mean(1)
        grads, errors = self.backward(p, Y, tape)
        G = len(self.recipes)
        layers = np.full((G, len(tape), len(LAYER_MEASURES)), np.nan)
        network = np.full((G, len(NETWORK_MEASURES)), np.nan)

        def put(i, name, value):
            layers[:, i, LAYER_MEASURES.index(name)] = value

        def say(name, value):
            network[:, NETWORK_MEASURES.index(name)] = value

        bad = (~np.isfinite(loss)).astype(float)
        total = 0
        for i, (_, z, a, slope, _) in enumerate(tape):
            last = i == self.r.depth
            a = p if last else a
            name = self.output if last else self.r.activation
            if last:
                slope = p * (1 - p) if name in RANGES else np.ones_like(z)
            g = np.concatenate([part.reshape(G, -1) for part in grads[i]], axis=1).astype(float)
            w = self.params[i][0].astype(float)
            norm = np.sqrt((w**2).sum((1, 2)))
            total = total + (g**2).sum(1)
            put(i, "grad_norm", np.sqrt((g**2).sum(1)))
            put(i, "grad_rms", np.sqrt((g**2).mean(1)))
            put(i, "grad_zeros", (g == 0).mean(1))
            put(i, "error_rms", np.sqrt((errors[i].astype(float) ** 2).mean((1, 2))))
            put(i, "weight_norm", norm)
            put(i, "update_ratio", np.sqrt((self.change[i].astype(float) ** 2).sum((1, 2))) / norm)
            put(i, "activation_mean", a.mean((1, 2)))
            put(i, "activation_variance", a.astype(float).var((1, 2)))
            put(i, "signal_variance", a.astype(float).var(1).mean(1))
            put(i, "dead_units", (slope == 0).all(1).mean(1))
            put(i, "slope", np.sqrt((slope.astype(float) ** 2).mean((1, 2))))
            put(i, "local_slope", np.sqrt((w**2).mean((1, 2)) * (slope.astype(float) ** 2).mean((1, 2))))
            if name in RANGES:
                low, high = RANGES[name]
                near = np.minimum(a - low, high - a) < SATURATION_MARGIN * (high - low)
                put(i, "saturation", near.mean((1, 2)))
                put(i, "saturated_units", (near.mean(1) >= SATURATED_ROWS).mean(1))
                put(i, "saturation_index", abs(2 * (a - low) / (high - low) - 1).mean((1, 2)))
                if last:
                    wrong = near & (abs(a - Y) > 0.5 * (high - low))
                    say("output_saturation", near.mean((1, 2)))
                    say("output_wrong", wrong.mean((1, 2)))
            count = (~np.isfinite(g)).sum(1) + (~np.isfinite(w)).sum((1, 2)) + (~np.isfinite(a)).sum((1, 2))
            put(i, "non_finite", count)
            bad = bad + count
        inputs = X.astype(float)
        mean, dev = inputs.mean(1), inputs.std(1)
        say("loss", loss)
        say("grad_norm", np.sqrt(total))
        say("input_mean", inputs.mean((1, 2)))
        say("input_rms", np.sqrt((inputs**2).mean((1, 2))))
        say("input_max", abs(inputs).max((1, 2)))
        say("input_offset", np.sqrt((mean**2).mean(1)) / np.sqrt((dev**2).mean(1)))
        sizes = np.sqrt((inputs**2).mean(1))
        say("input_spread", np.nanstd(np.log10(np.where(sizes > 0, sizes, np.nan)), axis=1))
        say("non_finite", bad)
        return layers, network

    def facts(self, i):
        recipe, r = self.recipes[i], self.r
        widths = [self.X.shape[2]] + [r.units] * r.depth + [self.Y.shape[2]]
        layers = tuple(
            LayerFacts(
                name=f"hidden_{j + 1}" if j < r.depth else "output",
                kind="Dense",
                activation=r.activation if j < r.depth else self.output,
                units=k,
                fan_in=m,
                n_weights=(m + 1) * k,
            )
            for j, (m, k) in enumerate(zip(widths, widths[1:], strict=False))
        )
        Y = self.datas[i].Y
        share = Y.mean(0)
        if self.loss == "mean_squared_error":
            baseline = ((Y - share) ** 2).mean()
        elif self.loss == "binary_crossentropy":
            baseline = -(share * np.log(share) + (1 - share) * np.log(1 - share)).mean()
        else:
            baseline = -(share * np.log(np.maximum(share, 1e-7))).sum()
        return NetworkFacts(
            layers=layers,
            loss=self.loss,
            optimizer="sgd" if r.optimizer == "momentum" else r.optimizer,
            learning_rate=recipe.rate,
            momentum=0.9 if r.optimizer == "momentum" else 0.0 if r.optimizer == "sgd" else None,
            clipnorm=recipe.clipnorm,
            task=self.task,
            normalization=r.bn is not None,
            residual=r.residual and r.depth > 1,
            kernel_initializer=recipe.init if isinstance(recipe.init, str) else "random_normal",
            batch_size=BATCH,
            n_rows=len(Y),
            baseline_loss=float(baseline),
            baseline_accuracy=baseline_accuracy(self.task, Y),
        )

    def score(self, p, Y):
        if self.task == "multiclass":
            return (p.argmax(-1) == Y.argmax(-1)).mean(1)
        if self.task == "binary":
            return ((p > 0.5) == (Y > 0.5)).mean((1, 2))
        return 1 - ((p - Y) ** 2).mean((1, 2)) / Y.var((1, 2))

    def run(self):
        """Train, and return one `Measurements` for each network."""
        with np.errstate(all="ignore"):
            return self._run()

    def _run(self):
        G, n = self.X.shape[:2]
        score = "r2" if self.task == "regression" else "accuracy"
        tests = [np.stack([getattr(d, name) for d in self.datas]).astype(np.float32) for name in ("X_test", "Y_test")]
        patients = [Measurements(self.facts(i), history={}) for i in range(G)]
        self.take(patients, 0, {})
        rng = np.random.default_rng(self.r.seed + 1)
        for epoch in range(1, self.r.epochs + 1):
            order, losses, right = rng.permutation(n), 0, 0
            for start in range(0, n, BATCH):
                rows = order[start : start + BATCH]
                X, Y = self.X[:, rows], self.Y[:, rows]
                p, tape = self.forward(X, keep=True)
                losses = losses + self.losses(p, Y).sum(1) / n
                right = right + self.score(p, Y) * len(rows) / n
                self.update(self.backward(p, Y, tape)[0])
            p = self.forward(tests[0], training=False)[0]
            logs = {"loss": losses, "test_loss": self.losses(p, tests[1]).mean(1)}
            if score == "accuracy":
                logs |= {"accuracy": right, "test_accuracy": self.score(p, tests[1])}
            else:
                logs["test_r2"] = self.score(p, tests[1])
            self.take(patients, epoch, logs)
        return patients

    def take(self, patients, epoch, logs):
        layers, network = self.measure()
        for i, patient in enumerate(patients):
            patient.add(epoch, layers[i], network[i])
            for name, values in logs.items():
                patient.history.setdefault(name, []).append(float(values[i]))


def train(recipe, data=None, folds=1):
    """Return the measurements of `folds` networks that differ in their initial weights."""
    recipes = [replace(recipe, seed=recipe.seed + i) for i in range(folds)]
    return Lanes(recipes, [make_data() if data is None else data] * folds).run()


def first_epochs(measured, n):
    """Return what had been measured after n epochs."""
    places = [i for i, epoch in enumerate(measured.epochs) if epoch <= n]
    return Measurements(
        measured.facts,
        [measured.epochs[i] for i in places],
        [measured.layers[i] for i in places],
        [measured.network[i] for i in places],
        {name: series[:n] for name, series in measured.history.items()},
    )
