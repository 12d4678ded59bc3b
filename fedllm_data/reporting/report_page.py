"""The heterogeneity report as one HTML page that needs no other file and loads nothing from anywhere.

The page is a function of heterogeneity.json and of the figures. Every text that comes from data (client ids,
languages, names) is escaped, and what would hide or turn text around is written out; the figures are inlined as drawn.
Without JavaScript it is one long page with the largest clients in its table.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.image import imsave

from fedllm_data.heterogeneity.axes import AXES
from fedllm_data.reporting.fact_lines import plain_facts
from fedllm_data.reporting.null_scale import headline_of, null_ruler
from fedllm_data.reporting.numbers import format_number
from fedllm_data.reporting.page_frame import Body, whole_page
from fedllm_data.reporting.report_words import title_of, visible
from fedllm_data.reporting.shared_figures import SharedFigures
from fedllm_data.reporting.similarity import SimilarityMap
from fedllm_data.reporting.table import clients_table, embedded_json
from fedllm_data.reporting.templates import page_environment
from fedllm_data.wording.catalogue import LANGUAGES, in_language, words
from fedllm_data.wording.forms import listed, percent
from fedllm_data.wording.recorded import again

__all__ = ["render_page"]

NUM_CLIENTS_WITHOUT_SCRIPT = 100


def render_page(
    document: Mapping[str, Any],
    figures: Mapping[str, str],
    similar: SimilarityMap | None,
    language: str | None = None,
) -> str:
    """Return the page.

    Args:
        document: the content of heterogeneity.json.
        figures: axis -> SVG text; an axis without enough data has none.
        similar: what `similarity_map` returns of the document.
        language: of the page; by default it speaks all, and the reader's browser chooses.
    """
    table = clients_table(document)
    mapped = _map(document, similar) if similar else None
    shown = [column for column in table["columns"] if column["key"] in ["client_id", *table["groups"]["overview"]]]
    shown.sort(key=lambda column: ["client_id", *table["groups"]["overview"]].index(column["key"]))
    first = range(min(NUM_CLIENTS_WITHOUT_SCRIPT, len(table["columns"][0]["values"])))
    drawings = SharedFigures({axis: svg for axis, svg in figures.items() if axis in document["axes"]})
    name = visible(document["name"])

    def body() -> Body:
        html = (
            page_environment()
            .get_template("page.html.jinja")
            .render(
                report=document,
                name=name,
                figures=drawings,
                drawn=lambda axis: Markup(drawings.figure(axis, again(document["axes"][axis]["sentence"]))),
                ruler=null_ruler([headline_of(axis) for axis in document["axes"].values()]),
                tiles=_tiles(document),
                map=mapped and mapped | {"sentence": _map_sentence(document, similar), "axes": _axis_names(similar)},
                first_columns=shown,
                first_rows=[[_shown(column, index) for column in shown] for index in first],
                table_sentence=_table_sentence(table),
                groups=list(table["groups"]),
                config=_config(document["config"]),
                confidence=percent(document["config"]["confidence"]).replace(" ", "\u00a0"),
            )
        )
        return Body(words("Heterogeneity of {name}", name=name), html)

    data = {key: table[key] for key in ("columns", "groups")} | {"map": mapped["hundredths"] if mapped else None}
    data["titles"] = _titles(table, language)
    environment = page_environment()
    return whole_page(
        body,
        language=language,
        shared=drawings.shared(),
        scripts=[
            f'<script type="application/json" id="data">{embedded_json(data)}</script>',
            f"<script>\n{environment.get_template('script.js.jinja').render()}\n</script>",
        ],
    )


def _titles(table: Mapping[str, Any], language: str | None) -> dict[str, dict[str, str]]:
    """Language -> key of a column -> its title."""
    found = {}
    for one in LANGUAGES if language is None else [language]:
        with in_language(one):
            found[one] = {column["key"]: again(column["title"]) for column in table["columns"]}
    return found


def _axis_names(similar: SimilarityMap | None) -> str:
    return listed([again(axis) for axis in similar.axes]) if similar else ""


def _map_sentence(document: Mapping[str, Any], similar: SimilarityMap | None) -> str:
    size, total = len(similar.position_S) if similar else 0, len(document["clients"]["client_id"])
    if size == total:
        return words("All clients.")
    return words("The {num} largest of {total} clients.", num=size, total=f"{total:,}")


def _config(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the report was computed with, beyond what the text says."""
    known = {"num_null", "num_bootstrap", "confidence", "correction"}
    lines: list[tuple[str, str]] = []
    for name, value in config.items():
        if name in known:
            continue
        if isinstance(value, Mapping):
            lines += [(f"{again(title_of(name))}: {label}", text) for label, text in plain_facts(value)]
        else:
            lines += plain_facts({name: value})
        if value == "unicode-words":
            lines[-1] = (
                lines[-1][0],
                words(
                    "{tokenizer}: runs of letters, marks and digits; one a letter in scripts written without spaces",
                    tokenizer=value,
                ),
            )
    return lines


