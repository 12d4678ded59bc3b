"""What the project asks for can be had: every extra installs under `constraints.txt`, on the Python it names."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)


def key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict:
    """The distributions at hand among those that are pinned."""
    found = {}
    for name in PINS:
        try:
            found[key(name)] = distribution(name)
        except PackageNotFoundError:
            continue
    return found


def test_requires_python_is_what_the_pins_need():
    lowest = [
        Version(each.version)
        for found in installed().values()
        for each in SpecifierSet(found.metadata.get("Requires-Python") or "")
        if each.operator in (">=", ">")
    ]
    assert PROJECT["requires-python"] == f">={max(lowest)}"


def test_the_pins_agree_with_one_another():
    pins = {key(name): version for name, version in PINS.items()}
    for name, found in installed().items():
        for text in found.requires or ():
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            version = pins.get(key(requirement.name))
            assert version is None or requirement.specifier.contains(version, prereleases=True), (name, text, version)


def test_what_the_project_asks_for_allows_the_pins():
    pins = {key(name): version for name, version in PINS.items()}
    asked = [
        *PROJECT["dependencies"],
        *(item for group in PROJECT["optional-dependencies"].values() for item in group),
    ]
    for text in asked:
        requirement = Requirement(text)
        version = pins.get(key(requirement.name))
        assert version is None or requirement.specifier.contains(version, prereleases=True), (text, version)


@pytest.mark.slow
def test_every_extra_installs_under_the_constraints():
    """All at once: what can be installed together can be installed one by one."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if subprocess.run([*pip, "index", "versions", "six"], capture_output=True).returncode:
        pytest.skip("no package index can be reached")
    extras = ",".join(PROJECT["optional-dependencies"])
    command = [*pip, "install", "--quiet", "--dry-run", "--constraint", "constraints.txt", f".[{extras}]"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
