"""What is different between two reports, in sentences: verdicts, and what the figures were measured with."""

from collections.abc import Mapping
from typing import Any

from fedllm_data.reporting.numbers import format_number
from fedllm_data.reporting.report_words import VERDICT_WORDS, visible
from fedllm_data.wording.catalogue import marked, words
from fedllm_data.wording.forms import interval_text, listed, percent, sentences
from fedllm_data.wording.recorded import again

__all__ = [
    "comparison_summary",
    "finding_sentence",
    "measured_with",
    "relation_sentence",
    "tools_of",
    "verdict_changes",
]

_BEYOND, _WITHIN = "more than chance", "no more than chance"
_CHANGES = {
    (_BEYOND, _WITHIN): (
        marked("{axes} is beyond chance in {one} and within it in {other}."),
        marked("{axes} are beyond chance in {one} and within it in {other}."),
    ),
    (_WITHIN, _BEYOND): (
        marked("{axes} is within chance in {one} and beyond it in {other}."),
        marked("{axes} are within chance in {one} and beyond it in {other}."),
    ),
    (_BEYOND, _BEYOND): (marked("{axes} is beyond chance in both."), marked("{axes} are beyond chance in both.")),
    (_WITHIN, _WITHIN): (marked("{axes} is within chance in both."), marked("{axes} are within chance in both.")),
}
"""Verdicts of both sides -> what is said of one axis, and of several."""
_MADE_SAME_ROWS = marked(
    "{made} holds artificial clients, dealt out by the rule {rule}: beside {natural}, it shows what becomes of a"
    " figure when nobody stands behind a client. They hold {a} rows each, in {c} and {d} clients."
)
_MADE_OTHER_ROWS = marked(
    "{made} holds artificial clients, dealt out by the rule {rule}: beside {natural}, it shows what becomes of a"
    " figure when nobody stands behind a client. They hold {a} and {b} rows, in {c} and {d} clients."
)


def verdict_changes(axes: Mapping[str, Mapping[str, Any]], names: tuple[str, str]) -> list[str]:
    """Return which axes are beyond chance on one side, on both or on neither, among those that can be compared.

    Args:
        axes: name -> `comparable` and the `verdicts` of both sides.
        names: what the two reports are called.

    >>> axis = {"comparable": True, "verdicts": {"one": "more than chance", "other": "no more than chance"}}
    >>> verdict_changes({"length": axis}, ("a", "b"))
    ['Length is beyond chance in a and within it in b.']
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name, axis in axes.items():
        if axis["comparable"]:
            found.setdefault((axis["verdicts"]["one"], axis["verdicts"]["other"]), []).append(name)
    return [
        _capital(words(message, axes=listed([again(name) for name in found[verdicts]]), one=names[0], other=names[1]))
        for verdicts, messages in _CHANGES.items()
        if verdicts in found
        for message in [messages[len(found[verdicts]) > 1]]
    ]


def measured_with(one: Mapping[str, Any], other: Mapping[str, Any], axes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return whether both reports rest on the same tools, and what follows where they do not.

    Args:
        one: what a comparison says of the first report; its `tools` count.
        other: the same of the second.
        axes: name -> whether it is `comparable`.

    >>> measured_with({"tools": {"codebook": "a"}}, {"tools": {"codebook": "a"}}, {})
    'Both were measured with the same codebook, tokenizer and scorers.'
    """
    tools = one["tools"], other["tools"]
    if tools[0] == tools[1]:
        return words("Both were measured with the same codebook, tokenizer and scorers.")
    different = listed([again(part) for part in tools[0] if tools[0][part] != tools[1][part]])
    refused = [again(name) for name, axis in axes.items() if not axis["comparable"]]
    if not refused:
        return words("They were measured with a different {tools}, on which no figure here rests.", tools=different)
    return words(
        "They were measured with a different {tools}, so nothing is said of {axes}: make one of the reports again with"
        " `--codebook` and the codebook.json of the other.",
        tools=different,
        axes=listed(refused),
    )


