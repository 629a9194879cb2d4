import sys
from pathlib import Path

import pytest

from tuner.study import load_study_file

STUDIES = Path(__file__).parent.parent.parent / "studies"


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.py")), ids=lambda path: path.stem)
def test_every_study_file_declares_a_study_that_asks_a_question(path):
    study = load_study_file(path)
    question = sys.modules[f"study_{path.stem}"].__doc__.splitlines()[0]
    assert study.name == path.stem and question.endswith("?")


def test_digits_reaches_its_score_within_a_few_trials(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search = load_study_file(STUDIES / "digits.py").run(n_trials=4, tracking=None, verbose=False)
    assert search.best_score_ >= 0.97
    assert search.cv_results_["state"].tolist() == ["complete"] * 4
