"""The README's table is what the command writes from the results."""

import json
from dataclasses import replace

import table
from table import BEGIN, END, README, load, markdown, merged, speedup, with_table

ROW = speedup("a study", "another tool", "s", 0.5, 20, 50, equal="accuracy", measured="2026-11-01, here")


def test_readme_has_the_table_of_the_results():
    page = README.read_text()
    assert with_table(page, load()) == page, "run python tests/benchmarks/table.py"


def test_a_row_says_whether_its_target_was_met():
    assert "| a study | another tool | 0.5 s | 20 s | 40× | ≥ 50×, missed | accuracy |" in markdown([ROW])
    assert "| 100× | ≥ 50× |" in markdown([replace(ROW, ratio=100, met=True)])
    assert "| 66 % | ≥ 65 % |" in markdown([replace(ROW, ratio=0.66, target="≥ 65 %", met=True)])


def test_a_new_measurement_takes_the_place_of_the_old(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "results.json")
    other = replace(ROW, against="nobody")
    newer = replace(ROW, ours=0.25, ratio=80)
    table.save(merged([ROW, other], [newer]))
    assert load() == [newer, other]
    assert json.loads(table.RESULTS.read_text())[0]["ours"] == 0.25


def test_rows_of_another_day_stand_in_another_table():
    text = markdown([ROW, replace(ROW, against="nobody", measured="2026-10-01, there")])
    assert text.count("| work |") == 2
    assert text.index("there") < text.index("here")


def test_the_rest_of_the_page_stays():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert with_table(page, [ROW]) == f"before\n{BEGIN}\n{markdown([ROW])}\n{END}\nafter\n"
