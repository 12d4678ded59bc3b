"""From what was measured to a recommendation: release, do not release, or collect more. Rules that can be tested.

Every rule gives one outcome. `holds`: shown, and good. `fails`: shown, and bad. `open`: measured, and the data allow
both. `doubt`: nothing shown against, but something a reader must know. `unknown`: not measured. One rule that fails
means "do not release"; else one that is open means "collect more"; else "release". Doubts and what was not measured
never change a recommendation, and are always said.

The burden of proof lies with the release: the gain must be shown, and so must it be that no more than the allowed
share of the partners is worse off. A small sample is no proof that a limit is kept: with no partner of eleven worse
off, up to 26 % of all may be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fedllm_data.errors import ConfigError
from fedllm_eval.deciding.effects import Effect
from fedllm_eval.deciding.evidence_needed import clients_for_gain, clients_for_share, seeds_for_gain
from fedllm_eval.deciding.own_rows import OwnRows
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.rounding import difference_beyond_rounding

__all__ = ["ALPHA", "Evidence", "Outcome", "Recommendation", "Rule", "Thresholds", "apply_rules", "recommend"]

ALPHA = 0.05
WIDE_EPSILON = 10.0
"""Beyond it a guarantee is weak or none (Ponomareva et al. 2023, "How to DP-fy ML", section 5.2)."""
Outcome = Literal["holds", "fails", "open", "doubt", "unknown"]
Recommendation = Literal["release", "do_not_release", "collect_more"]


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where the rules draw their lines; every one is a flag of `fedllm-eval decide`."""

    min_gain: float = 0.0
    """The mean gain must lie above this with its whole interval, in the unit of the score."""
    max_harmed: float = 0.25
    """At most this share of the partners may be worse off, and Wilson's whole interval must say so."""
    min_clients: int = 6
    """Fewer cannot show any difference: 2^(1-5) = 0.0625 is above 0.05."""
    min_seeds: int = 1
    """Training runs with other seeds behind a candidate."""
    max_forgetting: float = 0.05
    """Nats per token by which general text may be predicted worse."""
    max_leak: float = 0.6
    """Membership inference may tell training rows apart this well (AUC; 0.5 is guessing)."""
    max_epsilon: float | None = None
    """Privacy that may be spent; None asks for no guarantee."""

    def __post_init__(self) -> None:
        """Refuse thresholds that make no sense."""
        if not 0 <= self.max_harmed <= 1:
            raise ConfigError(f"--max-harmed is {self.max_harmed}; it is a share from 0 to 1")
        if self.min_clients < 2 or self.min_seeds < 1:
            raise ConfigError(
                f"--min-clients {self.min_clients} and --min-seeds {self.min_seeds}: ask for at least 2 clients and "
                "1 seed"
            )
        if not 0.5 <= self.max_leak <= 1:
            raise ConfigError(f"--max-leak is {self.max_leak}; it is an AUC from 0.5 (guessing) to 1")
        if self.max_epsilon is not None and not self.max_epsilon > 0:
            raise ConfigError(f"--max-epsilon is {self.max_epsilon}; it must be positive")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the rules look at for one candidate."""

    gain: Effect
    """Over what was before, clients that were asked to train."""
    p_holm: float
    """Of that gain, corrected over all candidates; NaN for one client."""
    newcomers: Effect | None = None
    """The same for clients that were held out whole."""
    alone: Effect | None = None
    """Gain over training alone, as far as clients did."""
    seen_in_training: bool = False
    """Whether the scored rows were trained on."""
    general_text: Mapping[str, Any] | None = None
    audit: Mapping[str, Any] | None = None
    epsilon: float | None = None
    cost_is_known: bool = False
    own_rows: OwnRows | None = None
    """What single partners' rows say, where rows were kept."""
    gate: Mapping[str, Any] | None = None
    """Of `comparing/release_gate.py`, where margins were given."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule with its outcome, the figures it rests on and its threshold."""

    name: str
    outcome: Outcome
    flag: str
    """The flag that moves its threshold, or that would measure what is unknown."""
    threshold: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def recommend(rules: Sequence[Rule]) -> Recommendation:
    """Return what the rules say together.

    >>> recommend([Rule(name="gain", outcome="holds", flag="--min-gain")])
    'release'
    >>> recommend([])
    'collect_more'
    """
    outcomes = {rule.outcome for rule in rules}
    if "fails" in outcomes:
        return "do_not_release"
    gain = next((rule for rule in rules if rule.name == "gain"), None)
    return "collect_more" if "open" in outcomes or gain is None or gain.outcome != "holds" else "release"


