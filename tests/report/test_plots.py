import numpy as np
import pandas as pd
import pytest
from matplotlib.container import BarContainer

from tuner.report.plots import bars, heat_map, lines, optimization_history, save_figure


def test_the_history_shows_every_trial_and_the_best_so_far():
    scores = [0.5, np.nan, 0.9, 0.7, 0.95, 0.8]
    states = ["complete", "failed", "pruned", "complete", "complete", "complete"]
    figure = optimization_history(range(6), scores, states, "accuracy")
    [axes] = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("trial", "accuracy")
    points = {c.get_label(): c.get_offsets()[:, 0].tolist() for c in axes.collections}
    assert points == {"complete": [0, 3, 4, 5], "pruned": [2], "failed": [1]}
    [best] = axes.lines
    # the pruned 0.9 never was the best
    np.testing.assert_array_equal(best.get_ydata(), [0.5, 0.5, 0.5, 0.7, 0.95, 0.95])


def test_a_study_without_a_score_has_a_figure_too(tmp_path):
    figure = optimization_history([0, 1], [np.nan, np.nan], ["failed", "failed"])
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 0
    optimization_history([], [], []).savefig(tmp_path / "empty.png")


@pytest.fixture
def repeated():
    """Two repetitions of every combination; where `a` is "p", y is 1 and 3 times x."""
    rows = [
        {"x": x, "a": a, "b": b, "y": factor * x * (1 if a == "p" else 10)}
        for b in ("None", "before")
        for a in ("p", "q")
        for x in (1, 2, 4)
        for factor in (1, 3)
    ]
    return pd.DataFrame(rows)


def test_lines_are_means_with_a_band_of_one_standard_deviation(repeated, tmp_path):
    figure = lines(repeated, "x", "y", by="a", panels="b", log="xy", labels={"y": "size", "b": "normalisation"})
    assert [axes.get_title() for axes in figure.axes] == ["normalisation: None", "normalisation: before"]
    for axes in figure.axes:
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert {line.get_label(): line.get_ydata().tolist() for line in axes.lines} == {
            "p": [2, 4, 8],
            "q": [20, 40, 80],
        }
        low, high = np.log10(axes.collections[0].get_paths()[0].vertices[:, 1][[1, -2]])
        assert low < np.log10(2) < high
    assert figure.get_supylabel() == "size" and figure.get_supxlabel() == "x"
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["p", "q"]
    save_figure(figure, tmp_path / "one.svg")
    save_figure(lines(repeated, "x", "y", by="a", panels="b", log="xy"), tmp_path / "same.svg")
    save_figure(lines(repeated, "x", "y", by="a", panels="b", log="xy"), tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == (tmp_path / "same.svg").read_text()
    assert ">size<" in (tmp_path / "one.svg").read_text()


def test_bars_stand_side_by_side_with_their_spread(repeated):
    [axes] = bars(repeated[repeated["b"] == "None"], "x", "y", by="a").axes
    first, second = (part.patches for part in axes.containers if isinstance(part, BarContainer))
    assert [bar.get_height() for bar in first] == [2, 4, 8] and [bar.get_height() for bar in second] == [20, 40, 80]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "4"]
    assert first[0].get_center()[0] < 0 < second[0].get_center()[0]


def test_a_heat_map_writes_the_means_into_cells(repeated):
    figure = heat_map(repeated[repeated["b"] == "None"], "x", "a", "y")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["2", "4", "8", "20", "40", "80"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["p", "q"]
    holes = heat_map(repeated[(repeated["x"] != 2) | (repeated["a"] == "p")], "x", "a", "y")
    assert "nan" in [text.get_text() for text in holes.axes[0].texts]
