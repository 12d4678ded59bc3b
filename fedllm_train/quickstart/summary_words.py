"""The words of the quickstart's page that are made from numbers. None says more than its interval shows.

Every claim about better or worse comes from the outcome of `fedllm_eval.compare`: a difference counts as shown when
its 95 % interval excludes 0 and the sign-flip test agrees after correction. The claims are about the one run that the
page shows, not about another seed.
"""

from collections.abc import Mapping
from typing import Any

from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import minus, percent
from fedllm_eval.reporting.score_words import client_kind

__all__ = [
    "comparison_sentence",
    "difference_text",
    "headline",
    "plain_price",
    "plain_sentence",
    "price_sentence",
    "score_text",
    "stray_sentence",
    "unseen_sentence",
]

SFT_CLAIMS = {
    "better": marked("Federated SFT made the model better for these clients"),
    "undecided": marked("Federated SFT made no difference that these clients can show"),
    "worse": marked("Federated SFT made the model worse for these clients"),
}
DPO_CLAIMS = {
    "better": marked("federated DPO brought it closer to what they prefer"),
    "undecided": marked("whether federated DPO helped cannot be told"),
    "worse": marked("federated DPO took it further from what they prefer"),
}
PLAIN = {
    ("heldout_loss", "better"): marked(
        "After SFT, {better_off} of {clients} find the model better at answers like their own; {worse_off} find it"
        " worse."
    ),
    ("heldout_loss", "undecided"): marked(
        "After SFT, {better_off} of {clients} find the model better at answers like their own and {worse_off} worse:"
        " chance could explain it."
    ),
    ("heldout_loss", "worse"): marked(
        "After SFT, {worse_off} of {clients} find the model worse at answers like their own; {better_off} find it"
        " better."
    ),
    ("ranking_accuracy", "better"): marked(
        "After DPO, it agrees more often with the choices of {better_off} of {clients}, and less often with those of"
        " {worse_off}."
    ),
    ("ranking_accuracy", "undecided"): marked(
        "After DPO, it agrees more often with the choices of {better_off} of {clients} and less often with those of"
        " {worse_off}: chance could explain it."
    ),
    ("ranking_accuracy", "worse"): marked(
        "After DPO, it agrees less often with the choices of {worse_off} of {clients}, and more often with those of"
        " {better_off}."
    ),
}
"""Score and outcome -> what is said of it first, without a technical figure."""
UNSEEN = {
    ("better", "better"): marked("For {clients}, both help too."),
    ("undecided", "undecided"): marked("For {clients}, what either does cannot be told."),
    ("worse", "worse"): marked("For {clients}, both do harm."),
    ("better", "undecided"): marked("For {clients}, SFT helps too; what DPO does cannot be told."),
    ("better", "worse"): marked("For {clients}, SFT helps too; DPO does harm."),
    ("undecided", "better"): marked("For {clients}, what SFT does cannot be told; DPO helps too."),
    ("undecided", "worse"): marked("For {clients}, what SFT does cannot be told; DPO does harm."),
    ("worse", "better"): marked("For {clients}, SFT does harm; DPO helps too."),
    ("worse", "undecided"): marked("For {clients}, SFT does harm; what DPO does cannot be told."),
    ("better", None): marked("For {clients}, SFT helps too."),
    ("undecided", None): marked("For {clients}, what SFT does cannot be told."),
    ("worse", None): marked("For {clients}, SFT does harm."),
    (None, "better"): marked("For {clients}, DPO helps too."),
    (None, "undecided"): marked("For {clients}, what DPO does cannot be told."),
    (None, "worse"): marked("For {clients}, DPO does harm."),
}
"""Outcomes of SFT and DPO for clients that took no part."""
CHANGES = {
    ("heldout_loss", "better"): marked(
        "Their held-out loss fell from {before} to {after} nats per token ({change}); {share} of {clients} gain."
    ),
    ("heldout_loss", "undecided"): marked(
        "Their held-out loss went from {before} to {after} nats per token ({change}; chance could explain it); {share}"
        " of {clients} gain."
    ),
    ("heldout_loss", "worse"): marked(
        "Their held-out loss rose from {before} to {after} nats per token ({change}); {share} of {clients} gain."
    ),
    ("ranking_accuracy", "better"): marked(
        "The answer they preferred is more often the likelier one: {before} of pairs before, {after} after ({change});"
        " {share} of {clients} gain."
    ),
    ("ranking_accuracy", "undecided"): marked(
        "Whether the answer they preferred is more often the likelier one cannot be told: {before} of pairs before,"
        " {after} after ({change}; chance could explain it); {share} of {clients} gain."
    ),
    ("ranking_accuracy", "worse"): marked(
        "The answer they preferred is less often the likelier one: {before} of pairs before, {after} after ({change});"
        " {share} of {clients} gain."
    ),
}
"""Score and outcome -> the same with its figures."""


def headline(sft: str, dpo: str, strays: tuple[int, int] = (0, 0)) -> str:
    """Return the page's title from the outcomes (better, undecided, worse) of SFT and DPO on test clients.

    Args:
        sft: outcome of SFT against the base.
        dpo: outcome of DPO against SFT.
        strays: how many of the questions shown DPO answers, in part, in another language; and how many are shown.

    >>> headline("better", "better")
    'Federated SFT made the model better for these clients, and federated DPO brought it closer to what they prefer'
    >>> headline("better", "undecided")[53:]
    ', but whether federated DPO helped cannot be told'
    >>> headline("better", "better", (1, 6))[110:]
    '; yet 1 of the 6 answers shown below is partly in another language than its question'
    """
    places = {"sft": words(SFT_CLAIMS[sft]), "dpo": words(DPO_CLAIMS[dpo])}
    story = words("{sft}, and {dpo}", **places) if sft == dpo else words("{sft}, but {dpo}", **places)
    num, total = strays
    if not num:
        return story
    return plural_words(
        "{story}; yet {num} of the {total} answers shown below is partly in another language than its question",
        "{story}; yet {num} of the {total} answers shown below are partly in another language than their questions",
        num,
        story=story,
        total=total,
    )


