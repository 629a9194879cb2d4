"""Pictures of a trial's gradients."""

import base64
import io
import re
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from tuner.report.svg import depth_profile, heat_map

NAMES = ("hidden_1", "hidden_2", "output")


@dataclass
class Report:
    """The parts of a health report that pictures read."""

    values: dict
    names: tuple = NAMES
    verdict: str = "vanishing_gradient"
    score: float = 0.25

    def table(self, measure):
        values = self.values.get(measure)
        epochs = 1 + max(np.shape(v)[1] - 1 for v in self.values.values())
        values = np.full((len(self.names), epochs), np.nan) if values is None else np.asarray(values, dtype=float)
        return list(range(epochs)), self.names, values


def texts(picture):
    return [element.text for element in ElementTree.fromstring(picture.svg).iter("{http://www.w3.org/2000/svg}text")]


def pixels(picture, which):
    """The colours of an embedded image: (rows, columns, 3)."""
    data = re.findall(r"data:image/png;base64,([^\"]+)", picture.svg)[which]
    return np.round(255 * imread(io.BytesIO(base64.b64decode(data)))[..., :3]).astype(int)


def test_the_heat_map_has_a_cell_for_every_layer_and_epoch():
    picture = heat_map(Report({"grad_rms": [[1e-6, 1e-5], [1e-4, 1e-3], [0.0, np.nan]]}))
    cells = pixels(picture, 0)
    assert cells.shape == (3, 2, 3)
    luminance = cells[:2].sum(axis=-1).ravel()
    assert (np.diff(luminance) > 0).all(), "the colours grow lighter with the gradient"
    assert (cells[2, 0] == 0).all(), "exactly 0 is black"
    assert (cells[2, 1] == 224).all(), "what is not known is grey"


def test_the_heat_map_says_what_it_shows():
    shown = texts(heat_map(Report({"grad_rms": np.logspace(-6, 0, 12).reshape(3, 4)})))
    assert "Gradients of every layer: vanishing gradient (health score 0.25)" in shown
    assert {*NAMES, "gradient (root mean square)", "epoch (0: before training)", "0", "3", "1e-6", "1"} <= set(shown)


def test_beside_the_gradients_stands_saturation_where_there_is_any_or_else_the_updates():
    gradients = np.ones((3, 4))
    both = {"grad_rms": gradients, "update_ratio": gradients / 1000, "saturation": gradients * 0.9}
    assert "saturated share of activations" in texts(heat_map(Report(both)))
    few = {**both, "saturation": gradients * 0.01}
    assert "last update / weights" in texts(heat_map(Report(few)))
    titles = texts(heat_map(Report({"grad_rms": gradients})))
    assert "last update / weights" not in titles and "saturated share of activations" not in titles


def test_noise_is_not_made_to_look_like_a_difference():
    cells = pixels(heat_map(Report({"grad_rms": np.array([[1.0, 1.01], [0.99, 1.0], [1.0, 1.0]])})), 0)
    assert np.ptp(cells.astype(int), axis=(0, 1)).max() < 12


def test_the_profile_shows_every_layer_before_and_after():
    report = Report(
        {"error_rms": [[1e-6, 1e-4], [1e-3, 1e-3], [1.0, 0.1]], "activation_variance": [[1, 0], [1, 0], [1, 0]]}
    )
    picture = depth_profile(report)
    shown = texts(picture)
    assert {"before training", "after epoch 1", *NAMES, "activation variance", "1e-6"} <= set(shown)
    lines = re.findall(r'<polyline points="([^"]+)"', picture.svg)
    assert len(lines) == 3, "two of errors; the variance that fell to 0 has crosses instead"
    heights = [float(point.split(",")[1]) for point in lines[0].split()]
    assert heights[0] > heights[1] > heights[2], "larger values stand higher"
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2), "the axis is logarithmic"
    assert picture.svg.count("l7 7m0 -7l-7 7") == 4, "three layers, and the legend"


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((3, 2)),
        np.full((3, 2), np.nan),
        np.full((3, 2), np.inf),
        np.array([[1e-300, 1e300]] * 3),
        np.array([[5e-324, 1.0]] * 3),
        np.zeros((3, 0)),
    ],
    ids=["zero", "nan", "inf", "wide", "denormal", "nothing"],
)
@pytest.mark.parametrize("draw", [heat_map, depth_profile])
def test_any_values_can_be_drawn(draw, values):
    measures = ("grad_rms", "update_ratio", "saturation", "error_rms", "activation_variance")
    svg = draw(Report(dict.fromkeys(measures, values))).svg
    ElementTree.fromstring(svg)
    assert not re.search(r'="[^"]*(nan|inf)[^"]*"', svg)


@pytest.mark.parametrize("draw", [heat_map, depth_profile])
def test_names_of_any_kind_are_legible(draw):
    names = ('<a> & "b"', "x" * 80, "\x00é")
    measures = ("grad_rms", "error_rms", "activation_variance")
    shown = texts(draw(Report(dict.fromkeys(measures, np.ones((3, 2))), names)))
    assert names[0] in shown
    assert max(len(text) for text in shown if text.startswith("xx")) < 30


@pytest.mark.parametrize("draw", [heat_map, depth_profile])
def test_a_deep_network_and_a_long_training_stay_small_and_legible(draw):
    rng = np.random.default_rng(0)
    names = tuple(f"hidden_{i}" for i in range(100))
    values = 10 ** rng.uniform(-6, 0, (100, 500))
    measures = ("grad_rms", "update_ratio", "error_rms", "activation_variance")
    picture = draw(Report(dict.fromkeys(measures, values), names))
    assert len(picture.svg) < 200_000
    labels = [text for text in texts(picture) if text.startswith("hidden_")]
    assert labels[0] == "hidden_0" and 10 <= len(set(labels)) <= 50
    _, _, width, height = map(float, re.search(r'viewBox="([^"]+)"', picture.svg).group(1).split())
    assert width < 1200 and height < 700


def test_a_picture_can_be_saved_and_shown_in_a_notebook(tmp_path):
    picture = heat_map(Report({"grad_rms": np.ones((3, 2))}))
    picture.save(tmp_path / "map.svg")
    assert (tmp_path / "map.svg").read_text(encoding="utf-8") == picture._repr_svg_() == picture.svg
