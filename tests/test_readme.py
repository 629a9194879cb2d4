"""Every Python snippet of the README runs, in the order of the page, as a reader would type them."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_every_snippet_runs_without_a_warning(tmp_path):
    snippets = re.findall(r"^```python\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(snippets) >= 6
    script = tmp_path / "readme.py"
    script.write_text("\n\n".join(snippets))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "mlruns" / "mlflow.db").exists(), "the study is tracked"


def test_every_command_of_the_page_exists():
    text = README.read_text()
    makefile = (README.parent / "Makefile").read_text()
    for target in set(re.findall(r"make (\w+)", text)) - {"takes"}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"make {target}"
    for option in re.findall(r"^tuner run .*?(--[a-z-]+)", text, flags=re.MULTILINE):
        helped = subprocess.run([sys.executable, "-m", "tuner", "run", "--help"], capture_output=True, text=True)
        assert option in helped.stdout
