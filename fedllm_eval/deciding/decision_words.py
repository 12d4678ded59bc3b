"""What a decision says to somebody who must decide: whole sentences without a technical figure.

A gain of a loss is told as how much better every word of an answer is predicted (exp of the gain in nats per token); a
gain of an accuracy as how often of ten times the better answer is preferred. Every sentence is in the language of the
page; `details` of the page have the figures themselves.
"""

import math
from collections.abc import Sequence

from fedllm_data.wording.catalogue import plural_words, words
from fedllm_data.wording.forms import bytes_text, percent
from fedllm_eval.deciding.break_even import BreakEven
from fedllm_eval.deciding.decision import Decided, Decision
from fedllm_eval.deciding.effects import Effect
from fedllm_eval.deciding.partner_costs import RunPrice
from fedllm_eval.deciding.plain_amounts import amount, money_text, of_ten, own_gain, time_text, times_text
from fedllm_eval.deciding.stated_lines import StatedPrices
from fedllm_eval.deciding.trained_how import how_sentences
from fedllm_eval.reporting.left_behind_section import plain_left_behind

__all__ = [
    "alone_sentences",
    "break_even_sentences",
    "candidate_sentences",
    "cost_sentences",
    "for_whom_sentences",
    "gain_sentences",
    "losers_sentences",
]

NUM_IN_TENTH = 10
"""Of fewer than two tenths' worth of partners the worst tenth is one partner."""
RANKINGS = ("ranking_accuracy", "ranking_accuracy_per_token")


def gain_sentences(one: Decided) -> list[str]:
    """Return what was gained, how far that could be off, and what the other scores say."""
    effect = one.gain
    found = [words("On average, {gain}.", gain=own_gain(effect.score, effect.before, effect.after))]
    if math.isfinite(effect.low):
        found.append(_uncertainty(effect))
    if effect.score in RANKINGS:
        found.append(words("Whoever tosses a coin prefers it 5 of 10 times."))
    return [*found, *_also(one)]


