"""Whether one method serves clients better than another: differences paired over the same clients.

Every method is set against the baseline. Only what was scored alike is compared: same task, dataset revision, sample
and `max_length`; implicit rewards also need the same reference and beta. Runs that differ in their seed alone are one
method, and its interval then covers other seeds, too. A difference counts as shown when its 95 % interval excludes 0
and its p-value, corrected over everything the comparison tests (methods, scores and splits, Holm), is below 0.05; the
second keeps a handful of clients from proving anything. Otherwise the verdict says what the data cannot tell, and how
large a difference would be seen (`comparing/comparison_verdicts.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedllm_data.errors import MetricError
from fedllm_data.rehearsal import end_of_checks
from fedllm_data.wording.catalogue import words
from fedllm_eval.comparing.compared_methods import Method, check_alike, group_methods, read_scored, split_name
from fedllm_eval.comparing.comparison_files import (
    comparison_table,
    means_of,
    worst_served_of,
    write_comparison,
)
from fedllm_eval.comparing.comparison_verdicts import ALPHA, Family, summary_of, verdict
from fedllm_eval.comparing.history import append_history, history_line, read_history
from fedllm_eval.comparing.paired_scores import paired_difference, paired_table, rows_std_error
from fedllm_eval.comparing.release_gate import gate, parse_margins
from fedllm_eval.comparing.trade_offs import AskedCosts, trade_offs
from fedllm_eval.plain_json import without_nan
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.comparisons import MethodDifference, holm
from fedllm_eval.scoring.intervals import interval_record

__all__ = ["compare_results", "comparison_table", "write_comparison"]

FORMAT = "fedllm-eval-compare/3"


def compare_results(
    folders: Sequence[str | Path],
    *,
    baseline: str | Path | None = None,
    margins: Sequence[str] = (),
    history: Path | None = None,
    costs: AskedCosts | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare methods with a baseline, client by client.

    Args:
        folders: results folders written by `write_results`, each FOLDER or NAME=FOLDER; folders of one name, or of
            runs that differ in their seed alone, are one method.
        baseline: what the others are set against; by default the first folder.
        margins: how much worse a method may be before the gate stops it: `0.02`, or `heldout_loss=0.02`, in the
            score's unit; none leaves the gate out.
        history: a file of earlier comparisons, shown on the page; this one is appended to it.
        costs: prices and lines, budgets and targets; the fronts are drawn without, as far as runs know their costs.
        seed: seeds the bootstrap and the sign flips.

    Returns:
        What a comparison file holds: `baseline`, `others`, `means` (of every method, with intervals), and under
        `comparisons` one item per other method, split and score with means, `difference` (other - baseline), `ci_low`,
        `ci_high`, `p_value`, `p_holm` (corrected over all items), `better_fraction` and `worse_fraction` of clients,
        `num_clients`, `num_seeds`, `covers_seeds`, `minimum_detectable` (after correction), `outcome` (better, worse,
        better run, worse run or undecided) and a `verdict`; `correction` says over what; `summary` in words; `gate`
        where margins were given; `trade_offs`, fronts and protocols as `comparing.trade_offs` gives them;
        `worst_served` by name; `history`; `caveats` on the intervals; `notes` name what could not be compared.

    Raises:
        ConfigError: if a folder holds no results, or the history cannot be used.
        MetricError: if there are not two methods, they were not scored alike, or a margin makes no sense.
    """
    places = list(folders)
    if baseline is not None:
        # Naming the baseline among the folders as well (by a wildcard, say) is no mistake.
        first_folder = split_name(baseline)[1].resolve()
        places = [baseline, *(place for place in folders if split_name(place)[1].resolve() != first_folder)]
    if len(places) < 2:
        raise MetricError(f"a comparison takes two or more results folders, got {len(places)}")
    earlier = [] if history is None else read_history(history)
    methods = group_methods(read_scored(places))
    if len(methods) < 2:
        raise MetricError(
            f"all folders are seeds of one method, {methods[0].label}; give another method, or name them NAME=FOLDER"
        )
    base, others = methods[0], methods[1:]
    notes: list[str] = []
    first = base.runs[0].results.summary
    for method in methods:
        for run in method.runs:
            check_alike(base.label, first, run.label, run.results.summary)
    end_of_checks()
    planned = [
        (other, split, name)
        for split in first["splits"]
        for name, able in _able(base, others, split, notes).items()
        for other in able
    ]
    tested = [_test(base, *what, len(planned), seed, notes) for what in planned]
    family = Family(
        num_tests=len(tested),
        num_methods=len({one.other.label for one in tested}),
        num_scores=len({one.score for one in tested}),
        num_splits=len({one.split for one in tested}),
    )
    corrected = holm([one.found.p_value for one in tested])
    comparisons = [_item(base, one, p_holm, family) for one, p_holm in zip(tested, corrected, strict=True)]
    caveats = _caveats(base, tested)
    if not comparisons:
        labels = ", ".join(method.label for method in methods)
        raise MetricError(f"{labels} have no split and score in common; score the same splits")
    known = list(dict.fromkeys(item["score"] for item in comparisons))
    bounded = [(item, one.found.bounds) for item, one in zip(comparisons, tested, strict=True)]
    comparison: dict[str, Any] = {
        "format": FORMAT,
        "task": first["task"],
        "dataset": first["dataset"],
        "settings": first["settings"],
        "interval": interval_record(seed, 1 - ALPHA),
        "correction": {"method": "Holm", "over": ["methods", "scores", "splits"], "alpha": ALPHA, **asdict(family)},
        "baseline": _about(base),
        "others": [_about(other) for other in others],
        "means": means_of(methods, comparisons),
        "comparisons": comparisons,
        "worst_served": worst_served_of(methods, comparisons),
        "gate": gate(bounded, parse_margins(margins, known)) if margins else None,
        "trade_offs": trade_offs(methods, costs or AskedCosts(), seed=seed),
        "summary": summary_of(comparisons, base.label, family.words()),
        "caveats": caveats,
        "notes": list(dict.fromkeys(notes)),
    }
    checked: dict[str, Any] = without_nan(comparison)
    checked["history"] = None
    if history is not None:
        line = history_line(checked)
        append_history(history, line)
        checked["history"] = [*earlier, line]
    return checked


@dataclass(frozen=True)
class _Tested:
    """One difference before it is corrected."""

    other: Method
    split: str
    score: str
    found: MethodDifference
    means: tuple[float, float]
    """Of the baseline and of the other."""
    two_levels: bool


def _about(method: Method) -> dict[str, Any]:
    policies = [run.results.summary["policy"] for run in method.runs]
    return {
        "label": method.label,
        "policy": policies[0],
        "runs": [
            {
                "folder": run.label,
                "place": str(run.folder),
                "seed": run.seed,
                "policy": run.results.summary["policy"]["name"],
            }
            for run in method.runs
        ],
    }


def _comparable(a: Method, b: Method, split: str, notes: list[str]) -> list[str]:
    """Scores that all runs of both methods have and that mean the same."""
    runs = [*a.runs, *b.runs]
    lacking = [run.label for run in runs if split not in run.results.summary["splits"]]
    if lacking:
        notes += [words("{label} has no scores for split {split}", label=label, split=split) for label in lacking]
        return []
    scores = [run.results.summary["splits"][split]["scores"] for run in runs]
    references = {
        (_identity(run.results.summary["reference"]), run.results.summary["settings"].get("beta")) for run in runs
    }
    names = []
    for name in (name for name in SCORES if any(name in found for found in scores)):
        having = [run.label for run, found in zip(runs, scores, strict=True) if name in found]
        if len(having) < len(runs):
            notes.append(words("only {having} has {name}", having=", ".join(having), name=name))
        elif SCORES[name].needs_reference and len(references) > 1:
            notes.append(
                words(
                    "{one} and {other} measure {name} against different references or betas",
                    one=a.label,
                    other=b.label,
                    name=name,
                )
            )
        else:
            names.append(name)
    return names


def _identity(policy: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """What a reference is, whatever it or its folder is called: base and adapter weights."""
    if policy is None:
        return None
    return policy.get("base_digest") or policy.get("base"), policy.get("adapter_sha256")


def _able(base: Method, others: Sequence[Method], split: str, notes: list[str]) -> dict[str, list[Method]]:
    """Score -> the methods that can be set against the baseline in it."""
    names = {id(other): _comparable(base, other, split, notes) for other in others}
    found = {name: [other for other in others if name in names[id(other)]] for name in SCORES}
    return {name: able for name, able in found.items() if able}


def _test(base: Method, other: Method, split: str, name: str, num_tests: int, seed: int, notes: list[str]) -> _Tested:
    common, a_SK, b_TK, num_any = paired_table(base, other, split, name)
    if not common:
        raise MetricError(
            f"{base.label} and {other.label} share no scored client in split {split}; score the same clients"
        )
    if len(common) < num_any:
        notes.append(
            words(
                "{num} clients of split {split} are scored in both {one} and {other}",
                num=len(common),
                split=split,
                one=base.label,
                other=other.label,
            )
        )
    std_error = rows_std_error(base, other, split, name, common, seed)
    found = paired_difference(base, other, name, (a_SK, b_TK), std_error=std_error, num_tests=num_tests, seed=seed)
    return _Tested(other, split, name, found, (float(a_SK.mean()), float(b_TK.mean())), std_error is not None)


def _item(base: Method, tested: _Tested, p_holm: float, family: Family) -> dict[str, Any]:
    found, about = tested.found, SCORES[tested.score]
    outcome, sentence = verdict(tested.other.label, base.label, tested.score, tested.split, found, p_holm, family)
    shares = found.higher_fraction, found.lower_fraction
    return {
        "other": tested.other.label,
        "split": tested.split,
        "score": tested.score,
        "baseline_mean": tested.means[0],
        "other_mean": tested.means[1],
        "difference": found.difference,
        "ci_low": found.low,
        "ci_high": found.high,
        "p_value": found.p_value,
        "p_holm": p_holm,
        "minimum_detectable": found.detectable(family.confidence),
        "better_fraction": shares[0] if about.higher_is_better else shares[1],
        "worse_fraction": shares[1] if about.higher_is_better else shares[0],
        "num_clients": found.num_clients,
        "num_seeds": list(found.num_seeds),
        "covers_seeds": found.covers_seeds,
        "levels": ["client", "row"] if tested.two_levels else ["client"],
        "unit": about.unit,
        "higher_is_better": about.higher_is_better,
        "outcome": outcome,
        "verdict": sentence,
    }


def _caveats(base: Method, tested: Sequence[_Tested]) -> list[str]:
    """What the intervals do not say, once per method."""
    found = []
    for one in tested:
        if one.found.covers_seeds:
            continue
        alone = [method for method in (one.other, base) if not method.is_fixed and len(method.runs) == 1]
        pair = {"other": one.other.label, "baseline": base.label}
        if max(one.found.num_seeds) == 1:
            found.append(
                words(
                    "{other} against {baseline}: one seed each, so the interval says what other clients would show,"
                    " not"
                    " what another seed would",
                    **pair,
                )
            )
        else:
            found.append(
                words(
                    "{other} against {baseline}: {name} has one seed, so how much it varies between seeds is not"
                    " known;"
                    " the interval takes it to vary as the other does, and other seeds are not covered",
                    **pair,
                    name=alone[0].label,
                )
            )
    return list(dict.fromkeys(found))
