"""What a decision says to somebody who must decide: whole sentences without a technical figure.

A gain of a loss is told as how much better every word of an answer is predicted (exp of the gain in nats per token); a
gain of an accuracy as how often of ten times the better answer is preferred. Every sentence is in the language of the
page; `details` of the page have the figures themselves.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import bytes_text, percent, sentences
from fedllm_eval.deciding.break_even import BreakEven
from fedllm_eval.deciding.deciding_rules import Rule
from fedllm_eval.deciding.decision import Decided, Decision
from fedllm_eval.deciding.effects import Effect
from fedllm_eval.deciding.partner_costs import RunPrice, StatedPrices

__all__ = [
    "OUTCOME_NAMES",
    "RULE_NAMES",
    "VERDICTS",
    "alone_sentences",
    "amount",
    "break_even_sentences",
    "candidate_sentence",
    "cost_sentences",
    "for_whom_sentences",
    "gain_sentences",
    "losers_sentences",
    "own_gain",
    "reasons",
    "rule_sentence",
]

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


def amount(value: float) -> str:
    """Return an amount with two digits that count.

    >>> amount(2.4321), amount(0.0123), amount(1234.5), amount(0.0)
    ('2.4', '0.012', '1,234', '0')
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def own_gain(score: str, before: float, after: float) -> str:
    """Return a change of one score in plain words: of a group's mean, or of one partner.

    >>> own_gain("heldout_loss", 2.0, 2.0 - math.log(2.4))
    'each word of an answer is predicted 2.4 times as well as before'
    >>> own_gain("ranking_accuracy", 0.6, 0.9)
    'the better of two answers is preferred 9.0 of 10 times, before 6.0 of 10'
    """
    if score in ("heldout_loss", "chosen_loss"):
        if after <= before:
            return words(
                "each word of an answer is predicted {times} times as well as before", times=_times(before - after)
            )
        return words(
            "each word of an answer is predicted worse: only {share} as well as before",
            share=percent(math.exp(before - after)),
        )
    return words(
        "the better of two answers is preferred {after} of 10 times, before {before} of 10",
        after=f"{10 * after:.1f}",
        before=f"{10 * before:.1f}",
    )


def gain_sentences(one: Decided) -> list[str]:
    """Return what was gained, how far that could be off, and what the other scores say."""
    effect = one.gain
    found = [words("On average, {gain}.", gain=own_gain(effect.score, effect.before, effect.after))]
    if math.isfinite(effect.low):
        found.append(_uncertainty(effect))
    for other in one.others[:2]:
        if other.score != "ranking_accuracy_per_token":
            found.append(words("Also: {gain}.", gain=own_gain(other.score, other.before, other.after)))
    return found


def for_whom_sentences(one: Decided) -> list[str]:
    """Return how many are better off, the same and worse, and what newcomers have of it."""
    effect = one.gain
    found = [
        words(
            "Of {num} partners {better} are better off, {same} the same, {worse} worse off.",
            num=f"{effect.num_clients:,}",
            better=percent(effect.better_fraction),
            same=percent(effect.num_same / effect.num_clients),
            worse=percent(effect.worse_fraction),
        )
    ]
    if one.newcomers is not None:
        found.append(
            words(
                "Of {num} who took no part in training {better} are better off, {worse} worse off.",
                num=f"{one.newcomers.num_clients:,}",
                better=percent(one.newcomers.better_fraction),
                worse=percent(one.newcomers.worse_fraction),
            )
        )
    return found


def losers_sentences(one: Decided, named: Sequence[str]) -> list[str]:
    """Return who loses, how much the worst do, and how the worst-served tenth does.

    Args:
        one: the candidate.
        named: the partners that lose most, as they may be named; none where they may not.
    """
    effect = one.gain
    if not effect.num_worse:
        found = [words("Nobody that was scored is worse off.")]
    else:
        found = [plural_words("{num} partner is worse off.", "{num} partners are worse off.", effect.num_worse)]
        if named:
            found.append(words("Most of all: {names}.", names=words(", ").join(named)))
    found.append(
        words(
            "For the tenth that is served worst: {gain}.",
            gain=own_gain(effect.score, effect.tail_before.mean, effect.tail_after.mean),
        )
    )
    return found


