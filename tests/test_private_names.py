"""No file reaches into another: private names stay in the file that makes them, and tests use public ones only.

A name is private if it begins with one underscore; one that begins with two (`__init__`, `__kwdefaults__`) belongs to
the language. `self._x` and `cls._x` are an object's own, and a class may touch `other._x` of its own kind. Where a
test must reach in, a contract is missing.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ["fedllm_data", "fedllm_eval", "fedllm_train"]

# Private by their spelling alone: documented for everybody.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_make", "_field_defaults"}

# What other libraries offer no public way to, and where it is used.
OF_OTHER_LIBRARIES = {
    "_exit": (
        "os: the end of a process without its clean-up",
        {
            "fedllm_train/engines/process_engine.py",
            "tests/data/test_in_place.py",
            "tests/train/engines/test_process_engine.py",
        },
    ),
    "_commit_hash": ("transformers: a config's revision", {"fedllm_data/model_encoders.py", "fedllm_train/models"}),
    "_name_or_path": ("transformers: where a config came from", {"fedllm_train/models"}),
    "_hf_peft_config_loaded": ("transformers: whether a model carries an adapter", {"fedllm_train/models"}),
    "_forward_hooks": ("torch: the hooks of a module", {"fedllm_train/adapters/shifted_model.py", "tests/train"}),
    "_prepare_inputs": (
        "transformers: what a Trainer does to a batch",
        {"fedllm_train/clients", "tests/train/clients"},
    ),
    "_attn_implementation": (
        "transformers: the kernel that a model runs",
        {"fedllm_eval/policy/known_logps.py", "fedllm_eval/policy/shared_prompts.py", "tests/train/fates"},
    ),
    "_is_package_available": ("accelerate: what it looks up again and again", {"tests/train/conftest.py"}),
    "_optimizers": ("accelerate: whose steps it counts", {"tests/train/clients/test_loss_scaling.py"}),
    "_compute_loss": ("trl: the loss that ours is compared with", {"tests/train/clients/test_objectives.py"}),
    "_fingerprint": ("datasets: what tells two datasets apart", {"tests/data/test_streamed.py"}),
    "_group_actions": (
        "argparse: the flags of a group that exclude one another",
        {"fedllm_data/command_line/settings_file.py"},
    ),
    "_http": ("huggingface_hub: whose retries wait", {"tests/hub/conftest.py"}),
}

BY_STRING = {"getattr", "setattr", "hasattr", "delattr", "patch", "attrgetter", "methodcaller"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in DOCUMENTED


def is_own(node: ast.expr) -> bool:
    """Whether an expression is the object itself: `self`, `cls` or `super()`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def own_attributes(tree: ast.Module) -> set[str]:
    """The methods and fields of the classes that a file itself defines."""
    names = set()
    for owner in ast.walk(tree):
        if not isinstance(owner, ast.ClassDef):
            continue
        for node in owner.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
        for node in ast.walk(owner):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
                names.add(node.attr)
    return names


def private_names(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, private name and words for each place where a file reaches into another."""
    own = own_attributes(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for path in (f"{module}{alias.name}" for alias in node.names):
                for part in filter(is_private, path.split(".")):
                    yield node.lineno, part, f"imports {path}"
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if not is_own(node.value) and node.attr not in own:
                yield node.lineno, node.attr, f"touches {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in BY_STRING:
            for argument in node.args[:2]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    for part in argument.value.split("."):
                        if is_private(part) and part not in own:
                            yield node.lineno, part, f"names {argument.value!r} in {ast.unparse(node.func)}"


def is_allowed(file: str, name: str) -> bool:
    _, places = OF_OTHER_LIBRARIES.get(name, ("", set()))
    return any(file == place or file.startswith(f"{place}/") for place in places)


@cache
def found_in(folder: str) -> list[tuple[str, int, str, str]]:
    """File, line, private name and words for each place where a file of a folder reaches into another."""
    return [
        (path.relative_to(ROOT).as_posix(), *found)
        for path in sorted((ROOT / folder).rglob("*.py"))
        for found in sorted(private_names(ast.parse(path.read_text())))
    ]


def reaches(folder: str) -> list[str]:
    """The same without what is allowed, as `file:line: what it does`."""
    return [f"{file}:{line}: {what}" for file, line, name, what in found_in(folder) if not is_allowed(file, name)]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_of_a_package_reaches_into_another(package):
    found = reaches(package)
    assert not found, "\n".join(["private names of other files:", *found])


def test_no_test_reaches_into_a_package():
    found = reaches("tests")
    assert not found, "\n".join(["private names in tests; call what is public, or make it so:", *found])


def test_every_exception_is_still_needed():
    used = {(name, file) for folder in [*PACKAGES, "tests"] for file, _, name, _ in found_in(folder)}
    for name, (_, places) in OF_OTHER_LIBRARIES.items():
        for place in places:
            assert any(name == n and (f == place or f.startswith(f"{place}/")) for n, f in used), (name, place)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from a.b import _c", ["imports a.b._c"]),
        ("from a._b import c", ["imports a._b.c"]),
        ("import a\na._b(1)", ["touches a._b"]),
        ("def f(x): return x.y._z", ["touches x.y._z"]),
        ("monkeypatch.setattr(a, '_b', 1)", ["names '_b' in monkeypatch.setattr"]),
        ("monkeypatch.setattr('a._b.c', 1)", ["names 'a._b.c' in monkeypatch.setattr"]),
        # A module's function does not make the attribute of that name one's own; a class does.
        ("def _b(): ...\na._b()", ["touches a._b"]),
        ("class A:\n    _b: int\n    def f(self, other): return self._c + other._b", []),
        ("a._replace(b=1), a.__dict__, _c(1)", []),
    ],
)
def test_what_counts_as_reaching_in(code, found):
    assert [what for _, _, what in private_names(ast.parse(code))] == found
