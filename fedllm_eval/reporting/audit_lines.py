"""The findings of an audit, one sentence each, in the language of the page."""

from collections.abc import Mapping
from typing import Any

from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import minus, percent
from fedllm_data.wording.recorded import again

__all__ = ["audit_lines", "coin_line", "shouts"]

_WHOSE = {
    "trained": marked("canaries"),
    "start": marked("start policy"),
    "kept_out": marked("canaries that were kept out"),
}
_ABOVE = marked(
    "WARNING: epsilon for one {unit} is at least {least} ({share} sure), and the run claims {claim}. Either the claim "
    "is wrong, or this is the one case in {odds} in which the bound is: audit again with other coins, and do not "
    "publish before you know"
)
_ABOVE_BY_SPLIT = marked(
    "{name}: its bound on epsilon for one {unit}, {least}, lies above the {claim} that the run claims. It takes "
    "members and non-members for dealt by coins, which they were not: plant canaries with coins to know"
)


def audit_lines(audit: Mapping[str, Any]) -> list[str]:
    """Return the findings of an audit, as `audit_run` gives them, one sentence each."""
    found = audit["membership"]
    lines = [
        words(
            "members: {rows} of {clients}; non-members: {others} of {their}",
            rows=plural_words("{num} training row", "{num} training rows", found["num_members"]),
            clients=plural_words("{num} client", "{num} clients", found["num_member_clients"]),
            others=plural_words("{num} row", "{num} rows", found["num_nonmembers"]),
            their=plural_words("{num} client", "{num} clients", found["num_nonmember_clients"]),
        )
    ]
    for name, attack in found["attacks"].items():
        lines += _attack_lines(name, attack)
    if found["reference_auc"] is not None:
        before = found["reference_auc"]
        lines.append(
            words(
                "start policy: AUC {interval} by its loss",
                interval=_interval(before["auc"], before["auc_low"], before["auc_high"]),
            )
        )
    for when, canaries in (audit["canaries"] or {}).items():
        if canaries is not None:
            lines += _canary_lines(words(_WHOSE[when]), canaries)
    if audit.get("one_run") is not None:
        lines.append(coin_line(audit["one_run"]))
    lines += shouts(audit)
    return lines + [again(note) for note in found["notes"]]


def coin_line(found: Mapping[str, Any]) -> str:
    """Return what canaries with coins prove, as one sentence."""
    told = {
        "num": f"{found['num_canaries']:,}",
        "inside": f"{found['num_in']:,}",
        "unit": again(found["unit"]),
        "share": percent(found["confidence"]),
        "value": f"{found['delta']:g}",
        "high": f"{found['largest_epsilon']:.2f}",
    }
    if not found["epsilon"]:
        return words(
            "coins: {num} canaries, {inside} of them in, unit {unit}: guessing shows no epsilon above 0 ({share} "
            "sure, delta {value}); perfect guesses would have shown {high}",
            **told,
        )
    return words(
        "coins: {num} canaries, {inside} of them in, unit {unit}: {right} of {guesses} guesses are right, so epsilon "
        "is at least {least} ({share} sure, delta {value}); perfect guesses would have shown {high}",
        **told,
        right=f"{found['num_correct']:,}",
        guesses=f"{found['num_guessed_in'] + found['num_guessed_out']:,}",
        least=f"{found['epsilon']:.2f}",
    )


def shouts(audit: Mapping[str, Any]) -> list[str]:
    """Return a sentence for every bound that lies above what the run claims; that of the coins is a warning."""
    said = []
    for one in audit.get("verdicts", ()):
        if one["verdict"] != "above":
            continue
        numbers = {
            "unit": again(one["unit"]),
            "least": f"{one['epsilon']:.2f}",
            "claim": f"{one['claimed']:.2f}",
        }
        if one["attack"] == "coins":
            confidence = audit["one_run"]["confidence"]
            odds = f"{1 / (1 - confidence):.0f}"
            said.append(words(_ABOVE, share=percent(confidence), odds=odds, **numbers))
        else:
            said.append(words(_ABOVE_BY_SPLIT, name=one["attack"], **numbers))
    return said


def _attack_lines(name: str, attack: Mapping[str, Any]) -> list[str]:
    auc = _interval(attack["auc"], attack["auc_low"], attack["auc_high"])
    lines = [words("{name}: AUC {interval}; 0.5 is guessing", name=name, interval=auc)]
    for positives in attack["true_positives"]:
        shown = _interval(positives["fraction"], positives["low"], positives["high"])
        lines.append(
            words(
                "{name}: true positives at {share} false ones: {found}",
                name=name,
                share=percent(positives["max_false_positive_fraction"], _digits(positives)),
                found=shown if positives["reason"] is None else again(positives["reason"]),
            )
        )
    for unit, bound in attack["epsilon"].items():
        if bound["epsilon"] is None:
            lines.append(
                words(
                    "{name}: no bound on epsilon for one {unit}: {reason}",
                    name=name,
                    unit=again(unit),
                    reason=again(bound["reason"]),
                )
            )
            continue
        lines.append(
            words(
                "{name}: epsilon for one {unit} is at least {least} ({share} sure, delta {value}); with {num} members"
                " and {number} non-members no attack could have shown more than {high}",
                name=name,
                unit=again(unit),
                least=f"{bound['epsilon']:.2f}",
                share=percent(bound["confidence"]),
                value=f"{bound['delta']:g}",
                num=f"{bound['num_members']:,}",
                number=f"{bound['num_nonmembers']:,}",
                high=f"{bound['largest_epsilon']:.2f}",
            )
        )
    return lines


def _canary_lines(who: str, canaries: Mapping[str, Any]) -> list[str]:
    bits, share = canaries["exposure"], canaries["extraction"]
    return [
        words(
            "{who}: exposure {interval} bits over {num} canaries; {low} by chance, {high} at most",
            who=who,
            interval=_interval(bits["mean_bits"], bits["low"], bits["high"]),
            num=canaries["num_canaries"],
            low=f"{bits['chance_bits']:.2f}",
            high=f"{bits['ceiling_bits']:.2f}",
        ),
        words(
            "{who}: share extracted by their prefix {interval}",
            who=who,
            interval=_interval(share["fraction"], share["low"], share["high"]),
        ),
    ]


def _digits(positives: Mapping[str, Any]) -> int:
    """Decimals that a share of false positives needs as a percentage: none for 1 %, one for 0.1 %."""
    text = f"{100 * positives['max_false_positive_fraction']:g}"
    return len(text.partition(".")[2])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    shown = ["n/a" if number is None else minus(f"{number:.3f}") for number in (value, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"
