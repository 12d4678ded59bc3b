"""Write the card (README.md), NOTICE and Croissant metadata of a client repo from what its folder holds.

`read_contents` reads build.json, the footers of the Parquet files and, where they are there, heterogeneity.json and
the names of figures/*.svg; `render_card` makes the text of that alone, by the words of `dataset.md.jinja`. What
comes out for every corpus lies in the top-level folder `cards/`. Whatever comes from the corpus or the user is escaped
by default: a client id, a file name or a rejection reason can neither open a tag nor break a table. Writing a card
again gives the same bytes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedllm_data.cards.card_words import (
    build_command,
    client_id_words,
    duplicate_words,
    filter_words,
    language_words,
    obligation_words,
    partition_words,
    scrub_words,
)
from fedllm_data.cards.croissant import write_croissant
from fedllm_data.cards.front_matter import HUB_ID, dataset_info, front_matter
from fedllm_data.cards.notice import write_notice
from fedllm_data.cards.text import (
    COLUMN_MEANINGS,
    COUNT_LABELS,
    SPLIT_COUNT_LABELS,
    SPLIT_PURPOSES,
    Markdown,
    arrow_type_words,
    escape_markdown,
    link,
)
from fedllm_data.errors import SchemaError
from fedllm_data.importing.import_notes import change_lines
from fedllm_data.reporting.numbers import format_chance, format_number
from fedllm_data.reporting.report_words import method_words
from fedllm_data.schema import SCHEMAS, SPLITS, UNDETERMINED

__all__ = ["CardContents", "read_contents", "render_card", "set_repo_id", "write_card"]

_NUM_LANGUAGES = 12
_NUM_REASONS = 12
_EXAMPLE_ID = re.compile(r'^(repo = "|fedllm-(?:train|eval) .*?--data )[^"\s]+', flags=re.MULTILINE)


@dataclass(frozen=True)
class CardContents:
    """Everything of a client repo that its card shows; plain JSON values throughout."""

    facts: Mapping[str, Any]
    """The content of build.json."""
    report: Mapping[str, Any] | None
    """The content of heterogeneity.json, if the clients were compared."""
    info: list[dict[str, Any]]
    """Features, rows and bytes of the configs (`front_matter.dataset_info`)."""
    figures: tuple[str, ...] = ()
    """Names of the figures that lie in figures/."""
    has_page: bool = False
    """Whether report.html lies beside the card."""


def write_card(folder: Path, report: dict[str, Any] | None = None) -> Path:
    """Write README.md, NOTICE and croissant.json into a client repo, and return the path of README.md.

    Args:
        folder: a client repo, as `build` or `import` wrote it.
        report: the content of heterogeneity.json; by default it is read from the folder, and where there is none the
            card says so.

    Raises:
        SchemaError: if the folder is no client repo, or its build.json or heterogeneity.json is broken.

    >>> write_card(Path("no-such-folder"))
    Traceback (most recent call last):
    fedllm_data.errors.SchemaError: no-such-folder/build.json is missing; make the folder with `fedllm-data build` ...
    """
    contents = read_contents(folder, report)
    text = render_card(contents, called=str(folder))
    try:
        write_croissant(folder, contents.facts)
    except (KeyError, TypeError) as error:
        raise SchemaError(f"{folder}/build.json lacks {error} for croissant.json; build the folder again") from error
    card, written = folder / "README.md", folder / "README.md.tmp"
    written.write_text(text, encoding="utf-8")
    written.replace(card)
    write_notice(folder, dict(contents.facts))
    return card


def read_contents(folder: Path, report: dict[str, Any] | None = None) -> CardContents:
    """Return what a client repo holds for its card; arguments and errors are those of `write_card`."""
    facts = _read_json(folder / "build.json")
    if facts is None:
        raise SchemaError(
            f"{folder / 'build.json'} is missing; make the folder with `fedllm-data build` or `fedllm-data import`"
        )
    report = _read_json(folder / "heterogeneity.json") if report is None else report
    try:
        info = dataset_info(folder, facts["splits"])
    except (KeyError, TypeError) as error:
        raise SchemaError(f"{folder / 'build.json'} lacks {error} for the card; build the folder again") from error
    return CardContents(
        facts=facts,
        report=report,
        info=info,
        figures=tuple(sorted(path.stem for path in folder.glob("figures/*.svg"))),
        has_page=(folder / "report.html").is_file(),
    )


def render_card(contents: CardContents, *, called: str = "the repo") -> str:
    """Return the card as Markdown.

    Args:
        contents: what it shows.
        called: the repo's folder, for errors.

    Raises:
        SchemaError: if a part lacks something that the card shows.

    >>> render_card(CardContents({}, None, []))
    Traceback (most recent call last):
    fedllm_data.errors.SchemaError: the repo/build.json lacks 'clients' for the card; build the folder again
    """
    axes = _axes(contents, called)
    try:
        return _render(contents, axes)
    except (KeyError, TypeError) as error:
        raise SchemaError(f"{called}/build.json lacks {error} for the card; build the folder again") from error


def set_repo_id(card: str, repo_id: str) -> str:
    """Return the card with its examples made out for a repo id; nothing else changes.

    >>> set_repo_id('repo = "org/NAME"  # the id on the Hub', "me/mine")
    'repo = "me/mine"  # the id on the Hub'
    """
    return _EXAMPLE_ID.sub(rf"\g<1>{repo_id}", card)


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SchemaError(f"{path} is not JSON ({error}); write it again with `fedllm-data`") from error
    if not isinstance(content, dict):
        raise SchemaError(f"{path} must hold a JSON object; write it again with `fedllm-data`")
    return content


def _render(contents: CardContents, axes: list[dict[str, Any]]) -> str:
    facts = contents.facts
    environment = Environment(
        loader=PackageLoader("fedllm_data", "cards"),
        undefined=StrictUndefined,
        finalize=escape_markdown,
        keep_trailing_newline=False,
    )
    text = environment.get_template("dataset.md.jinja").render(
        facts=facts,
        front_matter=Markdown(front_matter(facts, contents.info)),
        is_preference=facts["task"] == "preference",
        num_clients=facts["clients"]["num_clients"],
        repo_id=Markdown(f"org/{re.sub(r'[^A-Za-z0-9._-]+', '-', facts['name'])}"),
        cohort_size=min(4, facts["splits"].get("train", {}).get("num_clients") or 1),
        splits=[
            {**facts["splits"][name], "name": name, "purpose": SPLIT_PURPOSES[name]}
            | ({"num_clients": "–"} if name == "public" else {})
            for name in _splits(facts)
        ],
        columns=[
            {
                "name": Markdown(field.name),
                "type": arrow_type_words(field),
                "meaning": Markdown(COLUMN_MEANINGS[field.name]),
            }
            for field in SCHEMAS[facts["task"]]
        ],
        counts=_counted(facts["counts"], COUNT_LABELS, zeros=True),
        split_counts=_counted(facts["split_counts"], SPLIT_COUNT_LABELS, zeros=False),
        reasons=[
            {"text": text, "num_rows": num_rows}
            for text, num_rows in [*facts["rejected_reasons"].items()][:_NUM_REASONS]
        ],
        changes=change_lines(facts["import"]) if facts.get("import") else [],
        split_rule=facts["split_rule"][:1].upper() + facts["split_rule"][1:] + ".",
        limits=_limits(facts),
        filters=filter_words(facts["filters"]),
        duplicates=duplicate_words(facts["counts"]),
        client_ids=client_id_words(facts["client_ids"]),
        language_facts=language_words(facts["languages"]),
        control=partition_words(facts["partition"]) if facts["partition"] else None,
        sizes=_sizes(facts),
        citation=Markdown(facts["citation"].replace("```", "'''").strip()),
        **_languages(facts),
        **_provenance(facts),
        axes=axes,
        has_page=contents.has_page,
        overview=_figure(contents, "overview"),
        confidence=f"{(contents.report or {}).get('config', {}).get('confidence', 0.95):.0%}",
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _splits(facts: Mapping[str, Any]) -> list[str]:
    return [split for split in SPLITS if split in facts["splits"]]


def _languages(facts: Mapping[str, Any]) -> dict[str, Any]:
    by_rows = list(facts["clients"]["num_rows_by_language"].items())
    shown = [{"name": name, "num_rows": num_rows} for name, num_rows in by_rows[:_NUM_LANGUAGES]]
    return {
        "languages": shown,
        "num_more_languages": len(by_rows) - len(shown),
        "has_undetermined": UNDETERMINED in dict(by_rows),
    }


def _provenance(facts: Mapping[str, Any]) -> dict[str, Any]:
    upstream, licence = facts["upstream"], facts["licence"]
    page = f"https://huggingface.co/datasets/{upstream}" if HUB_ID.fullmatch(upstream) else upstream
    command = build_command(facts)
    is_plain = command is not None and re.fullmatch(r"[\w ./=,:-]+", command) is not None
    return {
        "source": link(upstream, page),
        "licence": link(licence or "not stated", facts["licence_url"]),
        "obligation": obligation_words(licence),
        "rebuild": Markdown(command) if is_plain else None,
    }


def _sizes(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sizes from the literature, and ours below them."""
    known = [
        {name: "–" if size[name] is None else size[name] for name in ("of", "num_clients", "num_rows", "reference")}
        for size in facts["sizes"]
    ]
    num_rows = sum(split["num_rows"] for name, split in facts["splits"].items() if name != "public")
    here = {"num_clients": facts["clients"]["num_clients"], "num_rows": num_rows}
    return [*known, {"of": "this repo", **here, "reference": "build.json"}] if known else []


