"""The rules of a recommendation in whole sentences: what each asked, how it came out, and what would settle it."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import listed, percent, sentences
from fedllm_eval.deciding.deciding_rules import Rule
from fedllm_eval.reporting.score_words import score_name

__all__ = ["OUTCOME_NAMES", "RULE_NAMES", "VERDICTS", "reasons", "rule_sentence"]

VERDICTS = {
    "release": marked("Release it"),
    "do_not_release": marked("Do not release it"),
    "collect_more": marked("Collect more before you decide"),
}
OUTCOME_NAMES = {
    "holds": marked("speaks for it"),
    "fails": marked("speaks against it"),
    "open": marked("still open"),
    "doubt": marked("a doubt"),
    "unknown": marked("not measured"),
}
RULE_NAMES = {
    "gain": marked("Is there a gain at all?"),
    "harmed": marked("How many are worse off?"),
    "worst_tenth": marked("Are the worst served left behind?"),
    "clients": marked("Were enough partners scored?"),
    "seeds": marked("Would another training run give the same?"),
    "newcomers": marked("Does it help partners who join later?"),
    "alone": marked("Is it better than going alone?"),
    "forgetting": marked("Did the model unlearn other things?"),
    "leaks": marked("Does it give training rows away?"),
    "privacy": marked("Is there a proven limit to what it can give away?"),
    "margin": marked("Are the other scores within their margins?"),
    "seen": marked("Were the answers new to the model?"),
    "cost": marked("Is it known what it cost?"),
}


def reasons(rules: Sequence[Rule], *outcomes: str) -> list[str]:
    """Return the sentences of the rules with these outcomes, in their order."""
    return [rule_sentence(rule) for rule in rules if rule.outcome in outcomes]


def rule_sentence(rule: Rule) -> str:
    """Return what one rule found, with what would settle it where it is open."""
    values = rule.values
    match rule.name, rule.outcome:
        case "gain", "holds":
            return words("The gain is larger than chance explains.")
        case "gain", "fails":
            if values["low"] == values["high"] == 0:
                return words("Nothing changed.")
            if values["high"] < 0:
                return words("It is a loss, larger than chance explains.")
            return words("The gain is smaller than was asked for.")
        case "gain", _:
            return _open_gain(values)
        case "harmed", outcome:
            return _harmed(outcome, values, rule.threshold or 0.0)
        case "worst_tenth", "holds":
            return words("The tenth that is served worst is served no worse than before.")
        case "worst_tenth", "fails":
            return words("The tenth that is served worst is served worse than before.")
        case "worst_tenth", _:
            return words("The tenth that is served worst may be served worse than before; too few to be sure.")
        case "clients", _:
            return plural_words(
                "{num} partner was scored; at least {least} are asked for.",
                "{num} partners were scored; at least {least} are asked for.",
                values["num_clients"],
                least=int(rule.threshold or 0),
            )
        case "seeds", "holds":
            return words("Several training runs agree.")
        case "seeds", "doubt":
            return words("It rests on one training run; another run would come out somewhat different.")
        case "seeds", _:
            return plural_words(
                "{num} training run was made; at least {least} are asked for.",
                "{num} training runs were made; at least {least} are asked for.",
                values["num_seeds"],
                least=int(rule.threshold or 0),
            )
        case "newcomers", "unknown":
            return words("Whether it helps partners who join later was not measured.")
        case "newcomers", "holds":
            return words("It also helps partners who took no part in training.")
        case "newcomers", "fails":
            return words("Partners who took no part in training are served worse.")
        case "newcomers", _:
            return words("Whether it helps partners who join later cannot be told.")
        case "alone", "holds":
            return words("Joining is better than going alone.")
        case "alone", "fails":
            return words("Going alone is better than joining.")
        case "alone", "unknown":
            return words("Whether joining is better than going alone was not measured.")
        case "alone", _:
            return plural_words(
                "Whether joining is better than going alone cannot be told from {num} partner.",
                "Whether joining is better than going alone cannot be told from {num} partners.",
                values["num_clients"],
            )
    return _other_rule(rule)


def _harmed(outcome: str, values: Mapping[str, Any], most: float) -> str:
    said = [words("{share} are worse off; the limit is {most}.", share=percent(values["share"]), most=percent(most))]
    if outcome != "open":
        return said[0]
    said.append(
        words(
            "Among all partners of this kind it may be between {low} and {high}.",
            low=percent(values["low"]),
            high=percent(values["high"]),
        )
    )
    if values["clients_needed"]:
        said.append(
            words(
                "About {num} partners would settle it, if it stays as measured.", num=f"{values['clients_needed']:,}"
            )
        )
    if values["num_worse"] and values.get("num_shown_worse") == 0:
        said.append(words("No partner's own rows show its loss beyond chance."))
    if values.get("rows_needed"):
        said.append(
            words(
                "From about {num} held-out rows on, a partner's own rows could tell a loss from chance.",
                num=f"{values['rows_needed']:,}",
            )
        )
    return sentences(said)


def _other_rule(rule: Rule) -> str:
    values = rule.values
    match rule.name, rule.outcome:
        case "forgetting", "unknown":
            return words("Whether the model unlearned other things was not measured; --general-data would tell.")
        case "forgetting", "holds":
            return words("It did not unlearn other things by more than the limit.")
        case "forgetting", "fails":
            return words("It unlearned other things by more than the limit.")
        case "forgetting", "open":
            return words("It unlearned other things by more than the limit; that may be chance. More rows would tell.")
        case "forgetting", _:
            return words("Whether it unlearned other things by more than the limit cannot be told.")
        case "leaks", "unknown":
            return words("Whether it gives training rows away was not measured; --audit would tell.")
        case "leaks", "holds":
            return words("An attack could hardly tell which rows it was trained on.")
        case "leaks", "fails":
            return words("An attack can tell which rows it was trained on.")
        case "leaks", "open":
            return words("An attack told training rows from others better than the limit allows; that may be chance.")
        case "leaks", _:
            return words("Whether an attack can tell which rows it was trained on is not sure.")
        case "privacy", "doubt" if values["epsilon"] is not None:
            return words("What it can give away has a proven limit, but one so wide that it proves little.")
        case "privacy", "holds":
            return words("What it can give away about one partner has a proven limit.")
        case "privacy", "fails":
            return words("The proven limit to what it can give away is missing, or larger than was asked for.")
        case "privacy", _:
            return words("No limit to what it can give away about a partner is proven.")
        case "margin", "holds":
            return words("The other scores are within their margins.")
        case "margin", "fails":
            return words("Worse than its margin allows: {scores}.", scores=_scores(values["scores"]))
        case "margin", _:
            return words("Cannot be told from its margin: {scores}.", scores=_scores(values["scores"]))
        case "seen", _:
            return words("The answers it was scored on were used for training, so the gain may be memory.")
    return words("What it cost is not known; --also-cost with the folder of the run would tell.")


def _open_gain(values: Mapping[str, Any]) -> str:
    said = words("Chance could explain the difference: it may be a gain or a loss.")
    if clients := values.get("clients_needed"):
        return sentences(
            [said, words("About {num} partners would settle it, if it stays as measured.", num=f"{clients:,}")]
        )
    if seeds := values.get("seeds_needed"):
        return sentences(
            [said, words("About {num} training runs would settle it, if it stays as measured.", num=f"{seeds:,}")]
        )
    return sentences([said, words("No number of partners within reach would settle a difference this small.")])


def _scores(names: Sequence[str]) -> str:
    return listed([score_name(name) for name in names])
