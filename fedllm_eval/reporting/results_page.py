"""An evaluation as one HTML page that loads nothing: its finding in words, figures, every table, and how it was done.

Colours, sizes and dark mode are those of `fedllm_data`'s reports. All text is escaped by Jinja.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, PackageLoader

from fedllm_data.reporting.templates import page_environment
from fedllm_eval.reporting.all_sections import sections
from fedllm_eval.reporting.figures import gain_figures, score_figures
from fedllm_eval.reporting.table_section import all_notes, name_of, number, worst_tenth

if TYPE_CHECKING:
    from fedllm_eval.results import Results

__all__ = ["finding", "render_page"]

ALPHA = 0.05
FLAT_SETTINGS = ("dataset", "settings", "interval", "versions")


def render_page(results: "Results") -> str:
    """Return the page of an evaluation."""
    environment = page_environment()
    environment.loader = ChoiceLoader([PackageLoader("fedllm_eval", "reporting"), environment.loader])  # type: ignore[list-item]
    summary = results.summary
    return environment.get_template("results_page.html.jinja").render(
        summary=summary,
        title=Path(summary["policy"]["name"]).name,
        dataset=Path(summary["dataset"]["name"]).name,
        finding=finding(summary),
        tiles=_tiles(summary),
        score_figures=score_figures(results),
        gain_figures=gain_figures(results),
        sections=sections(summary),
        notes=all_notes(summary),
        settings=_settings(summary),
    )


def finding(summary: Mapping[str, Any]) -> str:
    """Return the whole finding in a few sentences: the headline score, and who gains over the base.

    >>> score = {"mean": 1.5, "ci_low": 1.0, "ci_high": 2.0, "num_clients": 9, "worst_decile": 2.5,
    ...          "unit": "nats per token"}
    >>> summary = {"policy": {"name": "a", "adapter_sha256": None}, "dataset": {"name": "d"},
    ...            "splits": {"test": {"scores": {"heldout_loss": score}}}}
    >>> finding(summary)[:60]
    'On 9 test clients heldout_loss is 1.5000 nats per token (95 '
    """
    if not summary["splits"]:
        return f"{', '.join(summary.get('suites', {}))}: no client's rows were scored, so nothing is said of clients."
    split, part = next(iter(summary["splits"].items()))
    name, score = next(iter(part["scores"].items()))
    within = (
        "" if score["ci_low"] is None else f" (95 % interval {number(score['ci_low'])} to {number(score['ci_high'])})"
    )
    sentences = [
        f"On {score['num_clients']:,} {split} clients {name} is {number(score['mean'])} {score['unit']}{within}; "
        f"{number(score['worst_decile'])} for the {worst_tenth(score['num_clients'])}."
    ]
    told = set()
    for item in summary.get("gains", []):
        pair = (item["policy"], item["against"])
        if item["split"] != split or pair in told:
            continue
        told.add(pair)
        ours, theirs = (name_of(label, summary) for label in pair)
        low, high = item["ci_low"], item["ci_high"]
        shown = low is not None and (low > 0 or high < 0) and item["p_holm"] is not None and item["p_holm"] < ALPHA
        which = "better" if item["gain"] > 0 else "worse"
        sentences.append(
            f"In {item['score']}, {ours}: {which} than {theirs} by {number(abs(item['gain']))} on average, and for "
            f"{item['better_off']:.0%} of {item['num_clients']:,} clients."
            if shown
            else f"In {item['score']}, {ours} and {theirs} cannot be told apart."
        )
    return " ".join(sentences[:4])


def _tiles(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    tiles = [
        (f"{part['num_clients']:,}", f"{split} clients, {part['num_rows']:,} rows")
        for split, part in summary["splits"].items()
    ]
    if tiles:
        tiles.append((str(1 + len(summary.get("policies", {}))), "policies scored alike"))
    if summary.get("suites"):
        tiles.append((str(len(summary["suites"])), "suite" + "s" * (len(summary["suites"]) != 1)))
    if summary.get("cost"):
        cost = summary["cost"]
        rounds = f"{cost['num_rounds']:,} round" + "s" * (cost["num_rounds"] != 1)
        tiles.append((f"{cost['total_mib']:,.1f} MiB", f"sent in {rounds}"))
    return tiles


def _settings(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [("policy", str(summary["policy"]["name"])), ("base", str(summary["policy"].get("base")))]
    if (digest := summary["policy"].get("adapter_sha256")) is not None:
        lines.append(("adapter, SHA-256", str(digest)))
    if summary["reference"] is not None:
        lines.append(("reference", str(summary["reference"]["name"])))
    for label, other in summary.get("policies", {}).items():
        lines.append((f"policy: {name_of(label, summary)}", str(other["policy"]["name"])))
    for group in FLAT_SETTINGS:
        lines += [(f"{group}: {name}", _plain(value)) for name, value in summary[group].items()]
    for suite, by_policy in summary.get("suites", {}).items():
        record = next(iter(by_policy.values()))
        said = "; ".join(f"{name} {_plain(value)}" for name, value in record["settings"].items())
        lines.append((f"suite {suite}", f"version {record['version']}; {said}"))
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "none" if value is None else str(value)