def _counted(counts: Mapping[str, int], labels: Mapping[str, str], *, zeros: bool) -> list[dict[str, Any]]:
    return [
        {"label": Markdown(labels.get(name, name.removeprefix("num_").replace("_", " "))), "number": number}
        for name, number in counts.items()
        if number or zeros
    ]


def _limits(facts: Mapping[str, Any]) -> list[str]:
    clients, by_language = facts["clients"], facts["clients"]["num_rows_by_language"]
    num_rows = sum(by_language.values())
    limits = []
    if facts["upstream"] == "generated":
        limits.append("The rows are generated: they show what a method does, not what people are like.")
    else:
        limits.append(
            "A client id hides a name and does not make anybody anonymous, for people can be known by what they "
            "write: do not try to find out who a client is."
        )
        limits.append(scrub_words(facts["scrubbed"]))
        limits.append(
            "The clients are artificial: they say what a method does when nobody stands behind a client."
            if facts["partition"]
            else "The clients are organisations: each holds the rows of the people that the source shows in it, and "
            "nothing here says that these organisations are alike to any others."
            if facts.get("organisations")
            else "The clients are those who left rows in the source: they are no sample of any population, and "
            "nothing here says how often they would take part in training."
        )
    if clients["num_clients"] and clients["median_rows"] < 10:
        limits.append(
            f"Half of the clients hold {clients['median_rows']:g} rows or fewer over all splits: figures of a single "
            "client are noisy."
        )
    undetermined = by_language.get(UNDETERMINED, 0)
    if undetermined:
        limits.append(f"The language of {undetermined:,} of {num_rows:,} rows is not determined.")
    main = max(by_language, key=by_language.__getitem__, default=UNDETERMINED)
    if main != UNDETERMINED and by_language[main] > 0.8 * num_rows:
        limits.append(f"One language, {main}, makes up more than four fifths of the rows.")
    return [*limits, *facts["limits"]]


