"""The rules of the house: imports go one way, and importing the library stays light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

ORDER = ["crops_jax", "configs", "data", "launch"]
HEAVY = ["tensorflow", "tensorflow_datasets", "scann", "torch", "sentence_transformers", "ibis", "pyspark"]


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_one_way(package):
    right = set(ORDER[ORDER.index(package) + 1 :]) | {"tests", "benchmarks"}
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(file.relative_to(ROOT)): found for file in files if (found := imported(file) & right)}
    assert not wrong


def test_importing_the_library_loads_no_heavy_package():
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in sorted((ROOT / "crops_jax").rglob("*.py"))
    ]
    script = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_library_itself_imports_without_jax():
    script = "import sys, crops_jax; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_submodules_are_attributes_of_the_library():
    script = "import crops_jax; print(crops_jax.labels.Level.POSITIVE.name, hasattr(crops_jax, 'nonsense'))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "POSITIVE False"
