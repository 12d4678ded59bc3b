"""The page "What does this run give away, and to whom?": three columns of readers, in English and Japanese."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader

from fedllm_data.in_place import fill_folder
from fedllm_data.reporting.page_frame import Body, whole_page
from fedllm_data.reporting.templates import page_environment
from fedllm_data.wording.catalogue import words
from fedllm_data.wording.forms import sentences
from fedllm_train.disclosure.readers import Reader, readers, summary_of
from fedllm_train.disclosure.run_facts import RunFacts

__all__ = ["FORMAT", "disclosure_record", "render_disclosure", "write_disclosure"]

FORMAT = "fedllm-train-given-away/1"
_MARK = "given_away.json"


def write_disclosure(
    facts: RunFacts, out: Path, *, audit: Mapping[str, Any] | None = None, language: str | None = None
) -> None:
    """Write `given_away.html` and `given_away.json` into a folder, which is replaced.

    Args:
        facts: what the run folder shows.
        out: the folder.
        audit: what an audit of the run found.
        language: of the page; by default it speaks all, and the browser chooses.

    Raises:
        OutputError: if the folder holds something else.
    """
    page = render_disclosure(facts, audit=audit, language=language)
    record = json.dumps(disclosure_record(facts, audit), indent=2, ensure_ascii=False)
    with fill_folder(out, mark=_MARK) as folder:
        (folder / "given_away.html").write_text(page, encoding="utf-8")
        (folder / _MARK).write_text(record + "\n", encoding="utf-8")


def disclosure_record(facts: RunFacts, audit: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what the page says, JSON-ready: the sentences of each reader in English, and what they follow from."""
    shown = asdict(facts) | {"traits": {"sees": facts.traits.sees, "up": facts.traits.up, "down": facts.traits.down}}
    return {
        "format": FORMAT,
        "summary": summary_of(facts),
        "readers": [asdict(one) for one in readers(facts, audit)],
        "facts": shown,
    }


def render_disclosure(facts: RunFacts, *, audit: Mapping[str, Any] | None = None, language: str | None = None) -> str:
    """Return the page.

    Args:
        facts: what the run folder shows.
        audit: what an audit of the run found.
        language: of the page; by default all.
    """
    environment = _environment()
    template = environment.get_template("disclosure_page.html.jinja")

    def body() -> Body:
        html = template.render(
            facts=facts, summary=sentences(summary_of(facts)), readers=readers(facts, audit), parts=_parts
        )
        return Body(words("What does this run give away, and to whom?"), html)

    return whole_page(body, language=language, style=environment.get_template("disclosure_page.css.jinja").render())


def _parts(reader: Reader) -> list[tuple[str, list[str]]]:
    """What is said of a reader, under its headings."""
    return [
        (words("Sees"), reader.sees),
        (words("Does not see"), reader.hidden),
        (words("What protects"), reader.protects),
        (words("What was measured"), reader.measured),
        (words("What is not known"), reader.unknown),
    ]


def _environment() -> Environment:
    environment = page_environment()
    own = PackageLoader("fedllm_train", "disclosure")
    environment.loader = ChoiceLoader([own, environment.loader])  # type: ignore[list-item]
    return environment
