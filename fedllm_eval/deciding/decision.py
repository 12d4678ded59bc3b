"""A decision as data: who gains by which candidate, at what price, against which alternative, and what to do.

`decide` reads, measures and recommends; `decision.json` is what it returns, and the pages are made from the same
object. Candidates are told apart by paired differences to the leading one, corrected (Holm) together with the gains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedllm_data.errors import MetricError
from fedllm_eval.comparing.compared_methods import Method
from fedllm_eval.comparing.release_gate import gate, parse_margins
from fedllm_eval.deciding.break_even import BreakEven, break_even
from fedllm_eval.deciding.candidate_runs import (
    alone_commands,
    left_behind_of_candidate,
    price_of_candidate,
    run_at_hand,
    run_dates,
    train_rows,
)
from fedllm_eval.deciding.deciding_rules import (
    ALPHA,
    Evidence,
    Recommendation,
    Rule,
    Thresholds,
    apply_rules,
    recommend,
)
from fedllm_eval.deciding.effects import DECIDING_SCORES, Effect, deciding_score, measure_effect
from fedllm_eval.deciding.own_rows import own_rows
from fedllm_eval.deciding.partner_costs import RunPrice
from fedllm_eval.deciding.partners import Partner, list_partners
from fedllm_eval.deciding.scored_candidates import Candidate, Given, read_candidates
from fedllm_eval.deciding.stated_lines import StatedPrices
from fedllm_eval.deciding.trained_how import TrainedHow, trained_how
from fedllm_eval.plain_json import without_nan
from fedllm_eval.scoring.comparisons import holm

__all__ = ["FORMAT", "Asked", "Decided", "Decision", "decide"]

FORMAT = "fedllm-eval-decide/1"
PARTICIPANTS = ("test", "train", "unseen")
"""Splits in the order in which one is taken to decide by; `train` are rows that were trained on."""
NEWCOMERS = "unseen"
ORDER = ("release", "collect_more", "do_not_release")


@dataclass(frozen=True, kw_only=True)
class Decided:
    """One candidate with all that was found about it."""

    label: str
    gain: Effect
    p_holm: float
    others: tuple[Effect, ...]
    """The other scores that can be said in words, on the same clients."""
    newcomers: Effect | None
    alone: Effect | None
    alone_over_before: Effect | None
    """What training alone gives those clients over what was before."""
    price: RunPrice | None
    break_even: BreakEven
    rules: tuple[Rule, ...]
    recommendation: Recommendation
    from_leader: Effect | None = None
    """This candidate's gain over the leading one; None for the leader itself."""
    p_from_leader: float = float("nan")
    how: TrainedHow | None = None
    """Wire and participation; None where the run folder is not at hand."""
    left_behind: Mapping[str, Any] | None = None
    """What each group of clients gave to the run, as `running.run_left_behind` gives it; None where it is not told."""
    facts: tuple[tuple[str, str, int | None], ...] = ()
    """Name of the policy, digest of its adapter, seed; of every run."""

    @property
    def is_told_apart(self) -> bool:
        """Whether the leader is shown to be better, beyond noise."""
        found = self.from_leader
        return found is not None and found.high < 0 and self.p_from_leader < ALPHA

    def as_record(self) -> dict[str, Any]:
        """Return all figures without a line for any partner."""
        optional = ("newcomers", "alone", "alone_over_before", "from_leader")
        found = {name: effect for name in optional if (effect := getattr(self, name)) is not None}
        return {
            "label": self.label,
            "recommendation": self.recommendation,
            "rules": [asdict(rule) for rule in self.rules],
            "gain": self.gain.as_record() | {"p_holm": self.p_holm},
            "other_scores": [effect.as_record() for effect in self.others],
            **{name: found[name].as_record() if name in found else None for name in optional},
            "p_from_leader": self.p_from_leader,
            "price": None if self.price is None else self.price.as_record(),
            "break_even": asdict(self.break_even),
            "trained_how": None if self.how is None else asdict(self.how),
            "left_behind": self.left_behind,
            "runs": [dict(zip(("policy", "adapter_sha256", "seed"), fact, strict=True)) for fact in self.facts],
        }


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a decision page says."""

    chosen: Decided
    candidates: tuple[Decided, ...]
    """All of them, the chosen one first."""
    partners: tuple[Partner, ...]
    thresholds: Thresholds
    prices: StatedPrices
    dataset: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, Any]
    task: str
    before: str
    folders: tuple[str, ...]
    alone_commands: tuple[str, ...]
    """What would tell how training alone does, where nobody did: training, scoring."""
    num_train_rows: dict[str, int] | None
    """Client id -> its training rows, where the corpus is at hand; never written."""
    run_dates: tuple[tuple[str, str], ...]
    """Run folder -> the day on which its rounds were written, as the file says."""

    @property
    def recommendation(self) -> Recommendation:
        """Of the chosen candidate."""
        return self.chosen.recommendation

    @property
    def known_partners(self) -> set[str]:
        """Everybody who was scored, took part, or has rows in the corpus."""
        paid = set[str]() if self.chosen.price is None else set(self.chosen.price.partners)
        return {one.client_id for one in self.partners} | paid | set(self.num_train_rows or ())

    def as_record(self) -> dict[str, Any]:
        """Return the decision as `decision.json` holds it; no partner is named."""
        record: dict[str, Any] = {
            "format": FORMAT,
            "recommendation": self.recommendation,
            "chosen": self.chosen.label,
            "task": self.task,
            "dataset": self.dataset,
            "before": self.before,
            "settings": self.settings,
            "thresholds": asdict(self.thresholds),
            "candidates": [one.as_record() for one in self.candidates],
            "folders": list(self.folders),
            "alone_commands": list(self.alone_commands),
            "versions": self.versions,
        }
        cleaned: dict[str, Any] = without_nan(record)
        return cleaned


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a reader may ask of a decision beside the folders."""

    before: str | None = None
    alone: str | None = None
    score: str | None = None
    also_cost: Sequence[Path] = ()
    """Runs that the candidates' runs started from, where their cost is to count."""
    margins: Sequence[str] = ()
    seed: int = 0


