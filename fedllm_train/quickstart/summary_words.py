"""The words of the quickstart's page that are made from numbers. None says more than its interval shows.

Every claim about better or worse comes from the outcome of `fedllm_eval.compare`: a difference counts as shown when
its 95 % interval excludes 0 and the sign-flip test agrees after correction. The claims are about the one run that the
page shows, not about another seed.
"""

from collections.abc import Mapping
from typing import Any

__all__ = [
    "bytes_text",
    "comparison_sentence",
    "difference_text",
    "headline",
    "price_sentence",
    "score_text",
    "unseen_sentence",
]

SFT_CLAIMS = {
    "better": "federated SFT made the model better for these clients",
    "undecided": "federated SFT made no difference that these clients can show",
    "worse": "federated SFT made the model worse for these clients",
}
DPO_CLAIMS = {
    "better": "federated DPO brought it closer to what they prefer",
    "undecided": "whether federated DPO helped cannot be told",
    "worse": "federated DPO took it further from what they prefer",
}
BOTH_UNSEEN = {
    "better": "both help too",
    "undecided": "what either does cannot be told",
    "worse": "both do harm",
}
MINUS = "−"


def headline(sft: str, dpo: str) -> str:
    """Return the page's title from the outcomes (better, undecided, worse) of SFT and DPO on test clients.

    >>> headline("better", "better")
    'Federated SFT made the model better for these clients, and federated DPO brought it closer to what they prefer'
    >>> headline("better", "undecided")[53:]
    ', but whether federated DPO helped cannot be told'
    """
    joint = "and" if sft == dpo else "but"
    text = f"{SFT_CLAIMS[sft]}, {joint} {DPO_CLAIMS[dpo]}"
    return text[0].upper() + text[1:]


def comparison_sentence(item: Mapping[str, Any]) -> str:
    """Return a comparison in plain words, with its interval and number of clients.

    >>> item = {"score": "heldout_loss", "baseline_mean": 2.0, "other_mean": 1.5, "difference": -0.5, "ci_low": -0.6,
    ...     "ci_high": -0.4, "p_value": 0.001, "better_fraction": 0.9, "num_clients": 40, "outcome": "better"}
    >>> comparison_sentence(item)
    'Their held-out loss fell from 2.000 to 1.500 nats per token (−0.500 [−0.600, −0.400]); 90 % of 40 clients gain.'
    """
    name, outcome = item["score"], item["outcome"]
    clients = f"{item['num_clients']:,} client{'s' if item['num_clients'] != 1 else ''}"
    if outcome == "undecided" and item["ci_low"] == item["ci_high"] == 0:
        what = (
            "Their held-out loss stayed at {}"
            if name == "heldout_loss"
            else "The preferred answer is the likelier in {}"
        )
        tail = "" if name == "heldout_loss" else " of pairs, as before,"
        return f"{what.format(score_text(name, item['other_mean']))}{tail} for all {clients}."
    before, after = score_text(name, item["baseline_mean"]), score_text(name, item["other_mean"])
    if name == "heldout_loss":
        verb = {"better": "fell", "undecided": "went", "worse": "rose"}[outcome]
        change = f"Their held-out loss {verb} from {before} to {after} nats per token"
    else:
        change = {
            "better": "The answer they preferred is more often the likelier one",
            "undecided": "Whether the answer they preferred is more often the likelier one cannot be told",
            "worse": "The answer they preferred is less often the likelier one",
        }[outcome]
        change += f": {before} of pairs before, {after} after"
    chance = "; chance could explain it" if outcome == "undecided" else ""
    return f"{change} ({difference_text(item)}{chance}); {100 * item['better_fraction']:.0f} % of {clients} gain."


def price_sentence(item: Mapping[str, Any] | None) -> str:
    """Return what DPO cost in held-out loss, or nothing where no cost is shown.

    Args:
        item: the comparison of DPO's loss with SFT's.

    >>> item = {"score": "heldout_loss", "baseline_mean": 1.5, "other_mean": 1.75, "difference": 0.25, "ci_low": 0.2,
    ...     "ci_high": 0.3, "outcome": "worse"}
    >>> price_sentence(item)
    'DPO has its price: the held-out loss rises from 1.500 to 1.750 (+0.250 [+0.200, +0.300]).'
    >>> price_sentence(item | {"outcome": "undecided"})
    ''
    """
    if item is None or item["outcome"] != "worse":
        return ""
    before, after = (score_text(item["score"], item[key]) for key in ("baseline_mean", "other_mean"))
    return f"DPO has its price: the held-out loss rises from {before} to {after} ({difference_text(item)})."


def unseen_sentence(sft: Mapping[str, Any] | None, dpo: Mapping[str, Any] | None) -> str:
    """Return what holds for clients that took no part, or nothing where the dataset has none.

    >>> item = {"outcome": "better", "num_clients": 34}
    >>> unseen_sentence(item, item | {"outcome": "undecided"})
    'For 34 clients who took no part, SFT helps too; what DPO does cannot be told.'
    """
    outcomes = [item["outcome"] for item in (sft, dpo) if item is not None]
    words = {"better": "{} helps too", "undecided": "what {} does cannot be told", "worse": "{} does harm"}
    parts = [words[item["outcome"]].format(name) for name, item in (("SFT", sft), ("DPO", dpo)) if item is not None]
    if not parts:
        return ""
    if len(parts) == 2 and outcomes[0] == outcomes[1]:
        parts = [BOTH_UNSEEN[outcomes[0]]]
    counts = sorted({item["num_clients"] for item in (sft, dpo) if item is not None})
    who = f"{counts[-1]:,} clients" if counts[-1] > 1 else "the one client"
    return f"For {who} who took no part, {'; '.join(parts)}."


def score_text(name: str, value: float | None) -> str:
    """Return a score as the page shows it: accuracies as percentages, losses in nats.

    >>> score_text("ranking_accuracy", 0.5), score_text("heldout_loss", 0.5), score_text("heldout_loss", None)
    ('50.0 %', '0.500', '–')
    """
    if value is None:
        return "–"
    if name.endswith("accuracy"):
        return f"{100 * value:.1f} %"
    return f"{value:.{3 if abs(value) < 10 else 2}f}".replace("-", MINUS)


def difference_text(item: Mapping[str, Any]) -> str:
    """Return a difference with its interval, in points of a percentage or in nats.

    >>> difference_text({"score": "ranking_accuracy", "difference": 0.1, "ci_low": None, "ci_high": None})
    '+10.0 points'
    """
    scale, unit, digits = (100, " points", 1) if item["score"].endswith("accuracy") else (1, "", 3)

    def signed(value: float) -> str:
        return f"{scale * value:+.{digits}f}".replace("-", MINUS)

    interval = "" if item["ci_low"] is None else f" [{signed(item['ci_low'])}, {signed(item['ci_high'])}]"
    return f"{signed(item['difference'])}{unit}{interval}"


def bytes_text(num_bytes: float) -> str:
    """Return a size in the unit that fits, in powers of 1,000.

    >>> bytes_text(12), bytes_text(345_678), bytes_text(98_765_432)
    ('12 B', '346 kB', '98.8 MB')
    """
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if num_bytes >= 1000**power:
            size = num_bytes / 1000**power
            return f"{size:.3g} {unit}" if size < 100 else f"{size:,.0f} {unit}"
    return f"{num_bytes:.0f} B"
