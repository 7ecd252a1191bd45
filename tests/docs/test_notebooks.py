"""The notebooks of docs/ are committed without outputs, and their code runs from top to bottom in one process."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap

import pytest

from tests.docs.markdown import ROOT, read

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
RUN = textwrap.dedent("""
    import json, sys
    names = {"__name__": "__main__"}
    for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    print(json.dumps({name: value for name, value in names.items() if name in ("measured", "recalls", "losses")}))
""")


def notebooks():
    return pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[notebook.stem for notebook in NOTEBOOKS])


def code(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def run(notebook, tmp_path):
    """Executes a notebook as Jupyter does, in its own folder, and returns some of its names."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    environment.pop("XLA_FLAGS", None)  # of the tests, which have eight devices
    done = subprocess.run(
        [sys.executable, "-c", RUN, notebook], cwd=notebook.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@notebooks()
def test_notebooks_are_committed_without_outputs(notebook):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 3
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"] is not None] == []


def test_both_are_linked_from_the_page_of_the_library():
    assert {f"notebooks/{notebook.name}" for notebook in NOTEBOOKS} <= set(read(ROOT / "docs" / "python.md").links)
    assert len(NOTEBOOKS) == 2


def test_your_own_loop_needs_only_public_names():
    """A public name stands in the table of docs/python.md, or is a member of a module that stands there."""
    page = (ROOT / "docs" / "python.md").read_text()
    public = set(re.findall(r"`(crops_jax\.[\w.]+)`", page[page.index("## The public names") :]))
    imported = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(code(ROOT / "docs" / "notebooks" / "the_loss_in_your_own_loop.ipynb")))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("crops_jax")
        for alias in node.names
    }
    assert len(imported) > 5
    assert {name for name in imported if name not in public and name.rpartition(".")[0] not in public} == set()


@pytest.mark.slow
def test_a_retriever_is_fine_tuned_on_a_log(tmp_path):
    measured = run(ROOT / "docs" / "notebooks" / "fine_tune_on_your_log.ipynb", tmp_path)["measured"]
    assert {"encoder", "bm25"} <= set(measured["metrics"])
    assert 0 < measured["metrics"]["encoder"]["CT Recall@100"] <= 1


@pytest.mark.slow
def test_the_loss_trains_a_model_in_a_loop_of_its_own(tmp_path):
    found = run(ROOT / "docs" / "notebooks" / "the_loss_in_your_own_loop.ipynb", tmp_path)
    assert found["losses"][-1] < found["losses"][0] / 2
    assert found["recalls"][-1] > 5 * found["recalls"][0]
