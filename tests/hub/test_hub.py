"""A push is one commit or nothing, and every refusal of the Hub becomes one line that says what to do."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download

from fedllm_data.errors import HubError, SchemaError
from fedllm_data.hub.hub_errors import hub_errors
from fedllm_data.hub.push import push_folder, resolve_revision
from tests.hub.routes import File, Repo
from tests.hub.server import LoopbackHub

REPO = "org/name"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small text file, and two files that the Hub stores as large ones."""
    folder = tmp_path / "folder"
    (folder / "data").mkdir(parents=True)
    (folder / "notes.txt").write_text("first")
    (folder / "data" / "a.parquet").write_bytes(b"a" * 3000)
    (folder / "data" / "b.parquet").write_bytes(b"b" * 2000)
    return folder


def published(repo: Repo) -> dict[str, str]:
    return {path: file.etag for path, file in repo.files.items() if path != ".gitattributes"}


def commits(repo: Repo) -> list[str]:
    titles, sha = [], repo.head
    while sha is not None:
        titles.append(repo.commits[sha].title)
        sha = repo.commits[sha].parent
    return titles[::-1]


def test_a_push_makes_the_repo_and_one_commit(hub: LoopbackHub, folder: Path) -> None:
    result = push_folder(folder, REPO, message="v1")
    repo = hub.repo(REPO)
    assert commits(repo) == ["initial commit", "v1"]
    assert set(repo.files) == {".gitattributes", "notes.txt", "data/a.parquet", "data/b.parquet"}
    assert repo.files["data/a.parquet"].sha256 == hashlib.sha256(b"a" * 3000).hexdigest()
    assert (result.repo_id, result.revision, result.is_unchanged) == (REPO, repo.head, False)
    assert result.url == f"{hub.url}/datasets/{REPO}"
    assert not repo.private


def test_pushing_the_same_folder_again_makes_no_commit_and_no_upload(hub: LoopbackHub, folder: Path) -> None:
    first = push_folder(folder, REPO)
    hub.requests.clear()
    second = push_folder(folder, REPO)
    assert (second.revision, second.is_unchanged) == (first.revision, True)
    assert not [request for request in hub.requests if request.method == "PUT" or "/commit/" in request.path]


def test_a_new_version_removes_what_the_folder_no_longer_has_in_the_same_commit(
    hub: LoopbackHub, folder: Path
) -> None:
    push_folder(folder, REPO, message="v1")
    (folder / "data" / "b.parquet").unlink()
    (folder / "notes.txt").write_text("second")
    push_folder(folder, REPO, message="v2")
    assert commits(hub.repo(REPO)) == ["initial commit", "v1", "v2"]
    assert set(published(hub.repo(REPO))) == {"notes.txt", "data/a.parquet"}
    assert hub.repo(REPO).files["notes.txt"].content == b"second"
    assert ".gitattributes" in hub.repo(REPO).files


def test_ignored_paths_are_neither_uploaded_nor_removed(hub: LoopbackHub, folder: Path) -> None:
    push_folder(folder, REPO)
    (folder / "rejected.jsonl").write_text("{}")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("x")
    push_folder(folder, REPO, ignore=("rejected.jsonl", ".cache/*", "notes.txt"))
    (folder / "notes.txt").unlink()
    assert push_folder(folder, REPO, ignore=("rejected.jsonl", ".cache/*", "notes.txt")).is_unchanged
    assert set(published(hub.repo(REPO))) == {"notes.txt", "data/a.parquet", "data/b.parquet"}


@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        ("PUT", "/cdn/"),
        ("POST", "/lfs-verify"),
        ("POST", r"objects/batch"),
        ("POST", "/preupload/"),
        ("POST", "/commit/"),
    ],
)
@pytest.mark.parametrize("drop", [False, True], ids=["answers 503", "hangs up"])
def test_a_push_that_dies_halfway_leaves_files_and_sha_as_they_were(
    hub: LoopbackHub, folder: Path, method: str, pattern: str, drop: bool
) -> None:
    first = push_folder(folder, REPO, tag="v1")
    before = published(hub.repo(REPO))
    for name in ("a", "c", "d"):
        (folder / "data" / f"{name}.parquet").write_bytes(name.encode() * 9000)
    (folder / "notes.txt").unlink()
    hub.fail(method, pattern, status=503, drop=drop, times=1000)
    with pytest.raises(HubError, match=r"cannot write org/name: .*run again"):
        push_folder(folder, REPO, tag="v2")
    assert published(hub.repo(REPO)) == before
    assert resolve_revision(REPO) == first.revision
    assert hub.repo(REPO).tags == {"v1": first.revision}
    hub.faults.clear()
    push_folder(folder, REPO, tag="v2")
    assert len(commits(hub.repo(REPO))) == 3


