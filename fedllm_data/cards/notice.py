"""The NOTICE of a client repo: where the rows come from, under which terms, and what was changed.

Most licences ask whoever passes rows on for just this, so it lies beside the card and belongs to every copy.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedllm_data.cards.card_words import client_id_words, filter_words, obligation_words, partition_words, scrub_words

__all__ = ["notice_text", "write_notice"]

_WIDTH = 100


def write_notice(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write NOTICE into a client repo, and return its path.

    Args:
        folder: the client repo.
        facts: content of build.json.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     write_notice(Path(place), {"name": "fed-test"}).read_text().splitlines()[0]
    'fed-test'
    """
    path = folder / "NOTICE"
    path.write_text(notice_text(facts), encoding="utf-8")
    return path


def notice_text(facts: Mapping[str, Any]) -> str:
    """Return the NOTICE; facts that are not there are left out.

    Args:
        facts: content of build.json, or what of it is known before a build is done.

    >>> facts = {"name": "fed-test", "licence": "cc-by-4.0", "licence_url": "https://x.org", "attribution": "Ann"}
    >>> "Asks for:    credit the source and say what you changed" in notice_text(facts)
    True
    """
    licence = str(facts.get("licence") or "")
    url = f" ({facts['licence_url']})" if facts.get("licence_url") else ""
    fields = {
        "Source": facts.get("upstream"),
        "Revision": facts.get("revision"),
        "Licence": f"{licence or 'not stated'}{url}",
        "Asks for": obligation_words(licence),
        "Terms": facts.get("terms"),
        "Access": facts.get("gate"),
        "Attribution": facts.get("attribution"),
    }
    lines = [_line(f"{name + ':':<13}", value) for name, value in fields.items() if value]
    lines += [
        _line(f"{'File given:':<13}", f"{f['name']}, SHA-256 {f['sha256']}") for f in facts.get("source_files", ())
    ]
    changes = [
        "Rows were brought into one format, grouped by client, filtered and split with fedllm-commons.",
        *(filter_words(facts["filters"]) if "filters" in facts else ()),
        *([client_id_words(facts["client_ids"])] if "client_ids" in facts else ()),
        *([scrub_words(facts["scrubbed"])] if facts.get("scrubbed") is not None else ()),
        *([partition_words(facts["partition"])] if facts.get("partition") else ()),
        *([facts["organisations"]["words"]] if facts.get("organisations") else ()),
        "build.json counts what was removed and why.",
    ]
    return "\n".join(
        [
            _line("", facts.get("name")),
            "",
            *([_line("", facts["summary"]), ""] if facts.get("summary") else ()),
            *lines,
            "",
            "Changes:",
            *(_line("- ", change) for change in changes),
            "",
        ]
    )


def _line(label: str, value: Any) -> str:
    """One field on as many lines as it needs; control characters of the corpus do not get through."""
    words = " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())
    return textwrap.fill(
        words,
        _WIDTH,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )
