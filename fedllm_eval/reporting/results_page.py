"""An evaluation as one HTML page that loads nothing: its finding in words, figures, every table, and how it was done.

Colours, sizes and dark mode are those of `fedllm_data`'s reports. All text is escaped by Jinja.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, PackageLoader

from fedllm_data.reporting.page_frame import Body, whole_page
from fedllm_data.reporting.templates import page_environment
from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import listed, percent
from fedllm_data.wording.forms import sentences as join_sentences
from fedllm_data.wording.recorded import again
from fedllm_eval.reporting.all_sections import sections
from fedllm_eval.reporting.figures import gain_figures, score_figures
from fedllm_eval.reporting.score_words import client_kind, score_name
from fedllm_eval.reporting.table_section import all_notes, name_of, number, worst_tenth
from fedllm_eval.scores import SCORES

if TYPE_CHECKING:
    from fedllm_eval.results import Results

__all__ = ["finding", "plain_finding", "render_page", "worst_named"]

ALPHA = 0.05
_SERVES_BETTER = marked(
    "{ours} serves clients better than {theirs}: {better_off} of {clients} gain, {worse_off} lose ({score})."
)
_SERVES_WORSE = marked(
    "{ours} serves clients worse than {theirs}: {worse_off} of {clients} lose, {better_off} gain ({score})."
)
_CANNOT_TELL = marked(
    "Whether {ours} serves clients better than {theirs} cannot be told from {clients}: {better_off} gain, {worse_off}"
    " lose ({score})."
)
FLAT_SETTINGS = ("dataset", "settings", "interval", "versions")


def render_page(results: "Results", language: str | None = None) -> str:
    """Return the page of an evaluation; by default it speaks all languages, and the browser chooses."""
    environment = page_environment()
    environment.loader = ChoiceLoader([PackageLoader("fedllm_eval", "reporting"), environment.loader])  # type: ignore[list-item]
    template = environment.get_template("results_page.html.jinja")
    summary = results.summary
    title, dataset = Path(summary["policy"]["name"]).name, Path(summary["dataset"]["name"]).name

    def body() -> Body:
        html = template.render(
            summary=summary,
            title=title,
            dataset=dataset,
            finding=finding(summary),
            plain=plain_finding(summary),
            worst=worst_named(summary),
            tiles=_tiles(summary),
            score_figures=score_figures(results),
            gain_figures=gain_figures(results),
            sections=sections(summary),
            notes=all_notes(summary),
            settings=_settings(summary),
            score_names=[(name, score_name(name), again(SCORES[name].summary)) for name in _scores_shown(summary)],
        )
        return Body(words("{policy} on {dataset}", policy=title, dataset=dataset), html)

    return whole_page(body, language=language, style=environment.get_template("results_page.css.jinja").render())


def plain_finding(summary: Mapping[str, Any]) -> list[str]:
    """Return the finding in plain words, without a technical figure: who was asked, who gains, what cannot be told.

    >>> score = {"mean": 1.5, "num_clients": 9}
    >>> summary = {"policy": {"adapter_sha256": None}, "splits": {"test": {"scores": {"heldout_loss": score}}}}
    >>> plain_finding(summary)[0]
    'Scored on rows that the model never trained on, client by client: 9 clients of the federation.'
    >>> plain_finding(summary)[1][:41]
    'Nothing was scored beside it, so the page'
    """
    if not summary["splits"]:
        return [_suites_alone(summary)]
    who = [
        client_kind(split, max(score["num_clients"] for score in part["scores"].values()))
        for split, part in summary["splits"].items()
        if part["scores"]
    ]
    told = [words("Scored on rows that the model never trained on, client by client: {clients}.", clients=listed(who))]
    if not who:
        return [words("No client was scored here: the scores are of the suites of questions below.")]
    compared = _headline_gains(summary)
    if not compared:
        told.append(
            words("Nothing was scored beside it, so the page cannot say whether clients gain; see the scores.")
        )
    for item in compared:
        ours, theirs = (name_of(item[key], summary) for key in ("policy", "against"))
        places = {"ours": ours, "theirs": theirs, "score": score_name(item["score"])}
        if not _is_shown(item):
            message = _CANNOT_TELL
        elif item["gain"] > 0:
            message = _SERVES_BETTER
        else:
            message = _SERVES_WORSE
        shares = {key: percent(item[key]) for key in ("better_off", "worse_off")}
        told.append(words(message, clients=client_kind(item["split"], item["num_clients"]), **places, **shares))
    return told


def _suites_alone(summary: Mapping[str, Any]) -> str:
    suites = listed(list(summary.get("suites", {})))
    return words("{suites}: no client's rows were scored, so nothing is said of clients.", suites=suites)


def worst_named(summary: Mapping[str, Any]) -> list[str]:
    """Return the names of the ten clients of the first split that are served worst; none where nobody may be named."""
    first = next(iter(summary.get("worst_served", [])), None)
    return [] if first is None else [str(client["client_id"]) for client in first["clients"]]


def _headline_gains(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The first score of every pair of policies, in the first split."""
    split = next(iter(summary["splits"]), None)
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for item in summary.get("gains", []):
        if item["split"] == split:
            found.setdefault((item["policy"], item["against"]), item)
    return list(found.values())[:4]


