"""What is different between two reports, in sentences: verdicts, and what the figures were measured with."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["listed", "measured_with", "tools_of", "verdict_changes"]


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
    beyond, within = "more than chance", "no more than chance"
    words = {
        (beyond, within): f"beyond chance in {names[0]} and within it in {names[1]}",
        (within, beyond): f"within chance in {names[0]} and beyond it in {names[1]}",
        (beyond, beyond): "beyond chance in both",
        (within, within): "within chance in both",
    }
    return [
        f"{_capital(listed(found[verdicts]))} {'is' if len(found[verdicts]) == 1 else 'are'} {said}."
        for verdicts, said in words.items()
        if verdicts in found
    ]


def measured_with(one: Mapping[str, Any], other: Mapping[str, Any], axes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return whether both reports rest on the same tools, and what follows where they do not.

    >>> measured_with({"config": {"codebook": "a"}}, {"config": {"codebook": "a"}}, {})
    'Both were measured with the same codebook, tokenizer and scorers.'
    """
    tools = tools_of(one), tools_of(other)
    if tools[0] == tools[1]:
        return "Both were measured with the same codebook, tokenizer and scorers."
    different = [part for part in tools[0] if tools[0][part] != tools[1][part]]
    refused = [name for name, axis in axes.items() if not axis["comparable"]]
    if not refused:
        return f"They were measured with a different {listed(different)}, on which no figure here rests."
    return (
        f"They were measured with a different {listed(different)}, so nothing is said of {listed(refused)}: make one"
        " of the reports again with `--codebook` and the codebook.json of the other."
    )


def listed(found: Sequence[str]) -> str:
    """Return words in a row.

    >>> listed(["length", "quality", "language"])
    'length, quality and language'
    """
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"


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
