"""Suites put to the policies of one evaluation: checked before the work, kept one by one, compared item by item.

What a suite needs and was not given is one line before the work. A finished suite of one policy is a part
(`running/parts.py`); inside an unfinished one, answers and judgments are kept by the suite itself. Change is counted
on the items that both the base and the trained policy have (`change.suite_change`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.running.change import suite_change
from fedllm_eval.running.parts import Part, Parts, file_digest
from fedllm_eval.running.policy_scores import identity
from fedllm_eval.suites import SUITES, SuiteOptions, SuiteResult, SuiteScore

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = [
    "SuitePlan",
    "check_suites",
    "make_plan_judge",
    "run_suites",
    "suite_changes",
    "suite_records",
    "suites_against_base",
]

Progress = Callable[[str, int, int], None]
FILE_SWITCHES = ("answers", "opponent")
"""Switches that name a file: what is in it settles the result, not where it lies."""
LOWER_ITEMS_ARE_BETTER = frozenset({"over_refusal"})
"""Suites whose item score is 1 for what should not happen; of advbench it is 1 for a refusal, which should."""


@dataclass(frozen=True, kw_only=True)
class SuitePlan:
    """Which suites are run, on what, and how."""

    names: tuple[str, ...] = ()
    items: Mapping[str, Path] = field(default_factory=dict)
    """Suite -> its questions."""
    switches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Suite -> settings of its own."""
    judge: Mapping[str, Any] | None = None
    """Arguments of `judging.make_judge`."""
    max_items: int | None = None
    max_new_tokens: int = 512


def check_suites(plan: SuitePlan) -> dict[str, Any]:
    """Return the suites by name, once everything that they need is there.

    Raises:
        ConfigError: if a suite is unknown, something it needs was not given, or a file of items is missing.

    >>> check_suites(SuitePlan(names=("mt_bench",)))
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ConfigError: suite mt_bench needs a judge; give one by --judge, such as --judge recorded=FILE
    """
    for given in (*plan.items, *plan.switches):
        if given not in plan.names:
            raise ConfigError(
                f"items or switches were given for suite {given!r}, which is not run; add --suite {given}"
            )
    suites = {}
    for name in dict.fromkeys(plan.names):
        if name not in SUITES:
            raise ConfigError(f"there is no suite {name!r}; the suites are {', '.join(sorted(SUITES))}")
        module, _, cls = SUITES[name].partition(":")
        suite = getattr(import_module(module), cls)()
        for need in suite.needs:
            if need == "judge" and not plan.judge:
                raise ConfigError(f"suite {name} needs a judge; give one by --judge, such as --judge recorded=FILE")
            if need == "items" and name not in plan.items:
                raise ConfigError(
                    f"suite {name} ships no questions; give the file by --suite-items {name}=PATH ({suite.summary})"
                )
            # Without a file of answers the opponent is the base of the evaluation.
            if need not in ("judge", "items", "opponent") and not plan.switches.get(name, {}).get(need):
                raise ConfigError(f"suite {name} needs {need}; give them by --switch {name}.{need}=VALUE")
        if name in plan.items and not plan.items[name].exists():
            raise ConfigError(f"{plan.items[name]}, the items of suite {name}, is not there; check the path")
        for switch, file in _files(plan, name).items():
            if not Path(file).is_file():
                raise ConfigError(f"{file}, given by --switch {name}.{switch}, is no file; check the path")
        suites[name] = suite
    return suites


def suites_against_base(suites: Mapping[str, Any], plan: SuitePlan) -> list[str]:
    """Return the names of the suites whose opponent is the base of the evaluation.

    >>> plan = SuitePlan(names=("pairwise",), items={"pairwise": Path(__file__)}, judge={"recorded": "said.jsonl"})
    >>> suites_against_base(check_suites(plan), plan)
    ['pairwise']
    """
    return [
        name for name, suite in suites.items() if "opponent" in suite.needs and "opponent" not in _files(plan, name)
    ]


def make_plan_judge(plan: SuitePlan, cache: Path | None) -> Any:
    """Return the judge of a plan, None where it has none; finished judgments are kept in `cache` unless it says where.

    Raises:
        ConfigError: if an argument is unknown or the judge cannot be made.
    """
    if not plan.judge:
        return None
    import inspect

    from fedllm_eval.judging import make_judge

    known = list(inspect.signature(make_judge).parameters)
    for name in plan.judge:
        if name not in known:
            raise ConfigError(f"a judge has no setting {name!r}; its settings are {', '.join(known)}")
    return make_judge(**{"cache": cache, **plan.judge})