def relation_sentence(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return how the two are related: their rows and clients, and whether one is an artificial partition.

    Args:
        one: what a comparison says of the first report: `name`, `num_rows`, `num_clients`, `partition`.
        other: the same of the second.

    >>> about = {"num_rows": 90, "num_clients": 3, "partition": None}
    >>> relation_sentence(about | {"name": "a"}, about | {"name": "b", "num_clients": 1200})
    'a and b hold 90 rows each, in 3 and 1,200 clients.'
    """
    counts = {
        key: f"{side[name]:,}"
        for side, keys in ((one, "ac"), (other, "bd"))
        for key, name in zip(keys, ("num_rows", "num_clients"), strict=True)
    }
    is_same = one["num_rows"] == other["num_rows"]
    if bool(one.get("partition")) != bool(other.get("partition")):
        natural, made = (one, other) if other.get("partition") else (other, one)
        message = _MADE_SAME_ROWS if is_same else _MADE_OTHER_ROWS
        return words(
            message, made=made["name"], natural=natural["name"], rule=visible(str(made["partition"])), **counts
        )
    if is_same:
        return words(
            "{one} and {other} hold {a} rows each, in {c} and {d} clients.",
            one=one["name"],
            other=other["name"],
            **counts,
        )
    return words(
        "{one} and {other} hold {a} and {b} rows, in {c} and {d} clients.",
        one=one["name"],
        other=other["name"],
        **counts,
    )


def finding_sentence(axis: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Return what the comparison shows on an axis.

    Args:
        axis: `headline`, `measures`, `verdicts`, `comparable`, `reason`, `more` and `kept`, as a comparison holds it.
        names: what the two reports are called.

    >>> finding_sentence({"comparable": False, "reason": "not compared: too old"}, ("a", "b"))
    'Not compared: too old.'
    """
    if not axis["comparable"]:
        return _capital(words("{reason}.", reason=again(axis["reason"])))
    measure = axis["measures"][axis["headline"]]
    sides = [measure["one"], measure["other"]]
    for side, name in zip(sides, names, strict=True):
        if side["value"] is None:
            reason = again(side["reason"] or "not enough data")
            return words("{name}: {reason}.", name=_capital(name), reason=reason)
    said = [
        words(
            "{name}: {found}, {verdict}",
            name=name,
            found=_value_with_range(side),
            verdict=words(VERDICT_WORDS[verdict]),
        )
        for name, side, verdict in zip(names, sides, axis["verdicts"].values(), strict=True)
    ]
    title = _capital(again(measure["title"]))
    parts = [
        words("{title} ({unit}).", title=title, unit=again(measure["unit"])),
        words("{one}; {other}.", one=said[0], other=said[1]),
    ]
    if all(side["null_mean"] is not None for side in sides):
        if axis["more"] is not None:
            more = names[0 if axis["more"] == "one" else 1]
            parts.append(words("Beyond its own chance, {name} differs more: the intervals lie apart.", name=more))
        elif any(side["low"] is None for side in sides):
            parts.append(words("There is no interval on one side, so nothing is said about which differs more."))
        else:
            parts.append(words("Beyond chance, the intervals overlap: no difference between the two is shown."))
    if axis["kept"] is not None:
        kept = percent(max(0.0, axis["kept"])).replace(" ", "")
        parts.append(
            words("{other} has {kept} of what exceeds chance in {one}.", other=names[1], kept=kept, one=names[0])
        )
    return sentences(parts)


def comparison_summary(axes: Mapping[str, Mapping[str, Any]], names: tuple[str, str]) -> str:
    """Return on which axes which side differs more, in one sentence.

    >>> comparison_summary({"length": {"more": "one", "comparable": True}}, ("a", "b"))
    'The clients of a differ more in length.'
    """
    parts = []
    for more, name in (("one", names[0]), ("other", names[1])):
        found = [again(axis) for axis, content in axes.items() if content["more"] == more]
        if found:
            parts.append(words("the clients of {name} differ more in {axes}", name=name, axes=listed(found)))
    neither = [again(axis) for axis, content in axes.items() if content["comparable"] and content["more"] is None]
    if neither:
        parts.append(words("no difference between the two is shown in {axes}", axes=listed(neither)))
    refused = [again(axis) for axis, content in axes.items() if not content["comparable"]]
    if refused:
        parts.append(words("{axes} cannot be compared", axes=listed(refused)))
    return _capital(words("{clauses}.", clauses=words("; ").join(parts)))


def _value_with_range(side: Mapping[str, Any]) -> str:
    value = format_number(side["value"])
    if side["low"] is None:
        return value
    return words(
        "{value} ({range})",
        value=value,
        range=interval_text(format_number(side["low"]), format_number(side["high"])),
    )


def tools_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the figures of a report were measured with.

    >>> tools_of({"config": {"codebook": "a1", "tokenizer": "words"}})
    {'codebook': 'a1', 'tokenizer': 'words', 'scorers': 'a1'}
    """
    config = report.get("config", {})
    codebook = config.get("codebook")
    parts = codebook if isinstance(codebook, Mapping) else {}
    whole = parts.get("digest", codebook)
    return {
        "codebook": whole,
        "tokenizer": config.get("tokenizer", parts.get("tokenizer")),
        # Scorers that are not listed apart stand or fall with the codebook.
        "scorers": config.get("scorers", parts.get("scorers", whole)),
    }


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
