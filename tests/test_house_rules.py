"""The rules of the house: how files are laid out, which way imports go, and that importing the library stays light."""

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

ORDER = ["crops_jax", "configs", "data", "launch"]
HEAVY = ["tensorflow", "tensorflow_datasets", "scann", "torch", "sentence_transformers", "ibis", "pyspark"]
SLOW = ["jax", "flax", "orbax.checkpoint", "transformers", "tensorflow", "scann", "torch", "scipy.optimize"]
SLOW += ["pandas", "tensorboardX"]
"""The packages that take a second and more to load."""
FLAT = {"crops_jax": {"errors.py", "hashing.py", "lazy_exports.py"}, "data": set(), "launch": set()}
"""The files directly in a package that are no programs. A new file belongs into a folder, or is a program."""
MOST_FILES, FEWEST_FILES = 12, 3


@functools.cache
def modules() -> dict[str, Path]:
    """The modules of the packages by their dotted names; a package is its __init__.py."""
    files = [file for package in ORDER for file in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@functools.cache
def imports(file: Path) -> frozenset[tuple[str, bool]]:
    """The names that a file imports, members included, and whether that happens inside a function."""
    found = set()

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.Import):
            found.update((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.update((f"{node.module}.{alias.name}", inside) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        for child in ast.iter_child_nodes(node):
            visit(child, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(ast.parse(file.read_text()), False)
    return frozenset(found)


def imported_modules(name: str) -> Iterator[str]:
    """The modules of the packages that a module imports, wherever in it the import stands."""
    for imported, _ in imports(modules()[name]):
        if imported in modules():
            yield imported
        elif (parent := imported.rpartition(".")[0]) in modules():
            yield parent


def is_program(file: Path) -> bool:
    """Whether a file runs something when it is called by `python -m`."""
    tests = [ast.unparse(node.test) for node in ast.parse(file.read_text()).body if isinstance(node, ast.If)]
    return "__name__ == '__main__'" in tests


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_one_way(package):
    right = set(ORDER[ORDER.index(package) + 1 :]) | {"tests", "benchmarks"}
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {
        str(file.relative_to(ROOT)): found
        for file in files
        if (found := {name.split(".")[0] for name, _ in imports(file)} & right)
    }
    assert not wrong


def test_no_import_circle():
    """Imports inside functions count: one that hides a circle is one."""
    state: dict[str, str] = {}
    path: list[str] = []

    def visit(name: str) -> None:
        state[name] = "open"
        path.append(name)
        for other in sorted(set(imported_modules(name))):
            assert state.get(other) != "open", " -> ".join([*path[path.index(other) :], other])
            if other not in state:
                visit(other)
        path.pop()
        state[name] = "done"

    assert len(modules()) > 200
    for name in modules():
        if name not in state:
            visit(name)


def test_nothing_imports_a_program():
    programs = {name for name, file in modules().items() if is_program(file)}
    assert len(programs) > 15
    wrong = {name: found for name in modules() if (found := programs & set(imported_modules(name)))}
    assert not wrong


@pytest.mark.parametrize("package", ["data", "launch"])
def test_only_programs_stand_directly_in_a_package_of_programs(package):
    files = {file.name for file in (ROOT / package).glob("*.py") if not is_program(file)}
    assert files - {"__init__.py"} == FLAT[package]


def test_programs_stand_nowhere_else():
    wrong = [name for name, file in modules().items() if is_program(file) and name.count(".") > 1]
    assert not wrong


def test_no_flat_file_beside_the_folders_of_the_library():
    assert {file.name for file in (ROOT / "crops_jax").glob("*.py")} - {"__init__.py"} == FLAT["crops_jax"]


def folders() -> list[Path]:
    return sorted({file.parent for file in modules().values()} - {ROOT / package for package in ORDER})


def test_every_folder_is_a_package_that_says_what_it_holds():
    assert len(folders()) > 30
    for folder in folders():
        assert (folder / "__init__.py").is_file(), f"{folder.relative_to(ROOT)} has no __init__.py"
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), f"{folder} has no docstring"


def test_folders_are_neither_drawers_nor_heaps():
    """data/sources has one file a public data set, as many as there are."""
    wrong = {}
    for folder in folders():
        entries = [entry for entry in folder.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").is_file()]
        count = len(entries) - 1
        if not FEWEST_FILES <= count <= MOST_FILES and folder != ROOT / "data" / "sources":
            wrong[str(folder.relative_to(ROOT))] = count
    assert not wrong


def test_tests_mirror_the_tree():
    """A folder of tests has the name of a folder of what it tests."""
    for package in ORDER:
        for folder in sorted(path for path in (ROOT / "tests" / package).rglob("*") if path.is_dir()):
            if list(folder.glob("test_*.py")) and folder.name != "mined_days":
                assert (ROOT / folder.relative_to(ROOT / "tests")).is_dir(), f"{folder} mirrors nothing"


NESTED = re.compile(r"(Config|ConfigArgument|Constants\b.*)$")
"""The types of fields that hold the flags of a section, whose class has the sentence."""


def undescribed_fields(file: Path) -> Iterator[str]:
    """The fields of arguments and configurations, each of which is a flag, that no docstring follows."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ClassDef) or not node.name.endswith(("Arguments", "Config")):
            continue
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(statement, ast.AnnAssign) or NESTED.search(ast.unparse(statement.annotation)):
                continue
            if ast.unparse(statement.annotation).startswith("ClassVar"):  # no field
                continue
            described = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if not described:
                yield f"{node.name}.{ast.unparse(statement.target)}"


def test_every_flag_has_a_sentence_in_the_help():
    fields = [name for file in modules().values() for name in undescribed_fields(file)]
    assert not fields


FRAGMENT = re.compile(r"(Of|Those|Where|What|So many|As|By|From|Which|Among|Both|Like|To)\b")
"""The beginnings of docstrings without a subject."""


def docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """The strings that stand alone in a file, with their lines: docstrings, and those of fields and constants."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def test_docstrings_begin_with_their_subject():
    found = [(file, line, text) for file in modules().values() for line, text in docstrings(file)]
    assert len(found) > 2000
    wrong = [f"{file.relative_to(ROOT)}:{line}: {text[:60]}" for file, line, text in found if FRAGMENT.match(text)]
    assert not wrong


def loaded_by(names: list[str], packages: list[str]) -> list[str]:
    """Which of the packages a fresh process has loaded after it imported the modules of these names."""
    script = (
        "import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {packages!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_library_loads_no_heavy_package():
    names = [name for name in modules() if name.split(".")[0] == "crops_jax"]
    assert loaded_by(names, HEAVY) == []


def test_the_library_itself_imports_without_jax():
    script = "import sys, crops_jax; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_programs_load_jax_only_to_run():
    """A call that shows --help, or refuses its arguments, does not wait for JAX.

    launch.mine_negatives is excepted: the defaults of its flags are those of the samplers, which are JAX code.
    """
    names = [name for name, file in modules().items() if is_program(file) and name.split(".")[0] in ("data", "launch")]
    names.remove("launch.mine_negatives")
    assert len(names) > 15
    assert loaded_by(names, SLOW) == []


def test_submodules_are_attributes_of_the_library():
    script = (
        "import crops_jax; print(crops_jax.labels.Level.POSITIVE.name, hasattr(crops_jax, 'nonsense')); "
        "listed = set(dir(crops_jax)); "
        "print({'config', 'labels', 'losses', 'pretrained'} <= listed and 'importlib' not in listed)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["POSITIVE False", "True"]
