"""The house keeps its order: imports run one way, and the front door opens at once."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tuner

ROOT = Path(tuner.__file__).parent
HEAVY = ["tensorflow", "keras", "sklearn", "optuna", "mlflow"]

# What each room may import of tuner; a package stands for its modules.
MAY_IMPORT = {
    "__init__": set(),
    "errors": set(),
    "answer": {"errors", "progress", "report"},
    "seeds": set(),
    "backend": set(),
    "hyperparameters": {"errors", "backend"},
    "layers": {"backend"},
    "health": {"backend", "errors", "layers", "network", "report", "seeds"},
    "network": {"errors", "backend", "hyperparameters", "seeds", "layers"},
    "engine": {"errors", "backend", "hyperparameters", "seeds", "network", "health"},
    "estimators": {"errors", "hyperparameters", "seeds", "network", "engine", "health"},
    "tracking": {"errors", "__init__"},
    "report": {"errors"},
    "progress": {"errors"},
    "preprocessing": set(),
    "samplers": {"errors", "hyperparameters", "spaces"},
    "spaces": {"errors", "hyperparameters", "estimators"},
    "evaluation": {
        "backend",
        "errors",
        "engine",
        "estimators",
        "health",
        "hyperparameters",
        "layers",
        "network",
        "spaces",
    },
    "validation": {"evaluation"},
    "results": {"errors", "evaluation", "health", "rounds", "spaces", "tracking"},
    "rounds": {"errors", "evaluation", "health", "samplers", "spaces"},
    "search": {
        "errors",
        "estimators",
        "evaluation",
        "health",
        "results",
        "rounds",
        "samplers",
        "spaces",
        "tracking",
        "report",
        "__init__",
    },
    "study": {
        "answer",
        "backend",
        "errors",
        "health",
        "progress",
        "samplers",
        "search",
        "spaces",
        "tracking",
        "report",
    },
    "diagnose": {"backend", "errors", "health", "results", "search"},
    "cli": {"answer", "diagnose", "errors", "report", "study", "tracking", "__init__"},
    "__main__": {"cli"},
    "testing": {"__init__", "answer", "errors", "engine", "estimators", "health", "network", "seeds", "tracking"},
}

# Where a library may be imported; everything else goes through these.
ONLY_IN = {
    "optuna": {"samplers", "spaces", "search", "rounds", "results"},
    "mlflow": {"tracking"},
    "matplotlib": {"report", "testing", "tracking"},
    "rich": {"progress"},
    "click": {"cli"},
    "keras": {"backend", "testing"},
    "tensorflow": {"backend", "evaluation"},
    "sklearn": {
        *("estimators", "evaluation", "preprocessing", "results", "rounds", "search", "spaces", "study", "testing"),
        "validation",
    },
}


def room_of(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path):
    """Yield (module, line) of every import statement, also inside functions, but not of those for types only."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "tuner":
                yield from ((f"tuner.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    room = room_of(path)
    assert room in MAY_IMPORT, f"{room} is new: say in MAY_IMPORT what it may import"
    for module, line in imported(path):
        top, _, rest = module.partition(".")
        if top == "tuner":
            other = rest.split(".")[0]
            other = other if other in MAY_IMPORT else tuner._HOMES.get(other, "tuner.__init__").split(".")[1]
            assert other == room or other in MAY_IMPORT[room], f"{path}:{line}: {room} must not import tuner.{other}"
        elif top in ONLY_IN:
            assert room in ONLY_IN[top], f"{path}:{line}: {room} must not import {top}"


@pytest.mark.parametrize(
    "statement",
    [
        "import tuner; tuner.__version__",
        "import sys; sys.argv = ['tuner', '--help']\nfrom tuner.cli import main\nmain()",
        "import sys; sys.argv = ['tuner', '--version']\nfrom tuner.cli import main\nmain()",
        "import sys; sys.argv = ['tuner', 'run', '--help']\nfrom tuner.cli import main\nmain()",
        "import sys; sys.argv = ['tuner', 'diagnose', '--help']\nfrom tuner.cli import main\nmain()",
    ],
    ids=["import", "--help", "--version", "run --help", "diagnose --help"],
)
def test_the_front_door_imports_nothing_heavy(statement):
    code = (
        f"import atexit, sys\n"
        f"atexit.register(lambda: print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules]))\n{statement}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert done.stderr == ""


def test_every_public_name_can_be_had():
    for name in tuner.__all__:
        assert getattr(tuner, name) is not None
    assert set(tuner.__all__) <= set(dir(tuner))
    with pytest.raises(AttributeError, match="has no attribute 'Studi'"):
        tuner.Studi  # noqa: B018