def decide(
    places: Sequence[str | Path],
    *,
    asked: Asked | None = None,
    thresholds: Thresholds | None = None,
    prices: StatedPrices | None = None,
) -> Decision:
    """Decide about one or more candidates.

    Args:
        places: results folders or run folders, as in `scored_candidates.read_candidates`.
        asked: what was before, who trained alone, the deciding score, margins.
        thresholds: of the rules.
        prices: lines and prices.

    Raises:
        ConfigError: if a folder holds no results or nothing was scored before.
        MetricError: if folders were not scored alike, or share no client.

    >>> decide(["no/such/folder"])
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no/such/folder holds no results; make them by `fedllm-eval run ... --out no/suc...
    """
    asked, thresholds, prices = asked or Asked(), thresholds or Thresholds(), prices or StatedPrices()
    given = read_candidates(places, before=asked.before, alone=asked.alone)
    methods = [given.before, *(candidate.method for candidate in given.candidates)]
    score = deciding_score(methods, asked.score)
    split = _split(methods)
    gains = [_gain(given.before, candidate.method, split, score, asked.seed) for candidate in given.candidates]
    order = sorted(range(len(gains)), key=lambda i: (-gains[i].gain, given.candidates[i].label))
    leader = given.candidates[order[0]].method
    apart = {i: _gain(leader, given.candidates[i].method, split, score, asked.seed) for i in order[1:]}
    corrected = holm([*(gain.p_value for gain in gains), *(effect.p_value for effect in apart.values())])
    p_apart = dict(zip(apart, corrected[len(gains) :], strict=True))
    decided = []
    for i in order:
        candidate = given.candidates[i]
        one = _decided(given, candidate, gains[i], corrected[i], asked, thresholds, prices)
        decided.append(one if i not in apart else _beside(one, apart[i], p_apart[i]))
    chosen = _chosen(decided)
    first = given.first.results.summary
    return Decision(
        chosen=chosen,
        candidates=(chosen, *(one for one in decided if one is not chosen)),
        partners=list_partners(
            given.before,
            _candidate(given, chosen.label).method,
            chosen.gain,
            chosen.newcomers,
            chosen.alone,
            chosen.price,
        ),
        thresholds=thresholds,
        prices=prices,
        dataset=dict(first["dataset"]),
        settings=dict(first["settings"]) | {"seed_of_intervals": asked.seed},
        versions=dict(first.get("versions", {})),
        task=first["task"],
        before=str(given.before.runs[0].results.summary["policy"]["name"]),
        folders=tuple(str(folder) for folder in given.folders),
        alone_commands=() if chosen.alone is not None else alone_commands(given, _candidate(given, chosen.label)),
        num_train_rows=train_rows(given),
        run_dates=run_dates(given),
    )


def _candidate(given: Given, label: str) -> Candidate:
    return next(one for one in given.candidates if one.label == label)