def run_suites(
    suites: Mapping[str, Any],
    policies: Mapping[str, "Policy"],
    plan: SuitePlan,
    judge: Any,
    parts: Parts,
    folder: Path,
    *,
    opponent: "Policy | None" = None,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[tuple[str, str], SuiteResult]:
    """Put every suite to every policy.

    Args:
        suites: from `check_suites`.
        policies: label -> policy.
        plan: items, switches and limits.
        judge: from `make_plan_judge`.
        parts: where finished suites are kept.
        folder: where the answers of an unfinished suite are kept; made where it is missing.
        opponent: the base, for the suites of `suites_against_base`; it is not put to these itself.
        batch_size: conversations side by side.
        seed: of sampled answers.
        progress: told (suite and policy, items done, items in all).

    Returns:
        (label, suite) -> result, the base's before the others'.

    Raises:
        ConfigError: if a suite cannot use what it was given.
        JudgeError: if a judge stops.
    """
    found = {}
    against_base = suites_against_base(suites, plan)
    for name, suite in suites.items():
        other = opponent if name in against_base else None
        their = None if other is None else identity(other)
        for label, policy in policies.items():
            if other is not None and label == "base":
                continue
            own = identity(policy)
            key = None
            if own is not None and (other is None or their is not None):
                key = {
                    "policy": own,
                    "suite": name,
                    "items": file_digest(plan.items[name]) if name in plan.items else None,
                    "switches": {**plan.switches.get(name, {}), **_digests(plan, name)},
                    "judge": _judge_key(plan, judge) if "judge" in suite.needs else None,
                    "max_items": plan.max_items,
                    "max_new_tokens": plan.max_new_tokens,
                    "seed": seed,
                    **({} if other is None else {"opponent": their}),
                }

            def run(
                suite: Any = suite, label: str = label, policy: "Policy" = policy, other: "Policy | None" = other
            ) -> Part:
                place = folder / suite.name
                place.mkdir(parents=True, exist_ok=True)
                options = SuiteOptions(
                    folder=place,
                    items=plan.items.get(suite.name),
                    judge=judge,
                    opponent=other,
                    batch_size=batch_size,
                    max_new_tokens=plan.max_new_tokens,
                    max_items=plan.max_items,
                    seed=seed,
                    progress=_told(progress, f"{suite.name}, {label}"),
                    switches=plan.switches.get(suite.name, {}),
                )
                return _to_part(suite.run(policy, options))

            # A judgment that failed is asked for again next time; answers and finished judgments are kept inside.
            complete = _all_scored if "judge" in suite.needs else _any
            found[label, name] = _from_part(parts.get(f"suite {name} {label}", key, run, complete=complete))
    return found


def suite_changes(results: Mapping[tuple[str, str], SuiteResult], before: str, after: str) -> list[dict[str, Any]]:
    """Return what training changed in each suite that both policies were put to, on the same items.

    A suite without an item that has a score under both carries a `reason` instead of a change.
    """
    changes: list[dict[str, Any]] = []
    for (label, name), trained in results.items():
        base = results.get((before, name))
        if label != after or base is None:
            continue
        try:
            found = suite_change(base, trained, higher_is_better=name not in LOWER_ITEMS_ARE_BETTER)
        except MetricError as error:
            changes.append({"suite": name, "reason": str(error)})
        else:
            changes.append({"suite": name, "reason": None, **asdict(found)})
    return changes


def suite_records(results: Mapping[tuple[str, str], SuiteResult]) -> dict[str, dict[str, Any]]:
    """Return what `results.json` holds of the suites: suite -> policy -> version, scores, settings and notes."""
    records: dict[str, dict[str, Any]] = {}
    for (label, name), result in results.items():
        records.setdefault(name, {})[label] = _record(result)
    return records


def _files(plan: SuitePlan, name: str) -> dict[str, str]:
    """The switches of a suite that name a file."""
    switches = plan.switches.get(name, {})
    return {switch: str(switches[switch]) for switch in FILE_SWITCHES if switches.get(switch) is not None}


def _digests(plan: SuitePlan, name: str) -> dict[str, str]:
    return {switch: file_digest(Path(file)) for switch, file in _files(plan, name).items()}


def _judge_key(plan: SuitePlan, judge: Any) -> dict[str, Any]:
    recorded = (plan.judge or {}).get("recorded")
    # A limit on spend or a time-out settles no judgment; who judges does, and of a record what is in it.
    return {
        "identity": judge.backend.identity(),
        "record": None if recorded is None else file_digest(Path(recorded)),
    }


def _told(progress: Progress | None, where: str) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(f"{where}, {what}", done, total)


def _all_scored(part: Part) -> bool:
    return bool(part.tables["items"]["score"].null_count == 0)


def _any(part: Part) -> bool:
    return True


def _record(result: SuiteResult) -> dict[str, Any]:
    return {
        "version": result.version,
        "scores": [asdict(score) for score in result.scores],
        "settings": dict(result.settings),
        "notes": list(result.notes),
    }


def _to_part(result: SuiteResult) -> Part:
    return Part({"suite": result.suite, **_record(result)}, {"items": result.items})


def _from_part(part: Part) -> SuiteResult:
    scores: Sequence[Mapping[str, Any]] = part.record["scores"]
    return SuiteResult(
        suite=part.record["suite"],
        version=part.record["version"],
        scores=tuple(SuiteScore(**score) for score in scores),
        items=part.tables["items"],
        settings=part.record["settings"],
        notes=tuple(part.record["notes"]),
    )
