"""Publish a folder on the Hub in one commit.

A push compares the folder with the head of `main`, sends what differs as ONE commit that names that head as its
parent, then tags it. So a push that dies leaves the repo's files as they were, a commit made by somebody else in the
meantime is refused instead of overwritten, and a folder that the repo already holds makes no commit. A push that was
cut off is taken up by the next: large files that arrived are not sent again, and a commit without its tag gets it.
`HfApi.upload_folder` is not used: with Xet on, huggingface_hub 2.4 splits large folders over several commits.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from fedllm_data.errors import HubError
from fedllm_data.hub.changes import Changes, find_moves
from fedllm_data.hub.gate import Gating, Terms, check_own_repo, set_gate
from fedllm_data.hub.hub_errors import LOGIN, hub_errors

__all__ = ["IGNORED", "PushResult", "RepoType", "check_repo_id", "files_to_push", "push_folder", "resolve_revision"]

RepoType = Literal["dataset", "model", "space"]

IGNORED = (".git/*", ".cache/*", "__pycache__/*", "*/__pycache__/*", ".DS_Store", "*/.DS_Store", "*.tmp", "*.partial")
"""Paths that are neither uploaded nor removed from a repo, as `fnmatch` patterns (`*` also matches a slash)."""
KEPT = (".gitattributes",)
"""Paths that the Hub itself puts into a repo: a push never removes them."""
_BUILD_FILE = "build.json"


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """What a push left on the Hub."""

    repo_id: str
    revision: str
    """Sha of the commit that holds the folder: a new one, or the head if nothing had changed."""
    url: str
    is_unchanged: bool
    """The repo held exactly these files, and no commit was made."""
    changes: Changes = field(default_factory=Changes)
    """What the commit changed: files, and the numbers of build.json that moved."""
    notes: tuple[str, ...] = ()
    """What is left for the publisher to do on the Hub."""

    def lines(self) -> list[str]:
        """Return, in words, what moved and what is left to do, for the terminal.

        >>> PushResult(repo_id="org/a", revision="0" * 40, url="", is_unchanged=True).lines()
        ['nothing moved: the repo held exactly these files']
        """
        moved = ["nothing moved: the repo held exactly these files"] if self.is_unchanged else self.changes.lines()
        return [*moved, *self.notes]


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    repo_type: RepoType = "dataset",
    private: bool | None = None,
    tag: str | None = None,
    message: str | None = None,
    token: str | None = None,
    ignore: Sequence[str] = IGNORED,
    terms: Terms | None = None,
    gated: Gating = "auto",
) -> PushResult:
    """Make the head of a Hub repo hold exactly the files of a folder, in one commit.

    Files that the repo has and the folder has not are removed in the same commit, except what `ignore` matches.
    A repo that did not exist is made first and stays, empty, if the commit fails.

    Args:
        folder: what to push; links are refused, because they may lead out of the folder.
        repo_id: `namespace/name`.
        repo_type: kind of repo.
        private: make a new repo private (True), public (False), or as the Hub does by default (None). With True, an
            existing public repo is refused; with False, an existing private repo stays private, which is noted.
        tag: tag for the commit. It may exist only if it already names this very version.
        message: title of the commit.
        token: access token; by default the one of `hf auth login` or HF_TOKEN.
        ignore: patterns of paths that are neither uploaded nor removed.
        terms: the terms of the corpus; decides whether the repo may hold it, and whether it is gated first.
        gated: how requests for a gated repo are answered.

    Returns:
        The repo, its revision and its address, and what changed.

    Raises:
        HubError: if the Hub cannot be reached or refuses, the tag is taken, somebody else committed meanwhile, or
            the folder is empty.

    >>> push_folder(Path("."), "no namespace")
    Traceback (most recent call last):
    fedllm_data.errors.HubError: 'no namespace' is not a Hub repo id; write it as namespace/name, such as org/fed-oasst
    """
    check_repo_id(repo_id)
    paths = files_to_push(folder, ignore)
    if token is None and get_token() is None:
        raise HubError(f"not logged in to the Hub, so {repo_id} cannot be written; {LOGIN}")
    api = HfApi(token=token)
    with hub_errors(repo_id, "write"):
        url = str(api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True))
        info = api.repo_info(repo_id, repo_type=repo_type)
        head = str(info.sha)
        if private and not info.private:
            raise HubError(
                f"{repo_id} exists and is public, and this is to be private; make it private in its settings, choose "
                "another --repo, or publish with --public"
            )
        notes: tuple[str, ...] = ()
        if private is False and info.private:
            notes = (f"the repo is private and stays so; make it public at {url}/settings",)
        if terms is not None:
            names = [sibling.rfilename for sibling in getattr(info, "siblings", None) or ()]
            there = getattr(info, "card_data", None)
            check_own_repo(repo_id, terms, names, vars(there) if there else {})
            if terms.gate and not info.gated:
                if info.private:
                    notes += (f"the repo is private; before you open it, enable access requests at {url}/settings",)
                else:
                    set_gate(api, repo_id, repo_type, gated, url)
        operations, changes = _compare(api, repo_id, repo_type, head, paths, ignore)
        is_tagged = tag is not None and _check_tag(api, repo_id, repo_type, tag, head, is_changed=bool(operations))
        revision = head
        if operations:
            with warnings.catch_warnings():
                # Tables of scores belong beside the model that was scored.
                warnings.filterwarnings("ignore", message=".*about to commit a data file")
                commit = api.create_commit(
                    repo_id,
                    operations,
                    commit_message=message or f"Publish {folder.resolve().name}",
                    commit_description="\n".join(changes.lines()),
                    repo_type=repo_type,
                    parent_commit=head,
                )
            revision = commit.oid
        if tag is not None and not is_tagged:
            api.create_tag(repo_id, tag=tag, revision=revision, repo_type=repo_type)
    return PushResult(
        repo_id=repo_id, revision=revision, url=url, is_unchanged=not operations, changes=changes, notes=notes
    )


def resolve_revision(repo_id: str, revision: str | None = None, repo_type: RepoType = "dataset") -> str:
    """Return the commit that a branch, a tag or nothing (the head of main) names, so that a run can pin it.

    Args:
        repo_id: `namespace/name`.
        revision: branch, tag or commit sha.
        repo_type: kind of repo.

    Returns:
        A commit sha of 40 hexadecimal digits.

    Raises:
        HubError: if there is no such repo or revision, or the Hub cannot be reached.

    >>> resolve_revision("../etc")
    Traceback (most recent call last):
    fedllm_data.errors.HubError: '../etc' is not a Hub repo id; write it as namespace/name, such as org/fed-oasst
    """
    check_repo_id(repo_id)
    with hub_errors(repo_id, "read", revision):
        return str(HfApi().repo_info(repo_id, revision=revision, repo_type=repo_type).sha)


def check_repo_id(repo_id: str) -> None:
    """Refuse what cannot be the id of a repo on the Hub.

    Raises:
        HubError: if it is not of the form `namespace/name`.

    >>> check_repo_id("org/fed-oasst")
    """
    try:
        validate_repo_id(repo_id)
        is_valid = repo_id.count("/") == 1
    except HFValidationError:
        is_valid = False
    if not is_valid:
        raise HubError(f"{repo_id!r} is not a Hub repo id; write it as namespace/name, such as org/fed-oasst")


def files_to_push(folder: Path, ignore: Sequence[str] = IGNORED) -> dict[str, Path]:
    """Return the folder's files by their path in the repo, in sorted order.

    Args:
        folder: what is to be pushed.
        ignore: patterns of paths to leave out.

    Raises:
        HubError: if it is no folder, holds no files, or holds a link, which may lead out of it.

    >>> files_to_push(Path("no-such-folder"))
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no-such-folder is not a folder, so it cannot be pushed; give the folder to publish
    """
    if not folder.is_dir():
        raise HubError(f"{folder} is not a folder, so it cannot be pushed; give the folder to publish")
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    paths = {name: path for name, path in paths.items() if not _is_ignored(name, ignore)}
    links = [name for name, path in paths.items() if path.is_symlink()]
    if links:
        raise HubError(f"{folder / links[0]} is a link; replace it by the file it points to before pushing {folder}")
    if not paths:
        raise HubError(f"{folder} holds no files to push; build it first")
    return paths


def _is_ignored(path: str, ignore: Sequence[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in ignore)


def _compare(
    api: HfApi, repo_id: str, repo_type: RepoType, head: str, paths: dict[str, Path], ignore: Sequence[str]
) -> tuple[list[CommitOperationAdd | CommitOperationDelete], Changes]:
    """What turns the files at `head` into the local ones, and what that changes."""
    tree = api.list_repo_tree(repo_id, recursive=True, revision=head, repo_type=repo_type)
    remote = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    removed = [path for path in remote if path not in paths and path not in KEPT and not _is_ignored(path, ignore)]
    sent = [path for path in paths if path not in remote or not _is_same(paths[path], remote[path])]
    before = after = None
    if _BUILD_FILE in sent and _BUILD_FILE in remote:
        before = _facts(Path(api.hf_hub_download(repo_id, _BUILD_FILE, revision=head, repo_type=repo_type)))
        after = _facts(paths[_BUILD_FILE])
    changes = Changes(
        added=tuple(path for path in sent if path not in remote),
        removed=tuple(sorted(removed)),
        changed=tuple(path for path in sent if path in remote),
        moved=find_moves(before, after),
    )
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationDelete(path_in_repo=path, is_folder=False) for path in removed),
        *(CommitOperationAdd(path_in_repo=path, path_or_fileobj=paths[path]) for path in sent),
    ]
    return operations, changes


def _facts(path: Path) -> dict[str, Any] | None:
    """The content of a build.json, or None if it is none: whatever lies on the Hub, a new version may replace it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError):
        return None
    return content if isinstance(content, dict) else None


def _is_same(path: Path, remote: RepoFile) -> bool:
    """Compare by digest: the SHA-256 of a large file, git's blob id of another."""
    num_bytes = path.stat().st_size
    if num_bytes != remote.size:
        return False
    digest = hashlib.sha256() if remote.lfs else hashlib.sha1(b"blob %d\0" % num_bytes, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == (remote.lfs.sha256 if remote.lfs else remote.blob_id)


def _check_tag(api: HfApi, repo_id: str, repo_type: RepoType, tag: str, head: str, *, is_changed: bool) -> bool:
    """Return whether the tag already names this version; raise before the commit if it names another."""
    targets = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id, repo_type=repo_type).tags}
    if tag not in targets:
        return False
    if is_changed or targets[tag] != head:
        raise HubError(
            f"{repo_id} has a tag {tag!r} at {targets[tag][:7]}, which is another version; nothing was committed: "
            f"choose another tag, or delete it with `hf repos tag delete {repo_id} {tag} --type {repo_type}`"
        )
    return True