def test_a_lost_answer_to_the_commit_is_found_in_place_and_tagged_by_the_next_run(
    hub: LoopbackHub, folder: Path
) -> None:
    hub.fail("POST", "/commit/", drop=True, after=True)
    with pytest.raises(HubError, match="cannot be reached"):
        push_folder(folder, REPO, tag="v1")
    result = push_folder(folder, REPO, tag="v1")
    assert result.is_unchanged
    assert len(commits(hub.repo(REPO))) == 2
    assert hub.repo(REPO).tags == {"v1": result.revision}


def test_a_commit_made_meanwhile_is_not_overwritten(
    hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_folder(folder, REPO)
    (folder / "notes.txt").write_text("ours")
    upload = HfApi.create_commit

    def meanwhile(api: HfApi, *args: object, **kwargs: object) -> object:
        repo = hub.repo(REPO)
        repo.commit("theirs", {**repo.files, "notes.txt": File(b"theirs")})
        return upload(api, *args, **kwargs)

    monkeypatch.setattr(HfApi, "create_commit", meanwhile)
    with pytest.raises(HubError, match="somebody committed to it meanwhile, and nothing was changed"):
        push_folder(folder, REPO)
    assert hub.repo(REPO).files["notes.txt"].content == b"theirs"


def test_a_tag_names_one_version_for_ever(hub: LoopbackHub, folder: Path) -> None:
    first = push_folder(folder, REPO, tag="v1")
    assert push_folder(folder, REPO, tag="v1").revision == first.revision
    (folder / "notes.txt").write_text("second")
    with pytest.raises(HubError, match=r"has a tag 'v1' at .*nothing was committed: choose another tag"):
        push_folder(folder, REPO, tag="v1")
    assert resolve_revision(REPO) == resolve_revision(REPO, "v1") == first.revision
    second = push_folder(folder, REPO, tag="v2")
    assert resolve_revision(REPO, "v1") == first.revision != resolve_revision(REPO, "v2") == second.revision


def test_the_token_goes_to_the_hub_and_never_to_the_host_of_large_files(hub: LoopbackHub, folder: Path) -> None:
    push_folder(folder, REPO)
    hf_hub_download(REPO, "data/a.parquet", repo_type="dataset")
    elsewhere = [request for request in hub.requests if request.host == "localhost"]
    assert {request.method for request in elsewhere} >= {"PUT", "GET"}
    assert not any(request.has_token for request in elsewhere)
    assert any(request.has_token for request in hub.requests)


def test_a_private_push_refuses_a_repo_that_is_public(hub: LoopbackHub, folder: Path) -> None:
    push_folder(folder, "org/secret", private=True)
    assert hub.repo("org/secret").private
    push_folder(folder, "org/open")
    (folder / "notes.txt").write_text("private")
    with pytest.raises(HubError, match="org/open exists and is public"):
        push_folder(folder, "org/open", private=True)
    assert hub.repo("org/open").files["notes.txt"].content == b"first"


def test_models_are_pushed_the_same_way(hub: LoopbackHub, folder: Path) -> None:
    (folder / "data" / "a.parquet").rename(folder / "adapter_model.safetensors")
    (folder / "data" / "b.parquet").unlink()
    result = push_folder(folder, REPO, repo_type="model")
    assert resolve_revision(REPO, repo_type="model") == result.revision
    assert result.url == f"{hub.url}/{REPO}"


def test_without_a_login_nothing_is_sent(hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"not logged in .*`hf auth login` or set HF_TOKEN"):
        push_folder(folder, REPO)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("method", "pattern", "status", "remedy"),
    [
        ("POST", "/repos/create", 403, r"the token may not write it \(403\); check `hf auth whoami`"),
        ("POST", "/commit/", 403, r"the token may not write it \(403\); check `hf auth whoami`"),
        ("POST", "/repos/create", 401, "does not accept the token|you may not see it"),
        ("GET", "/refs", 429, "answered 429; run again later"),
        ("POST", "/tag/", 400, r"answered 400 \(injected fault\)"),
    ],
)
def test_a_refusal_is_one_line_with_a_remedy(
    hub: LoopbackHub, folder: Path, method: str, pattern: str, status: int, remedy: str
) -> None:
    hub.fail(method, pattern, status=status, times=1000)
    with pytest.raises(HubError, match=rf"cannot write org/name: .*{remedy}") as caught:
        push_folder(folder, REPO, tag="v1")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_told_apart(hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push_folder(folder, REPO)
    with pytest.raises(HubError, match="cannot read org/absent: no such repo, or it is private"):
        resolve_revision("org/absent")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="cannot read org/absent: no such repo, or it is private"):
        resolve_revision("org/absent")
    with pytest.raises(HubError, match=r"cannot read org/name: it has no revision 'v9'"):
        resolve_revision(REPO, "v9")
    hub.fail("GET", "/api/datasets", drop=True, times=1000)
    with pytest.raises(HubError, match="cannot read org/name: the Hub cannot be reached"):
        resolve_revision(REPO)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HubError, match="cannot read org/name: the Hub cannot be reached"):
        resolve_revision(REPO)