def _is_shown(item: Mapping[str, Any]) -> bool:
    low, high = item["ci_low"], item["ci_high"]
    return low is not None and (low > 0 or high < 0) and item["p_holm"] is not None and item["p_holm"] < ALPHA


def _scores_shown(summary: Mapping[str, Any]) -> list[str]:
    return [name for name in SCORES if any(name in part["scores"] for part in summary["splits"].values())]


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
        return _suites_alone(summary)
    split, part = next(iter(summary["splits"].items()))
    name, score = next(iter(part["scores"].items()))
    values = {
        "num": f"{score['num_clients']:,}",
        "split": split,
        "score": name,
        "value": number(score["mean"]),
        "unit": again(score["unit"]),
        "worst": number(score["worst_decile"]),
        "who": worst_tenth(score["num_clients"]),
    }
    if score["ci_low"] is None:
        sentences = [words("On {num} {split} clients {score} is {value} {unit}; {worst} for the {who}.", **values)]
    else:
        ends = {"low": number(score["ci_low"]), "high": number(score["ci_high"])}
        sentences = [
            words(
                "On {num} {split} clients {score} is {value} {unit} (95 % interval {low} to {high}); {worst} for the"
                " {who}.",
                **values,
                **ends,
            )
        ]
    for item in _headline_gains(summary):
        ours, theirs = (name_of(item[key], summary) for key in ("policy", "against"))
        if not _is_shown(item):
            message = marked("In {score}, {ours} and {theirs} cannot be told apart.")
        elif item["gain"] > 0:
            message = marked(
                "In {score}, {ours}: better than {theirs} by {value} on average, and for {share} of {num} clients."
            )
        else:
            message = marked(
                "In {score}, {ours}: worse than {theirs} by {value} on average, and for {share} of {num} clients."
            )
        sentences.append(
            words(
                message,
                score=item["score"],
                ours=ours,
                theirs=theirs,
                value=number(abs(item["gain"])),
                share=f"{item['better_off']:.0%}",
                num=f"{item['num_clients']:,}",
            )
        )
    return join_sentences(sentences[:4])


def _tiles(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    tiles = [
        (f"{part['num_clients']:,}", words("{split} clients, {rows} rows", split=split, rows=f"{part['num_rows']:,}"))
        for split, part in summary["splits"].items()
    ]
    if tiles:
        tiles.append((str(1 + len(summary.get("policies", {}))), words("policies scored alike")))
    if summary.get("suites"):
        num = len(summary["suites"])
        tiles.append((str(num), words("suite") if num == 1 else words("suites")))
    if summary.get("cost"):
        cost = summary["cost"]
        sent = plural_words("sent in {num} round", "sent in {num} rounds", cost["num_rounds"])
        tiles.append((f"{cost['total_mib']:,.1f} MiB", sent))
    return tiles


def _settings(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [(words("policy"), str(summary["policy"]["name"])), (words("base"), str(summary["policy"].get("base")))]
    if (digest := summary["policy"].get("adapter_sha256")) is not None:
        lines.append((words("adapter, SHA-256"), str(digest)))
    if summary["reference"] is not None:
        lines.append((words("reference"), str(summary["reference"]["name"])))
    for label, other in summary.get("policies", {}).items():
        lines.append((words("policy: {name}", name=name_of(label, summary)), str(other["policy"]["name"])))
    for group in FLAT_SETTINGS:
        lines += [(f"{group}: {name}", _plain(value)) for name, value in summary[group].items()]
    for suite, by_policy in summary.get("suites", {}).items():
        record = next(iter(by_policy.values()))
        said = "; ".join(f"{name} {_plain(value)}" for name, value in record["settings"].items())
        about = words("version {version}; {settings}", version=record["version"], settings=said)
        lines.append((words("suite {name}", name=suite), about))
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return words("none") if value is None else str(value)