def apply_rules(evidence: Evidence, thresholds: Thresholds) -> list[Rule]:
    """Return every rule with its outcome, in the order in which they are told."""
    found = [
        _gain(evidence, thresholds),
        _harmed(evidence.gain, evidence.own_rows, thresholds),
        _tail(evidence.gain),
        _clients(evidence.gain, thresholds),
        _seeds(evidence.gain, thresholds),
        _newcomers(evidence.newcomers),
        _alone(evidence.alone),
        _forgetting(evidence.general_text, thresholds),
        _leaks(evidence.audit, thresholds),
        _privacy(evidence.epsilon, thresholds),
        _gate(evidence.gate),
    ]
    if evidence.seen_in_training:
        found.append(Rule(name="seen", outcome="open", flag="--splits", values={"split": evidence.gain.split}))
    if not evidence.cost_is_known:
        found.append(Rule(name="cost", outcome="unknown", flag="--also-cost"))
    return [rule for rule in found if rule is not None]


def _gain(evidence: Evidence, thresholds: Thresholds) -> Rule:
    effect, least = evidence.gain, thresholds.min_gain
    significant = evidence.p_holm < ALPHA
    if effect.num_same == effect.num_clients:
        outcome: Outcome = "fails"
    elif effect.low > max(least, 0.0) and significant:
        outcome = "holds"
    elif effect.high < least and (significant or least > 0):
        outcome = "fails"
    else:
        outcome = "open"
    values: dict[str, Any] = {"gain": effect.gain, "low": effect.low, "high": effect.high, "p_holm": evidence.p_holm}
    if outcome == "open":
        values |= _needed(effect, least)
    return Rule(name="gain", outcome=outcome, flag="--min-gain", threshold=least, values=values)


def _needed(effect: Effect, least: float) -> dict[str, int | None]:
    """How many clients, or seeds, would settle whether the gain lies above the threshold."""
    distance = effect.gain - least
    sources = effect.difference.sources
    if effect.num_clients < 2 or distance == 0:
        return {"clients_needed": None, "seeds_needed": None}
    of_seeds = sum(source.std_error**2 for source in sources[1:]) ** 0.5
    clients = clients_for_gain(distance, effect.client_std, other_std_error=of_seeds)
    num_seeds = max(effect.num_seeds)
    seeds = None
    if of_seeds > 0:
        seeds = seeds_for_gain(distance, of_seeds * num_seeds**0.5, other_std_error=sources[0].std_error)
    return {
        "clients_needed": None if clients is None or clients <= effect.num_clients else clients,
        "seeds_needed": None if seeds is None or seeds <= num_seeds else seeds,
    }


def _harmed(effect: Effect, own_rows: OwnRows | None, thresholds: Thresholds) -> Rule:
    """Who is worse off: holds only where the whole interval of the share keeps the limit."""
    most, share = thresholds.max_harmed, effect.worse_fraction
    values: dict[str, Any] = {
        "share": share,
        "low": effect.worse_low,
        "high": effect.worse_high,
        "num_worse": effect.num_worse,
        "num_clients": effect.num_clients,
    }
    if own_rows is not None:
        values |= {"num_shown_worse": own_rows.num_shown_worse, "rows_needed": own_rows.rows_needed}
    outcome: Outcome = "open"
    if effect.worse_low > most:
        outcome = "fails"
    elif effect.worse_high <= most:
        outcome = "holds"
    else:
        values["clients_needed"] = clients_for_share(share, most)
    return Rule(name="harmed", outcome=outcome, flag="--max-harmed", threshold=most, values=values)


def _tail(effect: Effect) -> Rule:
    """The worst-served tenth, before and after: fails where both intervals exist and lie apart the wrong way."""
    sign = 1 if effect.higher_is_better else -1
    before, after = effect.tail_before, effect.tail_after
    change = sign * float(difference_beyond_rounding(before.mean, after.mean, SCORES[effect.score].rounding))
    values = {"before": before.mean, "after": after.mean, "change": change, "num_clients": effect.num_clients}
    best_after = max(sign * after.low, sign * after.high)
    worst_before = min(sign * before.low, sign * before.high)
    if best_after < worst_before:
        outcome: Outcome = "fails"
    elif change < 0:
        outcome = "doubt"
    else:
        outcome = "holds"
    return Rule(name="worst_tenth", outcome=outcome, flag="", values=values)