def test_a_gated_repo_is_told_apart_by_whatever_reads_it(hub: LoopbackHub, folder: Path) -> None:
    push_folder(folder, REPO)
    hub.repo(REPO).gated = True
    reads = (
        lambda: hf_hub_download(REPO, "notes.txt", repo_type="dataset"),
        lambda: HfFileSystem().open(f"datasets/{REPO}/data/a.parquet").read(),
        lambda: load_dataset(REPO),
    )
    for read in reads:
        with (
            pytest.raises(HubError, match="cannot read org/name: it is gated; ask for access"),
            hub_errors(REPO, "read"),
        ):
            read()


def test_an_error_that_is_not_the_hubs_passes_as_it_is(hub: LoopbackHub) -> None:
    for error in (FileNotFoundError(2, "No such file"), KeyError("column"), SchemaError("rows")):
        with pytest.raises(type(error)) as caught, hub_errors(REPO, "read"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("repo_id", ["", "name", "a/b/c", "org/na me", "../name", "org/" + "x" * 100, "/tmp/folder"])
def test_a_bad_repo_id_is_refused_before_any_request(hub: LoopbackHub, folder: Path, repo_id: str) -> None:
    with pytest.raises(HubError, match="is not a Hub repo id; write it as namespace/name"):
        push_folder(folder, repo_id)
    assert hub.requests == []


def test_an_empty_folder_a_missing_one_and_a_link_are_refused(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(HubError, match="holds no files to push"):
        push_folder(tmp_path / "empty", REPO)
    with pytest.raises(HubError, match="is not a folder"):
        push_folder(tmp_path / "absent", REPO)
    (folder / "link.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(HubError, match=r"link.txt is a link"):
        push_folder(folder, REPO)
    assert hub.repos == {}


def test_with_xet_on_a_push_is_one_commit_too(
    hub: LoopbackHub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hf_xet", reason="hf_xet is not installed on this platform")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    (tmp_path / "store").mkdir()
    monkeypatch.setattr(hub, "xet_store", tmp_path / "store")
    first = push_folder(folder, REPO, message="v1")
    assert commits(hub.repo(REPO)) == ["initial commit", "v1"]
    assert hub.repo(REPO).files["data/a.parquet"].sha256 == hashlib.sha256(b"a" * 3000).hexdigest()
    assert not [request for request in hub.requests if request.method == "PUT"]
    assert push_folder(folder, REPO).is_unchanged

    (folder / "data" / "a.parquet").write_bytes(b"c" * 5000)
    for method, pattern in (("GET", "/xet-write-token/"), ("POST", "/commit/")):
        hub.fail(method, pattern, status=403, times=1000)
        with pytest.raises(HubError, match=r"cannot write org/name: .*403"):
            push_folder(folder, REPO)
        hub.faults.clear()
        assert resolve_revision(REPO) == first.revision
    push_folder(folder, REPO, message="v2")
    assert commits(hub.repo(REPO)) == ["initial commit", "v1", "v2"]


def test_a_hub_without_xet_is_said_to_be_one(hub, repo_id, tmp_path):
    """In a process of its own, since huggingface_hub reads the variable when it is imported."""
    (tmp_path / "rows.parquet").write_bytes(bytes(range(256)) * 100)
    code = (
        "import sys, pathlib\nfrom fedllm_data.errors import HubError\nfrom fedllm_data.hub.push import push_folder\n"
        f"try:\n    push_folder(pathlib.Path({str(tmp_path)!r}), {repo_id!r})\n"
        "except HubError as error:\n    print(error)"
    )
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "0", "HF_ENDPOINT": hub.url}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip().endswith(
        "this Hub has no Xet storage, where the client sends large files; set HF_HUB_DISABLE_XET=1, then run again"
    )
    environment["HF_HUB_DISABLE_XET"] = "1"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == ""
    assert "rows.parquet" in hub.repo(repo_id).files