def _tiles(document: Mapping[str, Any]) -> list[dict[str, str]]:
    axes, num_clients = document["axes"], document["num_clients"]
    what = words("preference pairs") if document["task"] == "preference" else words("conversations")
    tiles = [
        {"number": f"{num_clients:,}", "label": words("client") if num_clients == 1 else words("clients")},
        {"number": f"{document['num_rows']:,}", "label": what},
    ]
    for name, axis in AXES.items():
        facts = axes.get(name, {}).get("facts", {})
        for tile in axis.reading.tiles:
            if tile.fact in facts:
                spread = f" ± {format_number(facts[tile.spread])}" if tile.spread in facts else ""
                plural = "s" if not tile.spread and facts[tile.fact] != 1 else ""
                number = f"{format_number(facts[tile.fact])}{spread}"
                tiles.append({"number": number, "label": again(f"{tile.label}{plural}")})
    return tiles


def _shown(column: Mapping[str, Any], index: int) -> Any:
    value = column["values"][index]
    if column["kind"] == "text":
        return "–" if value < 0 else column["labels"][value]
    return value


def _table_sentence(table: Mapping[str, Any]) -> str:
    num_listed, num_clients = len(table["columns"][0]["values"]), table["num_clients"]
    if num_listed < num_clients:
        return words(
            "The {num} of {total} clients with the most rows, so that the page stays small;"
            " heterogeneity.json has all.",
            num=f"{num_listed:,}",
            total=f"{num_clients:,}",
        )
    if num_listed > NUM_CLIENTS_WITHOUT_SCRIPT:
        return words(
            "All {total} clients; without JavaScript, the {num} with the most rows.",
            total=f"{num_clients:,}",
            num=NUM_CLIENTS_WITHOUT_SCRIPT,
        )
    return words("All {total} clients.", total=f"{num_clients:,}") if num_clients > 1 else words("The one client.")


def _map(document: Mapping[str, Any], similar: SimilarityMap) -> dict[str, Any]:
    columns = document["clients"]
    size = len(similar.position_S)
    furthest = max(0.1, float(similar.distance_SS.max()))
    colours = matplotlib.colormaps["cividis"]
    picture = io.BytesIO()
    software: Any = {"Software": None}
    imsave(picture, colours(similar.distance_SS / furthest), format="png", metadata=software)
    shades: Sequence[Any] = [colours(share) for share in np.linspace(0, 1, 6)]
    return {
        "clients": [
            {"id": visible(str(columns["client_id"][index]), 40), "note": _note(columns, index)}
            for index in similar.position_S.tolist()
        ],
        "furthest": furthest,
        "cell": max(12, min(26, 480 // size)),
        "gradient": ", ".join(f"rgb({', '.join(str(round(255 * part)) for part in shade[:3])})" for shade in shades),
        "hundredths": np.rint(100 * similar.distance_SS).astype(int).tolist(),
        "image": Markup(f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"),
    }


def _note(columns: Mapping[str, Sequence[Any]], index: int) -> str:
    told = [columns[name][index] for name in ("main_language", "num_rows") if name in columns]
    parts = [visible(value, 12) if isinstance(value, str) else f"{value:,}" for value in told if value is not None]
    return ", ".join(parts)
