"""Measurements as values that JSON can hold."""

import json

import numpy as np
import pytest

from tuner.health.measurements import LAYER_MEASURES, Measurements
from tuner.testing.health import make_measurements


@pytest.mark.parametrize("kind", ["healthy", "dead", "exploding"])
@pytest.mark.parametrize("epochs", [0, 4])
def test_what_was_written_is_read_again_to_five_digits(kind, epochs):
    before = make_measurements(kind, epochs=epochs)
    after = Measurements.from_dict(json.loads(json.dumps(before.to_dict(), allow_nan=False)))
    assert (after.facts, after.epochs) == (before.facts, before.epochs)
    for name in LAYER_MEASURES:
        np.testing.assert_allclose(after.layer(name), before.layer(name), rtol=1e-4)
    np.testing.assert_allclose(after.of_network("loss"), before.of_network("loss"), rtol=1e-4)
    np.testing.assert_allclose(after.history.get("loss", []), before.history.get("loss", []), rtol=1e-4)
    assert after.to_dict() == before.to_dict()


def test_numbers_of_any_size_keep_five_digits_and_what_is_no_number_its_name():
    before = make_measurements(layers=8, epochs=0)
    values = [0.0, -1.23456789, 123456.789, 9.999996, 1e-300, -1e300, 5e-324, np.inf]
    before.layers[0][:, LAYER_MEASURES.index("grad_norm")] = values
    [plain] = before.to_dict()["layers"]["grad_norm"]
    assert plain[:4] == [0.0, -1.2346, 123460.0, 10.0] and plain[4:] == [1e-300, -1e300, 5e-324, "inf"]
    before.layers[0][:, LAYER_MEASURES.index("grad_norm")] = np.nan
    assert set(before.to_dict()["layers"]["grad_norm"][0]) == {"nan"}
