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
from fedllm_data.reporting.comparison_words import listed, measured_with, tools_of, verdict_changes
from fedllm_data.reporting.null_scale import null_ruler
from fedllm_data.reporting.numbers import format_number
from fedllm_data.reporting.report_words import VERDICT_WORDS, visible
from fedllm_data.reporting.templates import page_environment

__all__ = ["compare_reports", "render_comparison", "write_comparison"]

COMPARISON_VERSION = 1
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
    return {
        "version": COMPARISON_VERSION,
        "one": _about(one, names[0]),
        "other": _about(other, names[1]),
        "about": _relation(one, other, names),
        "summary": _summary(axes, names),
        "changes": [*verdict_changes(axes, names), measured_with(one, other, axes)],
        "only_in_one": [name for name in one["axes"] if name not in other["axes"]],
        "only_in_other": [name for name in other["axes"] if name not in one["axes"]],
        "axes": axes,
    }


def write_comparison(one: str | Path, other: str | Path, out: Path) -> dict[str, Any]:
    """Write `comparison.json` and `comparison.html` of two reports into a folder.

    Args:
        one: a folder with a heterogeneity.json (a report or a client repo with one), or the file itself.
        other: the same, of the clients to set beside them.
        out: folder for the two files; it is made where it is missing.

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
    write_file(out / "comparison.html", render_comparison(comparison))
    return comparison


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """Return the comparison as one HTML page that loads nothing."""
    headlines = [
        axis["measures"][axis["headline"]][side]
        for axis in comparison["axes"].values()
        if axis["comparable"]
        for side in ("one", "other")
    ]
    environment = page_environment()
    environment.filters["visible"] = visible
    template = environment.get_template("compare.html.jinja")
    return template.render(comparison=comparison, ruler=null_ruler(headlines))


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
        names.append(visible(report["name"]) + (f" ({visible(rule)} clients)" if rule else ""))
    if names[0] == names[1]:
        revisions = [str(report.get("revision") or "")[:12] for report in (one, other)]
        marks = revisions if revisions[0] != revisions[1] and all(revisions) else ["first", "second"]
        names = [f"{name} ({mark})" for name, mark in zip(names, marks, strict=True)]
    return names[0], names[1]


def _about(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    kept = ("revision", "task", "splits", "num_clients", "num_rows", "summary", "partition")
    return {"name": name, **{key: report.get(key) for key in kept}, "tools": tools_of(report)}


def _relation(one: Mapping[str, Any], other: Mapping[str, Any], names: tuple[str, str]) -> str:
    same_rows = one["num_rows"] == other["num_rows"]
    rows = f"{one['num_rows']:,} rows each" if same_rows else f"{one['num_rows']:,} and {other['num_rows']:,} rows"
    clients = f"{one['num_clients']:,} and {other['num_clients']:,} clients"
    if bool(one.get("partition")) != bool(other.get("partition")):
        natural, made = names if other.get("partition") else names[::-1]
        rule = visible(str(other.get("partition") or one.get("partition")))
        kind = (
            f"{made} holds artificial clients, dealt out by the rule {rule}: beside {natural}, it shows what becomes"
            " of a figure when nobody stands behind a client"
        )
        return f"{kind}. They hold {rows}, in {clients}."
    return f"{names[0]} and {names[1]} hold {rows}, in {clients}."


def _refusal(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Why two reports cannot be compared on an axis."""
    tools = tools_of(one), tools_of(other)
    reading = AXES[name].reading if name in AXES else Reading()
    for part in reading.rests_on:
        if tools[0][part] != tools[1][part]:
            words = [visible(json.dumps(tool[part], ensure_ascii=False), 60) for tool in tools]
            return f"not compared: measured with different {part}s, {words[0]} and {words[1]}".replace("ss,", "s,")
    return None


def _axis(name: str, one: Mapping[str, Any], other: Mapping[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    left, right = one["axes"][name], other["axes"][name]
    headline = left["headline"]
    shared = [key for key in left["measures"] if key in right["measures"]]
    refusal = _refusal(name, one, other)
    if refusal is None and (headline != right["headline"] or headline not in shared):
        refusal = "not compared: the two releases stand for this axis by different measures"
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
    finding = _finding(axis, names) if refusal is None else {"more": None, "kept": None, "sentence": f"{refusal}."}
    sentence = str(finding["sentence"])
    return axis | finding | {"sentence": sentence[0].upper() + sentence[1:]}


def _finding(axis: Mapping[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """Which side differs more on the headline: the ranges of what exceeds chance lie apart, or they do not."""
    measure = axis["measures"][axis["headline"]]
    sides = [measure["one"], measure["other"]]
    for side, name in zip(sides, names, strict=True):
        if side["value"] is None:
            return {"more": None, "kept": None, "sentence": f"{name}: {side['reason'] or 'not enough data'}."}
    said = "; ".join(
        f"{name}: {format_number(side['value'])}{_range(side)}, {VERDICT_WORDS[verdict]}"
        for name, side, verdict in zip(names, sides, axis["verdicts"].values(), strict=True)
    )
    excess, other_excess = (_excess(side, side["value"]) for side in sides)
    if excess is None or other_excess is None:
        return {"more": None, "kept": None, "sentence": f"{measure['title']} ({measure['unit']}). {said}."}
    more = _apart(sides)
    if more is not None:
        words = f" Beyond its own chance, {names[0 if more == 'one' else 1]} differs more: the intervals lie apart."
    elif any(side["low"] is None for side in sides):
        words = " There is no interval on one side, so nothing is said about which differs more."
    else:
        words = " Beyond chance, the intervals overlap: no difference between the two is shown."
    kept = None
    if axis["verdicts"]["one"] == "more than chance" and excess > 0:
        kept = other_excess / excess
        words += f" {names[1]} has {max(0.0, kept):.0%} of what exceeds chance in {names[0]}."
    return {"more": more, "kept": kept, "sentence": f"{measure['title']} ({measure['unit']}). {said}.{words}"}


def _range(side: Mapping[str, Any]) -> str:
    return "" if side["low"] is None else f" ({format_number(side['low'])} to {format_number(side['high'])})"


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


def _summary(axes: Mapping[str, Mapping[str, Any]], names: tuple[str, str]) -> str:
    parts = []
    for more, name in (("one", names[0]), ("other", names[1])):
        found = [axis for axis, content in axes.items() if content["more"] == more]
        if found:
            parts.append(f"the clients of {name} differ more in {listed(found)}")
    neither = [axis for axis, content in axes.items() if content["comparable"] and content["more"] is None]
    if neither:
        parts.append(f"no difference between the two is shown in {listed(neither)}")
    refused = [axis for axis, content in axes.items() if not content["comparable"]]
    if refused:
        parts.append(f"{listed(refused)} cannot be compared")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