def for_whom_sentences(one: Decided) -> list[str]:
    """Return how many are better off, the same and worse, and what newcomers have of it."""
    effect = one.gain
    found = [
        words(
            "Of {num} partners that were scored, {better} are better off, {same} the same, {worse} worse off.",
            num=f"{effect.num_clients:,}",
            better=f"{effect.num_better:,}",
            same=f"{effect.num_same:,}",
            worse=f"{effect.num_worse:,}",
        )
    ]
    if one.newcomers is not None:
        found.append(
            words(
                "Of {num} who took no part in training, {better} are better off, {same} the same, {worse} worse off.",
                num=f"{one.newcomers.num_clients:,}",
                better=f"{one.newcomers.num_better:,}",
                same=f"{one.newcomers.num_same:,}",
                worse=f"{one.newcomers.num_worse:,}",
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
        share = percent(effect.worse_fraction)
        found = [
            plural_words(
                "{num} partner ({share}) is worse off.",
                "{num} partners ({share}) are worse off.",
                effect.num_worse,
                share=share,
            )
        ]
        if named:
            found.append(words("Most of all: {names}.", names=words(", ").join(named)))
        shown = next(rule for rule in one.rules if rule.name == "harmed").values.get("num_shown_worse")
        if shown == 0:
            found.append(words("No partner's own rows show its loss beyond chance."))
        elif shown is not None:
            found.append(
                plural_words(
                    "Of {num} partner its own rows show the loss beyond chance.",
                    "Of {num} partners their own rows show the loss beyond chance.",
                    shown,
                )
            )
    gain = own_gain(effect.score, effect.tail_before.mean, effect.tail_after.mean)
    found.append(
        words("For the one that is served worst: {gain}.", gain=gain)
        if effect.num_clients < 2 * NUM_IN_TENTH
        else words("For the tenth that is served worst: {gain}.", gain=gain)
    )
    return found + plain_left_behind(one.left_behind)


def cost_sentences(price: RunPrice | None, prices: StatedPrices) -> list[str]:
    """Return what it cost; what is not known says which flag would tell it."""
    if price is None:
        return [words("Not known: the folder of the run is not at hand; --also-cost would name it.")]
    num = len(price.partners)
    size = bytes_text(price.num_bytes)
    found = [
        words("{size} were sent in all.", size=size)
        if not num
        else plural_words(
            "{size} were sent in all, by {num} partner.", "{size} were sent in all, by {num} partners.", num, size=size
        )
    ]
    if num:
        found += _hours(price, prices)
        energy, money = price.total("energy_kwh"), price.total("money")
        if energy is None:
            found.append(words("Energy: not known; --watts would tell."))
        elif price.energy_is_metered:
            found.append(words("Energy: {kwh} kWh, measured.", kwh=amount(energy)))
        elif not prices.states("watts"):
            found.append(words("Energy: {kwh} kWh (estimate from the watts in the client table).", kwh=amount(energy)))
        else:
            found.append(words("Energy: {kwh} kWh (estimate from the stated watts).", kwh=amount(energy)))
        found.append(
            _money_lacks(prices)
            if money is None
            else words(
                "Money: {money} in all, {each} a partner (estimate from the stated prices).",
                money=money_text(money, prices),
                each=money_text(money / num, prices),
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
        if decision.alone_commands:
            found.append(words("The commands that would tell stand below."))
        return found
    effect, own = one.alone, one.alone_over_before
    together = own_gain(own.score, own.before, effect.after)
    found = [
        plural_words(
            "{num} partner was also trained alone, on its own rows. There, {gain}.",
            "{num} partners were also trained alone, each on its own rows. There, {gain}.",
            own.num_clients,
            gain=own_gain(own.score, own.before, own.after),
        ),
        words("For the same partners with the common model, {gain}.", gain=together),
        words(
            "Joining served {better} of these {num} better than going alone, and {worse} worse.",
            better=effect.num_better,
            num=effect.num_clients,
            worse=effect.num_worse,
        ),
    ]
    rule = next(rule for rule in one.rules if rule.name == "alone")
    if rule.outcome == "doubt":
        found.append(words("That is too few, or too uneven, to say that joining is better than going alone."))
    return found


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
                money=money_text(found.money, prices),
            )
            if loss
            else words(
                "Joining pays for a partner if one percentage point is worth more than {money} to it.",
                money=money_text(found.money, prices),
            )
        )
        said.append(message)
        if found.money_least is not None and found.money_most is not None:
            said.append(
                words(
                    "With the uncertainty of the gain, the price of a point is between {low} and {high}.",
                    low=money_text(found.money_least, prices),
                    high=money_text(found.money_most, prices),
                )
            )
    if found.num_bytes is not None and found.hours is not None:
        size, time = bytes_text(found.num_bytes), time_text(found.hours)
        said.append(
            words("One percent better prediction costs a partner {size} and {time}.", size=size, time=time)
            if loss
            else words("One percentage point costs a partner {size} and {time}.", size=size, time=time)
        )
    if not said:
        said.append(words("The price of a point is not known, because the cost is not."))
    return [*said, words("This is for one run as it was made; whoever trains every month pays it every month.")]


def candidate_sentences(one: Decided) -> list[str]:
    """Return how a candidate stands beside the one that gains most, and how it does in the other scores."""
    if one.from_leader is None:
        said = words("It gains most.")
    elif one.is_told_apart:
        said = words("It gains less than the one that gains most, beyond chance.")
    else:
        said = words("It cannot be told from the one that gains most.")
    return [said, *how_sentences(one.how), *_also(one)]


def _also(one: Decided) -> list[str]:
    """The other scores over what was before; a ranking per token says much the same as the ranking."""
    return [
        words("Also: {gain}.", gain=own_gain(other.score, other.before, other.after))
        for other in one.others
        if other.score != "ranking_accuracy_per_token"
    ]


def _uncertainty(effect: Effect) -> str:
    if effect.score not in RANKINGS:
        return words(
            "Among all partners of this kind it probably lies between {low} and {high} times.",
            low=times_text(effect.low),
            high=times_text(effect.high),
        )
    low, high = (effect.before + bound for bound in (effect.low, effect.high))
    return words(
        "Among all partners of this kind it probably lies between {low} and {high} of 10.",
        low=of_ten(min(max(low, 0.0), 1.0)),
        high=of_ten(min(max(high, 0.0), 1.0)),
    )


def _hours(price: RunPrice, prices: StatedPrices) -> list[str]:
    """How long partners trained and sent, on which clock."""
    size, train = bytes_text(price.mean("num_bytes") or 0), time_text(price.mean("train_hours") or 0.0)
    sending = price.mean("send_hours")
    found = [
        words(
            "Each sent and received about {size}; on the simulated clock it trained for {time}.", size=size, time=train
        )
        if price.is_simulated
        else words("Each sent and received about {size} and trained for {time}.", size=size, time=train)
    ]
    if sending is None:
        found.append(words("Time to send at their line: not known; --download-mbit and --upload-mbit would tell."))
    elif price.is_simulated and not prices.states("download_mbit"):
        found.append(words("On the simulated clock, sending took each about {time}.", time=time_text(sending)))
    else:
        found.append(words("Sending takes each about {time} at the stated line (estimate).", time=time_text(sending)))
    return found


def _money_lacks(prices: StatedPrices) -> str:
    if prices.per_kwh is not None:
        return words("Money: not known; --price-per-kwh needs the energy, which --watts would tell.")
    return words("Money: not known; --price-per-gb, --price-per-hour or --price-per-kwh would tell.")
