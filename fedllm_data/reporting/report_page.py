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
from fedllm_data.reporting.report_words import title_of, visible
from fedllm_data.reporting.similarity import SimilarityMap
from fedllm_data.reporting.style import inlined
from fedllm_data.reporting.table import clients_table, embedded_json
from fedllm_data.reporting.templates import page_environment

__all__ = ["render_page"]

NUM_CLIENTS_WITHOUT_SCRIPT = 100


def render_page(document: Mapping[str, Any], figures: Mapping[str, str], similar: SimilarityMap | None) -> str:
    """Return the page.

    Args:
        document: the content of heterogeneity.json.
        figures: axis -> SVG text; an axis without enough data has none.
        similar: what `similarity_map` returns of the document.
    """
    table = clients_table(document)
    mapped = _map(document, similar) if similar else None
    shown = [column for column in table["columns"] if column["key"] in ["client_id", *table["groups"]["overview"]]]
    shown.sort(key=lambda column: ["client_id", *table["groups"]["overview"]].index(column["key"]))
    first = range(min(NUM_CLIENTS_WITHOUT_SCRIPT, len(table["columns"][0]["values"])))
    data = {name: table[name] for name in ("columns", "groups")} | {"map": mapped["hundredths"] if mapped else None}
    return (
        page_environment()
        .get_template("page.html.jinja")
        .render(
            report=document,
            name=visible(document["name"]),
            figures={axis: Markup(inlined(svg)) for axis, svg in figures.items()},
            ruler=null_ruler([headline_of(axis) for axis in document["axes"].values()]),
            tiles=_tiles(document),
            map=mapped,
            first_columns=shown,
            first_rows=[[_shown(column, index) for column in shown] for index in first],
            table_sentence=_table_sentence(table),
            groups=list(table["groups"]),
            config=_config(document["config"]),
            confidence=f"{document['config']['confidence']:.0%}".replace("%", "\u00a0%"),
            data=Markup(embedded_json(data)),
        )
    )


def _config(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the report was computed with, beyond what the text says."""
    known = {"num_null", "num_bootstrap", "confidence", "correction"}
    lines: list[tuple[str, str]] = []
    for name, value in config.items():
        if name in known:
            continue
        if isinstance(value, Mapping):
            lines += [(f"{title_of(name)}: {label}", text) for label, text in plain_facts(value)]
        else:
            lines += plain_facts({name: value})
        if value == "unicode-words":
            lines[-1] = (
                lines[-1][0],
                f"{value}: runs of letters, marks and digits; one a letter in scripts written without spaces",
            )
    return lines


def _tiles(document: Mapping[str, Any]) -> list[dict[str, str]]:
    axes, num_clients = document["axes"], document["num_clients"]
    what = "preference pairs" if document["task"] == "preference" else "conversations"
    tiles = [
        {"number": f"{num_clients:,}", "label": "client" if num_clients == 1 else "clients"},
        {"number": f"{document['num_rows']:,}", "label": what},
    ]
    for name, axis in AXES.items():
        facts = axes.get(name, {}).get("facts", {})
        for tile in axis.reading.tiles:
            if tile.fact in facts:
                spread = f" ± {format_number(facts[tile.spread])}" if tile.spread in facts else ""
                plural = "s" if not tile.spread and facts[tile.fact] != 1 else ""
                number = f"{format_number(facts[tile.fact])}{spread}"
                tiles.append({"number": number, "label": f"{tile.label}{plural}"})
    return tiles


def _shown(column: Mapping[str, Any], index: int) -> Any:
    value = column["values"][index]
    if column["kind"] == "text":
        return "–" if value < 0 else column["labels"][value]
    return value


def _table_sentence(table: Mapping[str, Any]) -> str:
    listed, num_clients = len(table["columns"][0]["values"]), table["num_clients"]
    if listed < num_clients:
        return (
            f"The {listed:,} of {num_clients:,} clients with the most rows, so that the page stays small;"
            " heterogeneity.json has all."
        )
    if listed > NUM_CLIENTS_WITHOUT_SCRIPT:
        return f"All {num_clients:,} clients; without JavaScript, the {NUM_CLIENTS_WITHOUT_SCRIPT} with the most rows."
    return f"All {num_clients:,} clients." if num_clients > 1 else "The one client."


def _map(document: Mapping[str, Any], similar: SimilarityMap) -> dict[str, Any]:
    columns, num_clients = document["clients"], len(document["clients"]["client_id"])
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
        "axes": list(similar.axes),
        "sentence": "All clients." if size == num_clients else f"The {size} largest of {num_clients:,} clients.",
        "furthest": furthest,
        "cell": max(12, min(26, 480 // size)),
        "gradient": ", ".join(f"rgb({', '.join(str(round(255 * part)) for part in shade[:3])})" for shade in shades),
        "hundredths": np.rint(100 * similar.distance_SS).astype(int).tolist(),
        "image": Markup(f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"),
    }


def _note(columns: Mapping[str, Sequence[Any]], index: int) -> str:
    words = [columns[name][index] for name in ("main_language", "num_rows") if name in columns]
    parts = [visible(word, 12) if isinstance(word, str) else f"{word:,}" for word in words if word is not None]
    return ", ".join(parts)
