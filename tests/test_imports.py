"""The packages import downwards only, and the light ones stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVEL = {"fedllm_data": 0, "fedllm_eval": 1, "fedllm_train": 2}
HEAVY = {"torch", "trl", "peft", "transformers", "accelerate"}


def imports_of(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def modules(package: str) -> list[Path]:
    # A metric's folder is loaded by `evaluate` on its own; it may import the library, nothing else checks it.
    return [path for path in (ROOT / package).rglob("*.py") if "metrics" not in path.parts]


@pytest.mark.parametrize("package", LEVEL)
def test_imports_never_go_up(package):
    for path in modules(package):
        for name in imports_of(path):
            top = name.split(".")[0]
            assert LEVEL.get(top, 0) <= LEVEL[package], f"{path} imports {name}"


@pytest.mark.parametrize("folder", ["fedllm_train/strategies", "fedllm_data/sources"])
def test_neighbours_never_import_each_other(folder):
    own = folder.replace("/", ".")
    for path in (ROOT / folder).glob("*.py"):
        if path.name == "__init__.py":
            continue
        assert not [name for name in imports_of(path) if name.startswith(own)], path


@pytest.mark.parametrize("folder", ["fedllm_data/heterogeneity", "fedllm_eval/scoring"])
def test_the_maths_is_numpy_scipy_and_scikit_learn_only(folder):
    allowed = {"numpy", "scipy", "sklearn", "fedllm_data", "fedllm_eval", *sys.stdlib_module_names}
    for path in (ROOT / folder).rglob("*.py"):
        tops = {name.split(".")[0] for name in imports_of(path)}
        assert tops <= allowed, f"{path} imports {tops - allowed}"


def test_data_and_eval_need_no_torch_to_be_imported():
    for package in ("fedllm_data", "fedllm_eval"):
        for path in modules(package):
            tops = {name.split(".")[0] for name in imports_of(path, top_level_only=True)}
            light = path.name != "models.py" or package != "fedllm_eval"
            assert not (light and tops & HEAVY), f"{path} imports {tops & HEAVY} at its top"


@pytest.mark.parametrize("module", ["fedllm_data", "fedllm_data.cli", "fedllm_train.cli", "fedllm_eval.cli"])
def test_torch_stays_out_of(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
