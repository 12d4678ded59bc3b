"""A build killed with SIGKILL at any moment leaves no half-made output, and can be started again."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedllm_data.check import check_repo
from fedllm_data.source import SourceRow
from tests.data.killed_build import make, rows

SCRIPT = Path(__file__).with_name("killed_build.py")


class Place:
    """A folder in which two versions of one corpus are built and killed in turn; `repo` is where they go."""

    def __init__(self, folder, digest, built):
        self.folder, self.digest, self.built = folder / "killed", digest, built
        self.repo = self.folder / "repo"
        self.whole = {None: None} | {version: digest(whole) for version, whole in built.items()}
        self.folder.mkdir()
        self.version = None

    def put(self, version):
        """Put a version there that was built before."""
        shutil.rmtree(self.repo, ignore_errors=True)
        shutil.copytree(self.built[version], self.repo)
        self.version = version

    def restart(self, version):
        """Build to the end in this process: what comes out is what an uninterrupted build makes, and nothing else."""
        make(self.repo, version)
        assert self.digest(self.repo) == self.whole[version]
        assert [path.name for path in self.folder.iterdir()] == ["repo"]
        self.version = version

    def check_after_kill(self, version):
        """The output is the earlier version or the new one, whole; or absent, and the earlier one at hand, whole."""
        litter = sorted(path.name for path in self.folder.iterdir() if path != self.repo)
        # What earlier kills left is gone as soon as a build makes something itself.
        assert litter in ([], [".repo.making-0"])
        if self.repo.exists():
            assert check_repo(self.repo) == []
            assert self.digest(self.repo) in (self.whole[self.version], self.whole[version])
        elif self.version is not None:
            assert self.digest(self.folder / ".repo.making-0" / "old") == self.whole[self.version]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Both versions, each from a build that nobody interrupts."""
    folder = tmp_path_factory.mktemp("built")
    for version in (1, 2):
        make(folder / f"whole-{version}", version)
        assert check_repo(folder / f"whole-{version}") == []
    return {version: folder / f"whole-{version}" for version in (1, 2)}


@pytest.fixture
def place(tmp_path, digest, built):
    return Place(tmp_path, digest, built)


def start(repo, version_or_file, moment=0):
    command = [sys.executable, SCRIPT, repo, str(version_or_file), str(moment)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout.readline() == "imported\n"
    return process


def other(version):
    return 2 if version == 1 else 1


def moments_of(process):
    moments = process.communicate()[0].split("\n")[:-1]
    assert process.returncode == 0
    return moments


def killed_at(place, version, moment):
    process = start(place.repo, version, moment)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    place.check_after_kill(version)


def test_a_build_killed_at_three_moments_leaves_no_half_made_output(place):
    place.put(1)
    num_moments = len(moments_of(start(place.repo, 2)))
    place.put(1)
    rng = random.Random(0)
    for third in range(3):
        version = other(place.version)
        killed_at(place, version, 1 + int((third + rng.random()) / 3 * num_moments))
        place.restart(version)


def test_a_first_build_killed_leaves_no_output_at_all(place):
    moments = moments_of(start(place.repo, 1))
    shutil.rmtree(place.repo)
    killed_at(place, 1, 1 + moments.index("wrote train"))
    assert not place.repo.exists()
    place.restart(1)


def test_a_kill_between_the_two_renames_loses_nothing(place):
    place.put(1)
    moments = moments_of(start(place.repo, 2))
    place.put(1)
    first = 1 + moments.index("os.rename")
    assert moments[first] == "os.rename"
    killed_at(place, 2, first + 1)
    assert not place.repo.exists()
    with pytest.raises(RuntimeError):
        make(place.repo, 2, lambda what: (_ for _ in ()).throw(RuntimeError("the next build fails")))
    assert place.digest(place.repo) == place.whole[1]


@pytest.mark.slow
def test_a_command_killed_while_it_adds_the_report_leaves_no_half_made_output(tmp_path, digest):
    file, whole, repo = tmp_path / "rows.jsonl", tmp_path / "whole" / "repo", tmp_path / "killed" / "repo"
    items = [item for item in rows(1) if isinstance(item, SourceRow)]
    file.write_text("\n".join(json.dumps(item.row) for item in items))
    moments = moments_of(start(whole, file))
    complete = digest(whole)
    assert "report.html" in complete
    rng = random.Random(3)
    # Report and card come last, and take longest: half of the kills fall there.
    for moment in [rng.randint(1, len(moments)), *(len(moments) - rng.randrange(12) for _ in range(3))]:
        process = start(repo, file, moment)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not repo.exists() or digest(repo) == complete
    moments_of(start(repo, file))
    assert digest(repo) == complete


@pytest.mark.slow
def test_a_build_killed_at_each_of_its_moments_leaves_no_half_made_output(place):
    place.restart(1)
    moments = moments_of(start(place.repo, 2))
    assert {"read", "split", "wrote train", "os.rename", "os.remove"} <= set(moments)
    place.restart(1)
    for moment in range(1, len(moments) + 1):
        version = other(place.version)
        killed_at(place, version, moment)
        place.restart(version)


@pytest.mark.slow
def test_builds_killed_one_after_the_other_leave_the_litter_of_the_last_alone(place):
    place.restart(1)
    num_moments = len(moments_of(start(place.repo, 2)))
    place.restart(1)
    rng = random.Random(1)
    for _ in range(12):
        killed_at(place, 2, rng.randint(1, num_moments))
        if place.repo.exists() and place.digest(place.repo) == place.whole[2]:
            place.restart(1)
    place.restart(2)


@pytest.mark.slow
@pytest.mark.parametrize("is_replacing", [False, True])
def test_twelve_kills_by_the_clock_leave_no_half_made_output(place, is_replacing):
    process = start(place.repo, 1)
    started = time.perf_counter()
    moments_of(process)
    seconds = time.perf_counter() - started
    place.version = 1
    rng, num_killed = random.Random(2), 0
    for _ in range(100):
        version = other(place.version)
        if not is_replacing:
            shutil.rmtree(place.repo)
            place.version = None
        process = start(place.repo, version)
        try:
            process.communicate(timeout=(num_killed + rng.random()) / 12 * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            num_killed += process.returncode == -signal.SIGKILL
        place.check_after_kill(version)
        place.restart(version)
        if num_killed == 12:
            return
    pytest.fail(f"only {num_killed} of 100 builds were killed before they ended")
