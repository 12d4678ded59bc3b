"""Publish a client repo: check it, decide who may see it, and push it in one commit.

Rows that came from a public corpus go where the publisher says; rows that came from anywhere else are people's own and
become a private repo unless `public` is asked for. Client ids that look like people are published only when that is
said twice: hash them with a salt, or confirm. `preview` tells all of this before anything is sent.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.cards.card import set_repo_id
from fedllm_data.cards.croissant import CROISSANT_FILE, set_croissant_url
from fedllm_data.check import check_repo
from fedllm_data.errors import ConfigError, SchemaError
from fedllm_data.hub.gate import Gating, Terms, terms_of
from fedllm_data.hub.people import is_own_data, personal_ids, personal_texts
from fedllm_data.hub.push import IGNORED, PushResult, check_repo_id, files_to_push, push_folder
from fedllm_data.licences import licence_terms
from fedllm_data.repo import FolderRepo

__all__ = ["Preview", "preview", "publish"]

LOCAL_ONLY = ("rejected.jsonl",)
"""What a client repo's folder holds for its builder alone: places in files on the builder's machine."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What publishing a folder would do."""

    repo_id: str
    num_bytes: dict[str, int]
    """Path in the repo -> bytes, of every file."""
    private: bool | None
    """Whether a new repo would be private; None: as the Hub does by default."""
    terms: Terms
    people: dict[str, int]
    """What names people -> how many; of the ids all, of the texts those that patterns find."""
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return, in words, what would happen.

        >>> terms = Terms(corpus="a", licence="mit", gate="")
        >>> Preview(repo_id="org/a", num_bytes={"README.md": 7}, private=True, terms=terms, people={}).lines()[0]
        'would publish 1 file, 7 bytes, to org/a as a private repo, licence mit'
        """
        visible = {True: "a private repo", False: "a public repo", None: "a repo as visible as the Hub makes new ones"}
        total, files = sum(self.num_bytes.values()), len(self.num_bytes)
        gate = ", gated" if self.terms.gate else ""
        counted = f"{files:,} file{'' if files == 1 else 's'}"
        first = f"would publish {counted}, {total:,} bytes, to {self.repo_id} as {visible[self.private]}"
        return [
            f"{first}{gate}, licence {self.terms.licence}",
            *(f"  {num_bytes:>14,}  {name}" for name, num_bytes in self.num_bytes.items()),
            *(f"names people: {count:,} {what}" for what, count in self.people.items()),
            *([] if self.people else ["names people: nothing that ids or patterns show"]),
            *self.notes,
        ]


def publish(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    allow_personal_ids: bool = False,
    tag: str | None = None,
    message: str | None = None,
    token: str | None = None,
    gated: Gating = "auto",
) -> PushResult:
    """Publish a client repo as a dataset on the Hub, after checking it.

    A corpus whose card states a gate is gated before its first file arrives. One whose licence forbids commercial use
    must state a gate, and goes into no repo of another corpus or licence.

    Args:
        folder: a client repo, as `build` or `import` wrote it.
        repo_id: `namespace/name`; the repo is made if it does not exist.
        private: make a new repo private or public; None makes imported data private, and a public corpus as the Hub
            does by default. An existing public repo is refused where the repo is to be private.
        allow_personal_ids: publish client ids that look like e-mail addresses, phone numbers or names.
        tag: name for this version, as in `load_clients(repo_id, revision="v1.0")`.
        message: title of the commit.
        token: access token; by default the one of `hf auth login` or HF_TOKEN.
        gated: where the card states a gate, whether whoever agrees gets in at once, or when you say so; a repo that
            is gated already stays as it is.

    Returns:
        Where the folder is now, and what moved; publishing the same folder again makes no commit.

    Raises:
        SchemaError: if the folder is not a sound client repo, has no card, or lacks the gate it needs.
        ConfigError: if client ids look like people and that was not confirmed.
        HubError: if the Hub cannot be reached or refuses, or the repo holds something that must stay apart.

    >>> publish(Path("no-such-folder"), "org/fed-oasst")
    Traceback (most recent call last):
    fedllm_data.errors.SchemaError: no-such-folder is not a folder; give the folder of a client repo
    """
    facts, terms = _checked(folder, repo_id)
    if not allow_personal_ids:
        _refuse_personal_ids(folder, facts)
    # The card's loading example names the repo; the folder keeps that line, so that it equals what is on the Hub.
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8")
    if set_repo_id(text, repo_id) != text:
        card.write_text(set_repo_id(text, repo_id), encoding="utf-8")
    croissant = folder / CROISSANT_FILE
    if croissant.is_file():
        metadata = set_croissant_url(
            croissant.read_text(encoding="utf-8"), f"https://huggingface.co/datasets/{repo_id}"
        )
        croissant.write_text(metadata, encoding="utf-8")
    return push_folder(
        folder,
        repo_id,
        private=_visibility(private, facts),
        tag=tag,
        message=message,
        token=token,
        ignore=(*IGNORED, *LOCAL_ONLY),
        terms=terms,
        gated=gated,
    )


def preview(folder: Path, repo_id: str, *, private: bool | None = None, allow_personal_ids: bool = False) -> Preview:
    """Return what `publish` would do; nothing is sent, and the Hub is not asked.

    Args:
        folder: a client repo.
        repo_id: `namespace/name`.
        private: see `publish`.
        allow_personal_ids: see `publish`.

    Raises:
        SchemaError: if the folder cannot be published.

    >>> preview(Path("no-such-folder"), "org/fed-oasst")
    Traceback (most recent call last):
    fedllm_data.errors.SchemaError: no-such-folder is not a folder; give the folder of a client repo
    """
    facts, terms = _checked(folder, repo_id)
    files = files_to_push(folder, (*IGNORED, *LOCAL_ONLY))
    ids = _personal_ids(folder, facts)
    texts, note = personal_texts(FolderRepo(str(folder), folder))
    notes = [note]
    if ids and not allow_personal_ids:
        notes.append("publishing asks for --yes, since client ids look like people; `--salt-file` hashes them")
    if "nd" in licence_terms(terms.licence):
        notes.append(f"{terms.licence} lets nobody pass on changed versions: ask the source before others see this")
    return Preview(
        repo_id=repo_id,
        num_bytes={name: path.stat().st_size for name, path in files.items()},
        private=_visibility(private, facts),
        terms=terms,
        people={**{f"client ids that look like {kind}": n for kind, n in ids.items()}, **texts},
        notes=tuple(notes),
    )


def _checked(folder: Path, repo_id: str) -> tuple[dict[str, Any], Terms]:
    """What build.json says and what the card allows, of a folder that may be published."""
    if not folder.is_dir():
        raise SchemaError(f"{folder} is not a folder; give the folder of a client repo")
    check_repo_id(repo_id)
    problems = check_repo(folder)
    card = folder / "README.md"
    if not card.is_file() or not card.read_text(encoding="utf-8", errors="replace").startswith("---"):
        raise SchemaError(f"{folder} has no card; write README.md with `fedllm-data report {folder} --out {folder}`")
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise SchemaError(f"{folder} cannot be published: {problems[0]}{more}; see `fedllm-data check {folder}`")
    facts = _facts(folder)
    return facts, terms_of(card, facts)


def _facts(folder: Path) -> dict[str, Any]:
    """The content of build.json; empty if the folder has none that can be read."""
    try:
        content = json.loads((folder / "build.json").read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError):
        return {}
    return content if isinstance(content, dict) else {}


def _visibility(private: bool | None, facts: dict[str, Any]) -> bool | None:
    return True if private is None and is_own_data(facts) else private


def _personal_ids(folder: Path, facts: dict[str, Any]) -> dict[str, int]:
    """Kinds of ids that look like people; what a public corpus published itself is not asked about."""
    if not is_own_data(facts):
        return {}
    return personal_ids(FolderRepo(str(folder), folder).client_table()["client_id"].to_pylist())


def _refuse_personal_ids(folder: Path, facts: dict[str, Any]) -> None:
    found = _personal_ids(folder, facts)
    if found:
        counted = ", ".join(f"{count:,} like {kind}" for kind, count in found.items())
        raise ConfigError(
            f"{folder}: client ids look like people ({counted}), and nothing was published; import again with "
            "--salt-file FILE, which hashes them, or confirm with --yes"
        )