def cost_sentences(price: RunPrice | None, prices: StatedPrices) -> list[str]:
    """Return what it cost; what is not known says which flag would tell it."""
    if price is None:
        return [words("Not known: the run folder with its rounds is not at hand. Name it instead of its scores.")]
    num = len(price.partners)
    found = [
        plural_words(
            "{size} were sent in all, by {num} partner.",
            "{size} were sent in all, by {num} partners.",
            num,
            size=bytes_text(price.num_bytes),
        )
    ]
    if num:
        found.append(
            words(
                "Each sent and received about {size} and trained for {time}.",
                size=bytes_text(price.mean("num_bytes") or 0),
                time=_time(price.mean("train_hours") or 0.0),
            )
        )
        sending = price.mean("send_hours")
        found.append(
            words("Time to send at their line: not known; --download-mbit and --upload-mbit would tell.")
            if sending is None
            else words("Sending takes each about {time} at the stated line (estimate).", time=_time(sending))
        )
        energy, money = price.total("energy_kwh"), price.total("money")
        if energy is None:
            found.append(words("Energy: not known; --watts would tell."))
        elif price.energy_is_metered:
            found.append(words("Energy: {kwh} kWh, measured.", kwh=amount(energy)))
        else:
            found.append(words("Energy: {kwh} kWh (estimate from the stated watts).", kwh=amount(energy)))
        found.append(
            words("Money: not known; --price-per-gb, --price-per-hour or --price-per-kwh would tell.")
            if money is None
            else words(
                "Money: {money} in all, {each} a partner (estimate from the stated prices).",
                money=_money(money, prices),
                each=_money(money / num, prices),
            )
        )
    found.append(
        words("Privacy: no limit to what the model can give away is proven; the run was made without one.")
        if price.epsilon is None
        else words("Privacy: the proven limit that was spent is epsilon {epsilon}.", epsilon=amount(price.epsilon))
    )
    return found


def alone_sentences(decision: Decision) -> list[str]:
    """Return what going alone would have given, or how to find out."""
    one = decision.chosen
    if one.alone is None or one.alone_over_before is None:
        found = [words("Not known: nobody was trained alone to compare with.")]
        if decision.alone_command is not None:
            found.append(words("The command that would tell stands below."))
        return found
    effect, own = one.alone, one.alone_over_before
    found = [
        plural_words(
            "{num} partner was also trained alone, on its own rows. There, {gain}.",
            "{num} partners were also trained alone, each on its own rows. There, {gain}.",
            own.num_clients,
            gain=own_gain(own.score, own.before, own.after),
        ),
        words(
            "Joining served {better} of these {num} better than going alone.",
            better=effect.num_better,
            num=effect.num_clients,
        ),
    ]
    rule = next(rule for rule in one.rules if rule.name == "alone")
    if rule.outcome == "doubt":
        found.append(words("That is too few, or too uneven, to say that joining is better than going alone."))
    return found


def reasons(one: Decided, *outcomes: str) -> list[str]:
    """Return the sentences of the rules with these outcomes, in their order."""
    return [rule_sentence(rule, one) for rule in one.rules if rule.outcome in outcomes]


