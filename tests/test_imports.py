"""The packages import downwards only, and the light ones stay light."""

import ast
import subprocess
import sys
from collections import deque
from itertools import pairwise
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
def test_the_maths_is_numpy_and_scipy_only(folder):
    allowed = {"numpy", "scipy", "fedllm_data", "fedllm_eval", *sys.stdlib_module_names}
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


def import_lines(tree: ast.Module) -> list[tuple[str, int]]:
    """What a file imports, anywhere in it: inside functions and for type checkers, too.

    `from a import b` is given as `a.b`: whether b is a file or a name within `a`, the caller knows.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def import_graph(sources: dict[str, str]) -> dict[str, dict[str, int]]:
    """For each module, the modules it imports with the line; `sources` holds the text of each by its dotted name."""
    graph: dict[str, dict[str, int]] = {}
    for module, text in sources.items():
        graph[module] = {}
        for name, line in import_lines(ast.parse(text)):
            target = name if name in sources else name.rpartition(".")[0]
            if target in sources and target != module:
                graph[module].setdefault(target, line)
    return graph


def circles(graph: dict[str, dict[str, int]]) -> list[list[str]]:
    """A shortest circle for each group of modules that reach one another; modules in several are told once."""
    found: list[list[str]] = []
    for start in sorted(graph):
        if any(start in circle for circle in found):
            continue
        came_from: dict[str, str] = {}
        waiting = deque([start])
        while waiting and start not in came_from:
            here = waiting.popleft()
            for target in sorted(graph[here]):
                if target not in came_from:
                    came_from[target] = here
                    waiting.append(target)
        if start in came_from:
            circle = [start]
            while (before := came_from[circle[-1]]) != start:
                circle.append(before)
            found.append([start, *reversed(circle[1:]), start])
    return found


def test_no_files_import_each_other_in_a_circle():
    sources = {}
    for path in (path for package in LEVEL for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    graph = import_graph(sources)
    told = [
        " -> ".join([f"{here} (line {graph[here][there]})" for here, there in pairwise(circle)] + circle[-1:])
        for circle in circles(graph)
    ]
    assert not told, "\n".join(["files that import each other:", *told])


def test_a_circle_is_found_wherever_its_imports_stand():
    sources = {
        "p": "",
        "p.a": "from p import b",
        "p.b": "def f():\n    import p.c",
        "p.c": "if TYPE_CHECKING:\n    from p.a import A",
        "p.d": "from p.a import A",
    }
    graph = import_graph(sources)
    assert graph["p.b"] == {"p.c": 2}
    assert circles(graph) == [["p.a", "p.b", "p.c", "p.a"]]
    assert circles(import_graph(sources | {"p.c": ""})) == []


def test_a_report_imports_neither_what_builds_repos_nor_the_slow_half_of_scipy():
    code = "import sys, fedllm_data.report, fedllm_data.reporting.write_page; print(' '.join(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"duckdb", "scipy.stats", "scipy.optimize", "fedllm_data.build", "torch"} & set(found)


@pytest.mark.parametrize("package", ["fedllm_data", "fedllm_train", "fedllm_eval"])
def test_a_command_that_is_started_as_a_module_runs(package):
    done = subprocess.run([sys.executable, "-m", f"{package}.cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout[:6]) == (0, "fedllm")
    assert subprocess.run([sys.executable, "-m", f"{package}.cli", "nothing"], capture_output=True).returncode == 2