def _axes(contents: CardContents, called: str) -> list[dict[str, Any]]:
    """What the heterogeneity section says of each axis: its finding, its figure and its measures, headline first."""
    try:
        return [
            {
                "name": name,
                "question": axis["question"],
                "verdict": axis["verdict"],
                "finding": f"{axis['sentence']} {axis['chance']}".strip(),
                "means": method_words(name, axis),
                "figure": _figure(contents, name),
                "headline": _measure(axis["measures"][axis["headline"]], axis["p_holm"]),
                "measures": [_measure(measure, measure["p"]) for measure in axis["measures"].values()],
            }
            for name, axis in (contents.report or {"axes": {}})["axes"].items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaError(
            f"{called}/heterogeneity.json lacks {error} for the card; run "
            f"`fedllm-data report {called} --out {called}` again"
        ) from error


def _figure(contents: CardContents, name: str) -> Markdown | None:
    return Markdown(f"figures/{name}.svg") if name in contents.figures else None


def _measure(measure: Mapping[str, Any], p: float | None) -> dict[str, Any]:
    """The cells of one line of the table; p is the one to show."""
    low, high = measure["low"], measure["high"]
    value = format_number(measure["value"]) if measure["reason"] is None else "not enough data"
    interval = "–" if low is None else f"{format_number(low)} to {format_number(high)}"
    return {
        "title": f"{measure['title']} ({measure['unit']})",
        "value": value,
        "interval": interval,
        "chance": format_chance(measure["null_mean"], measure["null_std"]),
        "p": format_number(p),
        "num_clients": measure["num_clients"],
    }