def rule_sentence(rule: Rule, one: Decided) -> str:
    """Return what one rule found, with what would settle it where it is open."""
    values = rule.values
    match rule.name, rule.outcome:
        case "gain", "holds":
            return words("The gain is larger than chance explains.")
        case "gain", "fails":
            return words("There is no gain, or it is smaller than was asked for.")
        case "gain", _:
            return _open_gain(values)
        case "harmed", outcome:
            said = words(
                "{share} are worse off; the limit is {most}.",
                share=percent(values["share"]),
                most=percent(rule.threshold or 0.0),
            )
            more = values.get("clients_needed")
            if outcome == "doubt":
                return sentences(
                    [said, words("With other partners it could be up to {high}.", high=percent(values["high"]))]
                )
            if more:
                return sentences([said, words("About {num} partners would settle it.", num=f"{more:,}")])
            return said
        case "worst_tenth", "holds":
            return words("The tenth that is served worst is served no worse than before.")
        case "worst_tenth", "fails":
            return words("The tenth that is served worst is served worse than before.")
        case "worst_tenth", _:
            return words("The tenth that is served worst may be served worse than before; too few to be sure.")
        case "clients", _:
            return words(
                "{num} partners were scored; at least {least} are asked for.",
                num=f"{values['num_clients']:,}",
                least=int(rule.threshold or 0),
            )
        case "seeds", "holds":
            return words("Several training runs agree.")
        case "seeds", "doubt":
            return words("It rests on one training run; another run would come out somewhat different.")
        case "seeds", _:
            return words(
                "{num} training runs were made; at least {least} are asked for.",
                num=values["num_seeds"],
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
            return words(
                "Whether joining is better than going alone cannot be told from {num} partners.",
                num=values["num_clients"],
            )
    return _other_rule(rule, one)


def break_even_sentences(found: BreakEven, score: str, prices: StatedPrices) -> list[str]:
    """Return the price of a point, for a reader who knows what a point is worth."""
    if found.points <= 0:
        return [words("Nothing was gained, so joining pays at no price.")]
    loss = score in ("heldout_loss", "chosen_loss")
    said = []
    if found.money is not None:
        message = (
            words(
                "Joining pays for a partner if one percent better prediction is worth more than {money} to it.",
                money=_money(found.money, prices),
            )
            if loss
            else words(
                "Joining pays for a partner if one percentage point is worth more than {money} to it.",
                money=_money(found.money, prices),
            )
        )
        said.append(message)
        if found.money_least is not None and found.money_most is not None:
            said.append(
                words(
                    "With the uncertainty of the gain, the price of a point is between {low} and {high}.",
                    low=_money(found.money_least, prices),
                    high=_money(found.money_most, prices),
                )
            )
    if found.num_bytes is not None and found.hours is not None:
        size, time = bytes_text(found.num_bytes), _time(found.hours)
        said.append(
            words("One percent better prediction costs a partner {size} and {time}.", size=size, time=time)
            if loss
            else words("One percentage point costs a partner {size} and {time}.", size=size, time=time)
        )
    if not said:
        said.append(words("The price of a point is not known, because the cost is not."))
    return [*said, words("This is for one run as it was made; whoever trains every month pays it every month.")]


def candidate_sentence(one: Decided) -> str:
    """Return how a candidate stands beside the one that gains most."""
    if one.from_leader is None:
        return words("gains most")
    return (
        words("gains less, beyond chance")
        if one.is_told_apart
        else words("cannot be told from the one that gains most")
    )


def _other_rule(rule: Rule, one: Decided) -> str:
    values = rule.values
    match rule.name, rule.outcome:
        case "forgetting", "unknown":
            return words("Whether the model unlearned other things was not measured; --general-data would tell.")
        case "forgetting", "holds":
            return words("It did not unlearn other things by more than the limit.")
        case "forgetting", "fails":
            return words("It unlearned other things by more than the limit.")
        case "forgetting", _:
            return words("Whether it unlearned other things by more than the limit cannot be told.")
        case "leaks", "unknown":
            return words("Whether it gives training rows away was not measured; --audit would tell.")
        case "leaks", "holds":
            return words("An attack could hardly tell which rows it was trained on.")
        case "leaks", "fails":
            return words("An attack can tell which rows it was trained on.")
        case "leaks", _:
            return words("Whether an attack can tell which rows it was trained on is not sure.")
        case "privacy", "holds":
            return words("What it can give away about one partner has a proven limit.")
        case "privacy", "fails":
            return words("The proven limit to what it can give away is missing, or larger than was asked for.")
        case "privacy", _:
            return words("No limit to what it can give away about a partner is proven.")
        case "margin", "holds":
            return words("The other scores are within their margins.")
        case "margin", "fails":
            return words("Worse than its margin allows: {scores}.", scores=words(", ").join(values["scores"]))
        case "margin", _:
            return words("Cannot be told from its margin: {scores}.", scores=words(", ").join(values["scores"]))
        case "seen", _:
            return words("The answers it was scored on were used for training, so the gain may be memory.")
    return words("What it cost is not known.")


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


def _uncertainty(effect: Effect) -> str:
    if effect.score in ("heldout_loss", "chosen_loss"):
        return words(
            "With other partners it would be between {low} and {high} times.",
            low=_times(effect.low),
            high=_times(effect.high),
        )
    low, high = (10 * (effect.before + bound) for bound in (effect.low, effect.high))
    return words(
        "With other partners it would be between {low} and {high} of 10.",
        low=f"{min(max(low, 0.0), 10.0):.1f}",
        high=f"{min(max(high, 0.0), 10.0):.1f}",
    )


def _times(gain: float) -> str:
    # Beyond e^20 a number says no more than that it is large.
    times = math.exp(min(gain, 20.0))
    return f"{times:,.1f}" if times < 100 else f"{times:,.0f}"


def _time(hours: float) -> str:
    if hours >= 1:
        return words("{num} hours", num=amount(hours))
    if hours * 60 >= 1:
        return words("{num} minutes", num=amount(60 * hours))
    return words("{num} seconds", num=amount(3600 * hours))


def _money(value: float, prices: StatedPrices) -> str:
    return f"{amount(value)} {prices.currency}".strip()