def _clients(effect: Effect, thresholds: Thresholds) -> Rule:
    enough = effect.num_clients >= thresholds.min_clients
    return Rule(
        name="clients",
        outcome="holds" if enough else "open",
        flag="--min-clients",
        threshold=thresholds.min_clients,
        values={"num_clients": effect.num_clients},
    )


def _seeds(effect: Effect, thresholds: Thresholds) -> Rule:
    num_seeds = effect.num_seeds[1]
    outcome: Outcome = "open" if num_seeds < thresholds.min_seeds else "holds" if effect.covers_seeds else "doubt"
    return Rule(
        name="seeds",
        outcome=outcome,
        flag="--min-seeds",
        threshold=thresholds.min_seeds,
        values={"num_seeds": num_seeds},
    )


def _newcomers(effect: Effect | None) -> Rule:
    if effect is None:
        return Rule(name="newcomers", outcome="unknown", flag="--splits")
    outcome: Outcome = "holds" if effect.low > 0 else "fails" if effect.high < 0 else "doubt"
    if effect.num_clients < 6 and outcome == "fails":
        outcome = "doubt"
    values = {"gain": effect.gain, "low": effect.low, "high": effect.high, "num_clients": effect.num_clients}
    return Rule(name="newcomers", outcome=outcome, flag="--splits", threshold=0.0, values=values)


def _alone(effect: Effect | None) -> Rule:
    if effect is None:
        return Rule(name="alone", outcome="unknown", flag="--alone")
    shown = effect.num_clients >= 6 and effect.p_value < ALPHA
    outcome: Outcome = "holds" if effect.low > 0 and shown else "fails" if effect.high < 0 and shown else "doubt"
    values = {"gain": effect.gain, "low": effect.low, "high": effect.high, "num_clients": effect.num_clients}
    return Rule(name="alone", outcome=outcome, flag="--alone", threshold=0.0, values=values)


def _forgetting(general: Mapping[str, Any] | None, thresholds: Thresholds) -> Rule:
    most = thresholds.max_forgetting
    if general is None:
        return Rule(name="forgetting", outcome="unknown", flag="--general-data", threshold=most)
    lost, low, high = (general[name] for name in ("loss_increase", "ci_low", "ci_high"))
    return Rule(
        name="forgetting",
        outcome=_within(lost, low, high, most),
        flag="--max-forgetting",
        threshold=most,
        values={"lost": lost, "low": low, "high": high, "num_rows": general["num_rows"]},
    )


def _leaks(audit: Mapping[str, Any] | None, thresholds: Thresholds) -> Rule:
    most = thresholds.max_leak
    attacks = {} if audit is None else audit["membership"]["attacks"]
    told = {name: attack for name, attack in attacks.items() if attack["auc"] is not None}
    if not told:
        return Rule(name="leaks", outcome="unknown", flag="--audit", threshold=most)
    name = max(told, key=lambda attack: told[attack]["auc"])
    auc, low, high = (told[name][key] for key in ("auc", "auc_low", "auc_high"))
    return Rule(
        name="leaks",
        outcome=_within(auc, low, high, most),
        flag="--max-leak",
        threshold=most,
        values={"attack": name, "auc": auc, "low": low, "high": high},
    )


def _within(found: float, low: float | None, high: float | None, most: float) -> Outcome:
    """Of a risk that was measured beside its limit: beyond it and not shown to be is open, below it a doubt."""
    if low is not None and low > most:
        return "fails"
    if high is not None and high <= most:
        return "holds"
    return "open" if found > most else "doubt"


def _privacy(epsilon: float | None, thresholds: Thresholds) -> Rule:
    most = thresholds.max_epsilon
    if most is None:
        outcome: Outcome = "doubt" if epsilon is None or epsilon > WIDE_EPSILON else "holds"
    else:
        outcome = "fails" if epsilon is None or epsilon > most else "holds"
    return Rule(name="privacy", outcome=outcome, flag="--max-epsilon", threshold=most, values={"epsilon": epsilon})


def _gate(gate: Mapping[str, Any] | None) -> Rule | None:
    if gate is None:
        return None
    failed = [check["score"] for check in gate["checks"] if check["outcome"] == "worse"]
    unclear = [check["score"] for check in gate["checks"] if check["outcome"] == "cannot tell"]
    outcome: Outcome = "fails" if failed else "doubt" if unclear else "holds"
    return Rule(name="margin", outcome=outcome, flag="--margin", values={"scores": failed or unclear})
