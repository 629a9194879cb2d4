"""Every study, in its quick version: it answers its question, and what must hold does."""

import shutil
from pathlib import Path

import pytest

from tuner.answer import index, question_of, write_index
from tuner.backend import keras
from tuner.errors import DataError
from tuner.study import load_study_file

STUDIES = Path(__file__).parent.parent.parent / "studies"
FILES = [path for path in sorted(STUDIES.glob("*.py")) if path.stem != "data"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own_and_offline(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("tests download nothing")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", offline)
    monkeypatch.setattr("sklearn.datasets.fetch_openml", offline)
    monkeypatch.setattr("sklearn.datasets.fetch_california_housing", offline)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")  # of learning rates that are too high
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_answers_its_question(path, tmp_path):
    file = load_study_file(path)
    assert file.question, "the docstring begins with the question"
    assert all(study.name.startswith(path.stem) for study in file.studies)
    if path.stem == "digits":  # the first example: it goes on where it was, as a study without an answer does
        return
    try:
        answer = file.run(quick=True, tracking=None, verbose=False)
    except DataError as error:
        pytest.skip(str(error))
    failed = [claim for claim, holds in answer.claims.items() if not holds]
    assert not failed, f"{failed}\n{answer}"
    assert len(answer.text.split()) >= 10 and len(answer.table)
    assert all(written.stat().st_size > 0 for written in answer.save(tmp_path / "results", path.stem))


def test_the_index_is_what_the_command_writes(tmp_path):
    shutil.copytree(STUDIES, tmp_path / "studies")
    written = write_index(tmp_path / "studies")
    assert written.read_text() == (STUDIES / "README.md").read_text(), "tuner report studies/ writes it again"
    assert all(question_of(path) in index(STUDIES) for path in FILES)
