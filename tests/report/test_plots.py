import numpy as np

from tuner.report.plots import optimization_history


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
