from pathlib import Path

from tuner.study import load_study_file

STUDIES = Path(__file__).parent.parent.parent / "studies"


def test_digits_reaches_its_score_within_a_few_trials(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [study] = load_study_file(STUDIES / "digits.py").studies
    search = study.run(n_trials=4, tracking=None, verbose=False)
    assert search.best_score_ >= 0.97
    assert search.cv_results_["state"].tolist() == ["complete"] * 4