def _split(methods: Sequence[Method]) -> str:
    having = [set(run.results.summary["splits"]) for method in methods for run in method.runs]
    common = set.intersection(*having)
    if not common:
        raise MetricError("the folders have no split in common; score the same splits")
    return next((split for split in PARTICIPANTS if split in common), sorted(common)[0])


def _gain(before: Method, after: Method, split: str, score: str, seed: int) -> Effect:
    found = measure_effect(before, after, split, score, seed=seed)
    if found is None:
        raise MetricError(
            f"{before.label} and {after.label} share no scored client in split {split}; score the same clients"
        )
    if found.num_clients < 2:
        raise MetricError(
            f"one client was scored in split {split}; a decision for many needs the scores of at least two"
        )
    return found


def _decided(
    given: Given,
    candidate: Candidate,
    gain: Effect,
    p_holm: float,
    asked: Asked,
    thresholds: Thresholds,
    prices: StatedPrices,
) -> Decided:
    method = candidate.method
    others = [
        effect
        for name in DECIDING_SCORES
        if name != gain.score and _all_have([given.before, method], name)
        if (effect := measure_effect(given.before, method, gain.split, name, seed=asked.seed)) is not None
    ]
    alone = over_before = newcomers = None
    if given.alone is not None and _all_have([given.alone], gain.score):
        alone = measure_effect(given.alone, method, gain.split, gain.score, seed=asked.seed)
        over_before = measure_effect(given.before, given.alone, gain.split, gain.score, seed=asked.seed)
    if gain.split != NEWCOMERS and all(
        NEWCOMERS in run.results.summary["splits"] for one in (given.before, method) for run in one.runs
    ):
        newcomers = measure_effect(given.before, method, NEWCOMERS, gain.score, seed=asked.seed)
    price = price_of_candidate(given, candidate, asked.also_cost, prices)
    summary = method.runs[0].results.summary
    gated = None
    if asked.margins:
        effects = [gain, *others]
        margins = parse_margins(asked.margins, [effect.score for effect in effects])
        items = [
            (
                {
                    "score": effect.score,
                    "split": effect.split,
                    "other": candidate.label,
                    "higher_is_better": effect.higher_is_better,
                    "difference": effect.difference.difference,
                },
                effect.difference.bounds,
            )
            for effect in effects
        ]
        gated = gate(items, margins)
    rules = apply_rules(
        Evidence(
            gain=gain,
            p_holm=p_holm,
            newcomers=newcomers,
            alone=alone,
            seen_in_training=gain.split == "train",
            general_text=summary.get("general_text"),
            audit=summary.get("audit"),
            epsilon=None if price is None else price.epsilon,
            cost_is_known=price is not None,
            gate=gated,
            own_rows=own_rows(given.before, method, gain),
        ),
        thresholds,
    )
    paid = (
        {}
        if price is None
        else {
            "money": price.mean("money"),
            "num_bytes": price.mean("num_bytes"),
            "hours": price.mean("hours"),
        }
    )
    return Decided(
        label=candidate.label,
        gain=gain,
        p_holm=p_holm,
        others=tuple(others),
        newcomers=newcomers,
        alone=alone,
        alone_over_before=over_before,
        price=price,
        break_even=break_even(gain.score, (gain.gain, gain.low, gain.high), **paid),
        rules=tuple(rules),
        recommendation=recommend(rules),
        how=trained_how(run_at_hand(candidate)),
        left_behind=left_behind_of_candidate(given, candidate, asked.seed),
        facts=tuple(
            (run.results.summary["policy"]["name"], str(run.results.summary["policy"].get("adapter_sha256")), run.seed)
            for run in method.runs
        ),
    )


def _beside(one: Decided, effect: Effect, p_value: float) -> Decided:
    return replace(one, from_leader=effect, p_from_leader=p_value)


def _chosen(decided: Sequence[Decided]) -> Decided:
    """Of the best recommendation the leader, or what is cheaper and cannot be told from it."""
    best = min((one.recommendation for one in decided), key=ORDER.index)
    of_best = [one for one in decided if one.recommendation == best]
    alike = [one for one in of_best if one is of_best[0] or (of_best[0] is decided[0] and not one.is_told_apart)]
    if any(one.price is None for one in alike):
        return alike[0]
    return min(alike, key=lambda one: (0 if one.price is None else one.price.num_bytes, alike.index(one)))


def _all_have(methods: Sequence[Method], score: str) -> bool:
    return all(score in run.results.per_client.column_names for method in methods for run in method.runs)
