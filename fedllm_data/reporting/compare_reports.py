"""Two reports side by side: natural clients beside an artificial partition of their rows, or two releases.

Chance alone lifts most figures, and lifts them more where clients are smaller, so two values are compared by what
exceeds their own null. Figures that rest on a tokenizer, a scorer or the rest of a codebook are compared only where
both reports used the same.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedllm_data.errors import ReportError
from fedllm_data.heterogeneity.axes import AXES
from fedllm_data.heterogeneity.axis import Reading
from fedllm_data.in_place import write_file
from fedllm_data.reporting.comparison_words import (
    comparison_summary,
    finding_sentence,
    measured_with,
    relation_sentence,
    tools_of,
    verdict_changes,
)
from fedllm_data.reporting.null_scale import null_ruler
from fedllm_data.reporting.page_frame import Body, whole_page
from fedllm_data.reporting.report_words import visible
from fedllm_data.reporting.templates import page_environment
from fedllm_data.wording.catalogue import marked, words

__all__ = ["compare_reports", "render_comparison", "write_comparison"]

COMPARISON_VERSION = 1
_STYLE = """
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 50%; background: var(--accent);
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }
.swatch.other { background: var(--second); border-radius: 1px; }
.measures th:nth-child(n) { width: 15%; }
.measures th:nth-child(1) { width: 40%; }
"""
_DIFFERENT = {
    "tokenizer": marked("not compared: measured with different tokenizers, {one} and {other}"),
    "codebook": marked("not compared: measured with different codebooks, {one} and {other}"),
    "scorers": marked("not compared: measured with different scorers, {one} and {other}"),
}
_ESTIMATE = ("value", "null_mean", "null_std", "z", "p", "low", "high", "num_clients", "reason", "unequal")


def compare_reports(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return both reports' figures axis by axis, with a sentence on each.

    Args:
        one: the content of a heterogeneity.json, say of natural clients.
        other: that of another, say of an artificial partition of the same rows.

    Returns:
        `one` and `other`: what each report is of; `about`: how the two are related; `summary`; `changes`: sentences on
        what became of the verdicts and on what the figures were measured with; and `axes`: name ->
        `question`, `sentence`, `comparable`, `reason`, `kept` (which part of what exceeds chance in `one` is there in
        `other`), `verdicts` and `measures`: key -> title, unit, meaning and both estimates.

    Raises:
        ReportError: if the two share no axis.

    >>> compare_reports({"name": "a", "axes": {}}, {"name": "b", "axes": {}})
    Traceback (most recent call last):
    fedllm_data.errors.ReportError: the reports of a and b share no axis: compare reports of one kind and release
    """
    shared = [name for name in one["axes"] if name in other["axes"]]
    if not shared:
        raise ReportError(
            f"the reports of {visible(one['name'])} and {visible(other['name'])} share no axis: compare reports of"
            " one kind and release"
        )
    names = _names(one, other)
    axes = {name: _axis(name, one, other, names) for name in shared}
    sides = _about(one, names[0]), _about(other, names[1])
    return {
        "version": COMPARISON_VERSION,
        "one": sides[0],
        "other": sides[1],
        "about": relation_sentence(*sides),
        "summary": comparison_summary(axes, names),
        "changes": [
            *verdict_changes(axes, names),
            measured_with(_about(one, names[0]), _about(other, names[1]), axes),
        ],
        "only_in_one": [name for name in one["axes"] if name not in other["axes"]],
        "only_in_other": [name for name in other["axes"] if name not in one["axes"]],
        "axes": axes,
    }


def write_comparison(one: str | Path, other: str | Path, out: Path, *, language: str | None = None) -> dict[str, Any]:
    """Write `comparison.json` and `comparison.html` of two reports into a folder.

    Args:
        one: a folder with a heterogeneity.json (a report or a client repo with one), or the file itself.
        other: the same, of the clients to set beside them.
        out: folder for the two files; it is made where it is missing.
        language: of the page, `en` or `ja`; by default it carries both.

    Returns:
        What `compare_reports` returns.

    Raises:
        ReportError: if there is no report in one of the places, it cannot be read, or the two share no axis.

    >>> write_comparison("no-such-folder", "other", Path("out"))
    Traceback (most recent call last):
    fedllm_data.errors.ReportError: no-such-folder holds no heterogeneity.json: make it with `fedllm-data report ...`
    """
    if out.exists() and not out.is_dir():
        raise ReportError(f"{out} is a file: give a folder for the comparison")
    comparison = compare_reports(_read(one), _read(other))
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(comparison, ensure_ascii=False, allow_nan=False, indent=2)
    write_file(out / "comparison.json", f"{text}\n")
    write_file(out / "comparison.html", render_comparison(comparison, language))
    return comparison


