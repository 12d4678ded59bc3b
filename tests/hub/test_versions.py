"""A new version says what moved; a killed push is taken up where it stopped; of two at once one is refused."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedllm_data.build import build
from fedllm_data.cards.card import write_card
from fedllm_data.errors import HubError
from fedllm_data.hub.changes import Changes, Moved, find_moves
from fedllm_data.hub.publish import publish
from fedllm_data.hub.push import PushResult, push_folder
from fedllm_data.report import write_report
from fedllm_data.source import Rejected, Source, SourceRow
from tests.hub.server import LoopbackHub


def build_version(folder: Path, source: Source, num_clients: int, num_rejected: int) -> Path:
    """A build of so many clients of eight rows each, with report and card."""

    def read(*_: object) -> Iterator[SourceRow | Rejected]:
        for index in range(num_clients * 8):
            turns = [{"role": "user", "content": f"{index}?"}, {"role": "assistant", "content": f"{index}!"}]
            row = {"client_id": f"c{index // 8:02d}", "row_id": f"r{index:03d}", "messages": turns}
            yield SourceRow(row, "memory", index)
        for index in range(num_rejected):
            yield Rejected("memory", 1000 + index, "is none")

    build(replace(source, read=read), folder)
    write_report(folder, folder, seed=0, name="fed-tiny-sft")
    write_card(folder)
    return folder


@pytest.fixture(scope="module")
def made() -> dict[tuple[int, int], Path]:
    """Versions that were built once; tests take a copy."""
    return {}


@pytest.fixture
def make_version(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    make_source: Callable[..., Source],
    made: dict[tuple[int, int], Path],
) -> Callable[..., Path]:
    """A folder with a version, built `anew` or a copy of one that an earlier test built."""

    def make(name: str, num_clients: int = 10, num_rejected: int = 0, anew: bool = False) -> Path:
        key = (num_clients, num_rejected)
        if anew:
            return build_version(tmp_path / name, make_source("sft"), num_clients, num_rejected)
        if key not in made:
            place = tmp_path_factory.mktemp("version")
            made[key] = build_version(place / "repo", make_source("sft"), num_clients, num_rejected)
        return Path(shutil.copytree(made[key], tmp_path / name))

    return make


def test_an_unchanged_rebuild_publishes_nothing(
    hub: LoopbackHub, make_version: Callable[..., Path], repo_id: str
) -> None:
    first = publish(make_version("once"), repo_id, tag="v1")
    again = publish(make_version("again", anew=True), repo_id, tag="v1")
    assert (again.revision, again.is_unchanged, bool(again.changes)) == (first.revision, True, False)
    assert again.lines() == ["nothing moved: the repo held exactly these files"]
    assert len(hub.repo(repo_id).commits) == 2


def test_a_changed_rebuild_says_what_moved_here_and_in_the_commit(
    hub: LoopbackHub, make_version: Callable[..., Path], repo_id: str
) -> None:
    first = publish(make_version("first"), repo_id)
    assert first.changes.moved == ()
    assert set(first.changes.added) == set(hub.repo(repo_id).files) - {".gitattributes"}
    before = json.loads(hub.repo(repo_id).files["build.json"].content)

    folder = make_version("second", num_clients=12, num_rejected=3)
    figure = next((folder / "figures").glob("*.svg"))
    figure.unlink()
    (folder / "figures" / "new.svg").write_text("<svg/>")
    result = publish(folder, repo_id)
    after = json.loads((folder / "build.json").read_text())
    moved = {moved.what: (moved.before, moved.after) for moved in result.changes.moved}
    # 10 clients of 8 rows, then 12: 80 and 96 valid rows, all of them kept.
    assert moved["valid"] == moved["kept"] == (80, 96)
    assert moved["rejected"] == (0, 3)
    for split in set(before["splits"]) | set(after["splits"]):
        for name in ("rows", "clients"):
            old, new = (facts["splits"].get(split, {}).get(f"num_{name}") for facts in (before, after))
            assert moved.get(f"{name} of {split}") == ((old, new) if old != new else None)
    assert not {"seed", "licence", "filter min_rows", "duplicates in client"} & set(moved)
    assert result.changes.removed == (f"figures/{figure.name}",)
    assert result.changes.added == ("figures/new.svg",)
    assert {"README.md", "build.json", "data/train-00000-of-00001.parquet"} <= set(result.changes.changed)

    repo = hub.repo(repo_id)
    assert repo.commits[repo.head].description.splitlines() == result.lines()
    assert "valid: 80 -> 96" in result.lines()
    assert f"1 file removed: figures/{figure.name}" in result.lines()


def test_facts_that_are_no_facts_move_nothing() -> None:
    assert find_moves(None, {"seed": 1}) == find_moves({"seed": 1}, None) == ()
    assert find_moves({"splits": ["train"], "counts": None}, {"splits": {"train": 3}}) == ()
    assert find_moves({"seed": 0}, {"options": {"n": "1"}}) == (
        Moved(what="option n", before=None, after="1"),
        Moved(what="seed", before=0, after=None),
    )
    long = Changes(added=tuple(f"f{index}" for index in range(12)))
    assert long.lines() == ["12 files added: f0, f1, f2, f3, f4, f5, f6, f7, f8, f9 and 2 more"]
    assert Moved(what="revision", before="a\nb", after="x" * 500).line() == f"revision: a b -> {'x' * 120}…"


def test_what_lies_on_the_hub_as_build_json_may_be_anything(
    hub: LoopbackHub, make_version: Callable[..., Path], repo_id: str, tmp_path: Path
) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "build.json").write_text("not JSON")
    push_folder(tmp_path / "odd", repo_id)
    assert publish(make_version("first"), repo_id).changes.moved == ()


def publish_in_a_process(folder: Path, repo_id: str, tag: str) -> "subprocess.Popen[str]":
    code = "import sys; from fedllm_data.cli import main; sys.exit(main(sys.argv[1:]))"
    command = ["publish", str(folder), "--repo", repo_id, "--tag", tag]
    return subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True)


def bytes_of_data(hub: LoopbackHub) -> dict[str, int]:
    """Bytes that arrived, by the digest of the file they belong to."""
    sent: dict[str, int] = {}
    for request in hub.requests:
        if request.method == "PUT" and "/cdn/" in request.path:
            digest = request.path.rsplit("/", 1)[1]
            sent[digest] = sent.get(digest, 0) + request.num_received
    return sent


@pytest.mark.parametrize(
    ("method", "pattern"), [("POST", "/lfs-verify"), ("POST", "/commit/"), ("POST", "/tag/")], ids=lambda text: text
)
def test_a_publish_that_is_killed_is_taken_up_by_the_next(
    hub: LoopbackHub, make_version: Callable[..., Path], repo_id: str, method: str, pattern: str
) -> None:
    folder = make_version("killed")
    started: list[subprocess.Popen[str]] = []

    def kill() -> None:
        started[0].kill()
        started[0].wait()
        hub.fail(method, pattern, drop=True)  # what a killed client asked for last has no effect

    hub.before(method, pattern, kill)
    with publish_in_a_process(folder, repo_id, "v1") as process:
        started.append(process)
    assert process.returncode == -signal.SIGKILL
    with hub.lock:
        stored = {digest: len(content) for digest, content in hub.blobs.items()}
        hub.requests.clear()
    repo = hub.repo(repo_id)
    assert stored
    assert (len(repo.commits), repo.tags) == (2 if pattern == "/tag/" else 1, {})

    result = publish(folder, repo_id, tag="v1")
    sent = bytes_of_data(hub)
    # What had arrived is not sent again; what had not is sent once and whole.
    assert not set(sent) & set(stored)
    assert sent == {digest: len(hub.blobs[digest]) for digest in sent}
    if pattern != "/lfs-verify":
        assert sent == {}
    assert result.is_unchanged is (pattern == "/tag/")
    assert len(repo.commits) == 2
    assert repo.tags == {"v1": result.revision} == {"v1": repo.head}
    assert publish(folder, repo_id, tag="v1").is_unchanged


def test_of_two_that_publish_at_once_one_is_refused_and_nothing_is_mixed(
    hub: LoopbackHub, make_version: Callable[..., Path], repo_id: str
) -> None:
    base = publish(make_version("base"), repo_id)
    folders = [make_version("ours", num_clients=11), make_version("theirs", num_clients=12, num_rejected=3)]
    # Both have compared themselves with the same head before either commits.
    barrier = threading.Barrier(2, timeout=60)
    hub.before("POST", "/commit/", barrier.wait, times=2)
    results: dict[Path, PushResult | HubError] = {}

    def run(folder: Path) -> None:
        try:
            results[folder] = publish(folder, repo_id)
        except HubError as error:
            results[folder] = error

    threads = [threading.Thread(target=run, args=[folder]) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [folder for folder, result in results.items() if isinstance(result, PushResult)]
    [loser] = [folder for folder in folders if folder != winner]
    assert "somebody committed to it meanwhile, and nothing was changed" in str(results[loser])
    repo = hub.repo(repo_id)
    assert repo.commits[repo.head].parent == base.revision
    assert repo.files["build.json"].content == (winner / "build.json").read_bytes()
    for path in winner.rglob("*.parquet"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert repo.files[path.relative_to(winner).as_posix()].sha256 == digest
    # After looking at it, the loser goes on top of it.
    second = publish(loser, repo_id)
    assert repo.commits[second.revision].parent == results[winner].revision  # type: ignore[union-attr]
    assert repo.files["build.json"].content == (loser / "build.json").read_bytes()