def plain_sentence(item: Mapping[str, Any]) -> str:
    """Return a comparison in plain words, without a technical figure.

    >>> item = {"score": "heldout_loss", "outcome": "better", "num_clients": 40, "better_fraction": 0.9,
    ...     "worse_fraction": 0.1}
    >>> plain_sentence(item)
    'After SFT, 90 % of 40 clients find the model better at answers like their own; 10 % find it worse.'
    """
    return words(
        PLAIN[item["score"], item["outcome"]],
        better_off=percent(item["better_fraction"]),
        worse_off=percent(item["worse_fraction"]),
        clients=_clients(item["num_clients"]),
    )


def plain_price(item: Mapping[str, Any] | None) -> str:
    """Return in plain words that DPO cost held-out loss, or nothing where no cost is shown.

    >>> plain_price({"outcome": "worse"})
    'DPO has its price: the model became worse at answers like their own.'
    >>> plain_price(None)
    ''
    """
    if item is None or item["outcome"] != "worse":
        return ""
    return words("DPO has its price: the model became worse at answers like their own.")


def comparison_sentence(item: Mapping[str, Any]) -> str:
    """Return a comparison with its figures, its interval and number of clients.

    >>> item = {"score": "heldout_loss", "baseline_mean": 2.0, "other_mean": 1.5, "difference": -0.5, "ci_low": -0.6,
    ...     "ci_high": -0.4, "p_value": 0.001, "better_fraction": 0.9, "num_clients": 40, "outcome": "better"}
    >>> comparison_sentence(item)
    'Their held-out loss fell from 2.000 to 1.500 nats per token (−0.500 [−0.600, −0.400]); 90 % of 40 clients gain.'
    """
    name, outcome, clients = item["score"], item["outcome"], _clients(item["num_clients"])
    after = score_text(name, item["other_mean"])
    if outcome == "undecided" and item["ci_low"] == item["ci_high"] == 0:
        if name == "heldout_loss":
            return words("Their held-out loss stayed at {after} for all {clients}.", after=after, clients=clients)
        return words(
            "The preferred answer is the likelier in {after} of pairs, as before, for all {clients}.",
            after=after,
            clients=clients,
        )
    return words(
        CHANGES[name, outcome],
        before=score_text(name, item["baseline_mean"]),
        after=after,
        change=difference_text(item),
        share=percent(item["better_fraction"]),
        clients=clients,
    )


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
    return words(
        "DPO has its price: the held-out loss rises from {before} to {after} ({change}).",
        before=before,
        after=after,
        change=difference_text(item),
    )


def unseen_sentence(sft: Mapping[str, Any] | None, dpo: Mapping[str, Any] | None) -> str:
    """Return what holds for clients that took no part, or nothing where the dataset has none.

    >>> item = {"outcome": "better", "num_clients": 34}
    >>> unseen_sentence(item, item | {"outcome": "undecided"})
    'For 34 clients who took no part, SFT helps too; what DPO does cannot be told.'
    """
    outcomes = tuple(None if item is None else item["outcome"] for item in (sft, dpo))
    if outcomes == (None, None):
        return ""
    num = max(item["num_clients"] for item in (sft, dpo) if item is not None)
    return words(UNSEEN[outcomes], clients=client_kind("unseen", num))


def stray_sentence(policy: str, num: int, total: int) -> str:
    """Return how many answers of a policy are partly in another language, or nothing where none is.

    >>> stray_sentence("DPO", 4, 6), stray_sentence("SFT", 0, 6)
    ('DPO answers 4 of 6 questions at least partly in another language.', '')
    """
    if not num:
        return ""
    return words(
        "{policy} answers {num} of {total} questions at least partly in another language.",
        policy=policy,
        num=num,
        total=total,
    )


def _clients(num: int) -> str:
    return plural_words("{num} client", "{num} clients", num)


def score_text(name: str, value: float | None) -> str:
    """Return a score as the page shows it: accuracies as percentages, losses in nats.

    >>> score_text("ranking_accuracy", 0.5), score_text("heldout_loss", 0.5), score_text("heldout_loss", None)
    ('50.0 %', '0.500', '–')
    """
    if value is None:
        return "–"
    if name.endswith("accuracy"):
        return percent(value, 1)
    return minus(f"{value:.{3 if abs(value) < 10 else 2}f}")


def difference_text(item: Mapping[str, Any]) -> str:
    """Return a difference with its interval, in points of a percentage or in nats.

    >>> difference_text({"score": "ranking_accuracy", "difference": 0.1, "ci_low": None, "ci_high": None})
    '+10.0 points'
    """
    is_share = item["score"].endswith("accuracy")
    scale, digits = (100, 1) if is_share else (1, 3)

    def signed(value: float) -> str:
        return minus(f"{scale * value:+.{digits}f}")

    interval = "" if item["ci_low"] is None else f" [{signed(item['ci_low'])}, {signed(item['ci_high'])}]"
    change = signed(item["difference"])
    return (words("{number} points", number=change) if is_share else change) + interval