def render_comparison(comparison: Mapping[str, Any], language: str | None = None) -> str:
    """Return the comparison as one HTML page that loads nothing; by default it speaks all languages."""
    axes, one, other = (comparison[name] for name in ("axes", "one", "other"))
    headlines = [
        axis["measures"][axis["headline"]][side]
        for axis in axes.values()
        if axis["comparable"]
        for side in ("one", "other")
    ]
    names = one["name"], other["name"]
    template = page_environment().get_template("compare.html.jinja")

    def body() -> Body:
        html = template.render(
            comparison=comparison,
            ruler=null_ruler(headlines),
            summary=comparison_summary(axes, names),
            about=relation_sentence(one, other),
            changes=[*verdict_changes(axes, names), measured_with(one, other, axes)],
            findings={name: finding_sentence(axis, names) for name, axis in axes.items()},
        )
        return Body(words("{one} beside {other}", one=names[0], other=names[1]), html)

    return whole_page(body, language=language, style=_STYLE)


def _read(place: str | Path) -> dict[str, Any]:
    path = Path(place)
    if path.is_dir() or path.suffix != ".json":
        path = path / "heterogeneity.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ReportError(
            f"{path.parent} holds no {path.name}: make it with `fedllm-data report {path.parent} --out {path.parent}`"
        ) from error
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read as JSON ({error}): make the report again") from error
    if not isinstance(document, dict) or not {"name", "axes", "config", "num_rows", "num_clients"} <= set(document):
        raise ReportError(f"{path} is no heterogeneity report: give the heterogeneity.json of `fedllm-data report`")
    partition = _read_partition(path.with_name("build.json"))
    return document | ({"partition": partition} if partition else {})


def _read_partition(path: Path) -> str | None:
    """The rule by which the clients beside a report were made; None for natural ones or where nothing says so."""
    try:
        partition = json.loads(path.read_text(encoding="utf-8"))["partition"]
        settings = {**partition.get("parameters", {}), "seed": partition.get("seed")}
        said = [f"{name.replace('_', ' ')} {value}" for name, value in settings.items() if value is not None]
        return ", ".join([str(partition["rule"]), *said])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _names(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str]:
    names = []
    for report in (one, other):
        rule = str(report.get("partition") or "").partition(",")[0]
        names.append(visible(report["name"]) + (f" ({visible(rule)})" if rule else ""))
    if names[0] == names[1]:
        revisions = [str(report.get("revision") or "")[:12] for report in (one, other)]
        marks = revisions if revisions[0] != revisions[1] and all(revisions) else ["1", "2"]
        names = [f"{name} ({mark})" for name, mark in zip(names, marks, strict=True)]
    return names[0], names[1]


def _about(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    kept = ("revision", "task", "splits", "num_clients", "num_rows", "summary", "partition")
    return {"name": name, **{key: report.get(key) for key in kept}, "tools": tools_of(report)}


def _refusal(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Why two reports cannot be compared on an axis."""
    tools = tools_of(one), tools_of(other)
    reading = AXES[name].reading if name in AXES else Reading()
    for part in reading.rests_on:
        if tools[0][part] != tools[1][part]:
            used = [visible(json.dumps(tool[part], ensure_ascii=False), 60) for tool in tools]
            return words(_DIFFERENT[part], one=used[0], other=used[1])
    return None


def _axis(name: str, one: Mapping[str, Any], other: Mapping[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    left, right = one["axes"][name], other["axes"][name]
    headline = left["headline"]
    shared = [key for key in left["measures"] if key in right["measures"]]
    refusal = _refusal(name, one, other)
    if refusal is None and (headline != right["headline"] or headline not in shared):
        refusal = words("not compared: the two releases stand for this axis by different measures")
    measures = {
        key: {
            **{part: left["measures"][key][part] for part in ("title", "unit", "meaning")},
            **{
                side: {part: axis["measures"][key].get(part) for part in _ESTIMATE}
                for side, axis in (("one", left), ("other", right))
            },
        }
        for key in (shared if refusal is None else [])
    }
    axis = {
        "question": left["question"],
        "headline": headline,
        "comparable": refusal is None,
        "reason": refusal,
        "verdicts": {"one": left["verdict"], "other": right["verdict"]},
        "measures": measures,
    }
    found = _finding(axis) if refusal is None else {"more": None, "kept": None}
    return axis | found | {"sentence": finding_sentence(axis | found, names)}


def _finding(axis: Mapping[str, Any]) -> dict[str, Any]:
    """Which side differs more on the headline: the ranges of what exceeds chance lie apart, or they do not."""
    measure = axis["measures"][axis["headline"]]
    sides = [measure["one"], measure["other"]]
    excess, other_excess = (_excess(side, side["value"]) for side in sides)
    if excess is None or other_excess is None:
        return {"more": None, "kept": None}
    is_beyond = axis["verdicts"]["one"] == "more than chance" and excess > 0
    return {"more": _apart(sides), "kept": other_excess / excess if is_beyond else None}


def _excess(side: Mapping[str, Any], value: float | None) -> float | None:
    """What exceeds the mean of the null, positive where clients differ more."""
    if value is None or side["null_mean"] is None:
        return None
    excess = value - float(side["null_mean"])
    return -excess if side["unequal"] == "low" else excess


def _apart(sides: Sequence[Mapping[str, Any]]) -> str | None:
    ranges = []
    for side in sides:
        ends = [_excess(side, side[end]) for end in ("low", "high")]
        known = sorted(end for end in ends if end is not None)
        if len(known) < 2:
            return None
        ranges.append(known)
    if ranges[0][0] > ranges[1][1]:
        return "one"
    return "other" if ranges[1][0] > ranges[0][1] else None
