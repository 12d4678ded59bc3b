"""Rows that nobody may use commercially lie in a repo of their own, behind a gate that states the terms.

The gate is a setting of the repo (access requests) and a text in its card. It is set before the first file arrives, so
that no file is ever to be had without it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from fedllm_data.card_facts import licence_in, read_front_matter
from fedllm_data.errors import HubError, SchemaError
from fedllm_data.licences import is_non_commercial, licence_terms

__all__ = ["Gating", "Terms", "check_own_repo", "set_gate", "terms_of"]

Gating = Literal["auto", "manual"]
"""Who asked gets in at once after agreeing, or when the repo's owner says so."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a card says of a corpus, as far as it decides where the rows may lie."""

    corpus: str
    licence: str
    gate: str
    """What a reader must agree to; empty if anybody may read."""


def terms_of(card: Path, facts: dict[str, Any]) -> Terms:
    r"""Return the terms of a folder to publish, from its card and its build.json.

    Args:
        card: README.md with front matter.
        facts: content of build.json; empty if the folder has none.

    Raises:
        SchemaError: if the front matter cannot be read, the licences of card and build.json differ in their terms
            (non-commercial, no derivatives, share alike), or the card states no gate although commercial use is
            forbidden or build.json has one.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     card = Path(place, "README.md")
    ...     _ = card.write_text("---\nlicense: cc-by-4.0\n---\n")
    ...     terms_of(card, {"name": "fed-test", "licence": "CC BY 4.0"})
    Terms(corpus='fed-test', licence='cc-by-4.0', gate='')
    """
    try:
        written = read_front_matter(card.read_text(encoding="utf-8"))
    except SchemaError as error:
        raise SchemaError(f"{card}: {error}, or {_REMEDY.format(card.parent)}") from error
    licence = licence_in(written) or "unknown"
    stated = str(facts.get("licence") or licence)
    if licence_terms(licence) != licence_terms(stated):
        raise SchemaError(
            f"{card}: the card names the licence {licence[:60]!r} and build.json {stated[:60]!r}; "
            + _REMEDY.format(card.parent)
        )
    gate = str(written.get("extra_gated_prompt") or "")
    if is_non_commercial(licence) and not gate.strip():
        raise SchemaError(
            f"{card}: {licence} forbids commercial use, so the card must state in extra_gated_prompt what a reader "
            "agrees to; give the source a gate (--gate of an import), or write that line into the front matter"
        )
    if str(facts.get("gate") or "").strip() and not gate.strip():
        raise SchemaError(
            f"{card}: build.json states what a reader must agree to, and the card has no extra_gated_prompt; "
            + _REMEDY.format(card.parent)
        )
    return Terms(corpus=str(facts.get("name") or written.get("pretty_name") or ""), licence=licence, gate=gate)


def check_own_repo(repo_id: str, terms: Terms, paths: Iterable[str], card: Mapping[str, Any]) -> None:
    """Refuse to mix rows that nobody may use commercially with any others, in either direction.

    Args:
        repo_id: where the folder is to go.
        terms: the terms of the folder.
        paths: paths of the files that the repo holds.
        card: front matter of the repo's card; empty if it has none.

    Raises:
        HubError: if the repo holds another corpus or names another licence, and one of the two is non-commercial.

    >>> terms = Terms(corpus="fed-test", licence="cc-by-nc-4.0", gate="Agree.")
    >>> check_own_repo("org/one", terms, ["README.md"], {"pretty_name": "fed-two", "license": "mit"})
    Traceback (most recent call last):
    fedllm_data.errors.HubError: org/one holds fed-two (mit) and fed-test is cc-by-nc-4.0: non-commercial rows lie ...
    """
    if not set(paths) - {".gitattributes"}:
        return
    licence, corpus = licence_in(card) or "unknown", str(card.get("pretty_name") or "")
    if not is_non_commercial(terms.licence) and not is_non_commercial(licence):
        return
    if (corpus, licence) != (terms.corpus, terms.licence):
        raise HubError(
            f"{repo_id} holds {corpus[:60] or 'files without a name'} ({licence[:60]}) and {terms.corpus} is "
            f"{terms.licence}: non-commercial rows lie in a repo of their own; publish to another --repo"
        )


def set_gate(api: HfApi, repo_id: str, repo_type: str, gated: Gating, url: str) -> None:
    """Switch on access requests; called before a commit.

    Args:
        api: client of the Hub, with a token that may write the repo.
        repo_id: the repo.
        repo_type: its kind.
        gated: how requests are answered.
        url: the repo's page, for the error.

    Raises:
        HubError: if the Hub refuses, or the repo is not gated afterwards.

    >>> from unittest.mock import Mock
    >>> set_gate(Mock(**{"repo_info.return_value.gated": False}), "org/a", "dataset", "auto", "https://x.org/a")
    Traceback (most recent call last):
    fedllm_data.errors.HubError: org/a is not gated although the Hub took the setting, and nothing was committed: ...
    """
    remedy = f"nothing was committed: enable access requests at {url}/settings, then publish again"
    try:
        api.update_repo_settings(repo_id, gated=gated, repo_type=repo_type)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise HubError(f"the Hub refuses to gate {repo_id} ({status}), and {remedy}") from error
    if not getattr(api.repo_info(repo_id, repo_type=repo_type), "gated", False):
        raise HubError(f"{repo_id} is not gated although the Hub took the setting, and {remedy}")


_REMEDY = "write the card again with `fedllm-data report {0} --out {0}`"
