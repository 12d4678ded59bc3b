"""Suites put to the policies of one evaluation: checked before the work, kept one by one, compared item by item.

What a suite needs and was not given is one line before the work. A finished suite of one policy is a part
(`running/finished_parts.py`); inside an unfinished one, answers and judgments are kept by the suite itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_eval.judging import Judge, JudgeSettings, make_judge
from fedllm_eval.running.finished_parts import FinishedPart, FinishedParts, file_digest
from fedllm_eval.running.policy_scores import identity
from fedllm_eval.running.suite_records import suite_record
from fedllm_eval.served import Served, ServedPolicy, ServedSettings
from fedllm_eval.suites import NEED_WEIGHTS, SUITES, Suite, SuiteOptions, SuiteResult, SuiteScore

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = [
    "SuiteBench",
    "SuitePlan",
    "check_served",
    "check_suites",
    "make_plan_judge",
    "run_suites",
    "suites_against_base",
]

Progress = Callable[[str, int, int], None]
FILE_SWITCHES = ("answers", "opponent")
"""Switches that name a file: what is in it settles the result, not where it lies."""


@dataclass(frozen=True, kw_only=True)
class SuitePlan:
    """Which suites are run, on what, and how."""

    names: tuple[str, ...] = ()
    items: Mapping[str, Path] = field(default_factory=dict)
    """Suite -> its questions."""
    switches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Suite -> settings of its own."""
    judge: JudgeSettings | None = None
    served: ServedSettings | None = None
    """Where the policy is served: suites that generate take their answers from there."""
    max_items: int | None = None
    max_new_tokens: int = 512


def check_suites(plan: SuitePlan) -> dict[str, Suite]:
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
                f"items or switches were given for suite {given!r}, which is not run; "
                + (did_you_mean(given, plan.names) or f"add --suite {given}").rstrip()
            )
    suites: dict[str, Suite] = {}
    for name in dict.fromkeys(plan.names):
        if name not in SUITES:
            raise ConfigError(
                f"there is no suite {name!r}; {did_you_mean(name, SUITES)}the suites are {', '.join(sorted(SUITES))}"
            )
        module, _, cls = SUITES[name].partition(":")
        suite: Suite = getattr(import_module(module), cls)()
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


def suites_against_base(suites: Mapping[str, Suite], plan: SuitePlan) -> list[str]:
    """Return the names of the suites whose opponent is the base of the evaluation.

    >>> judge = JudgeSettings(recorded="said.jsonl")
    >>> plan = SuitePlan(names=("pairwise",), items={"pairwise": Path(__file__)}, judge=judge)
    >>> suites_against_base(check_suites(plan), plan)
    ['pairwise']
    """
    return [
        name for name, suite in suites.items() if "opponent" in suite.needs and "opponent" not in _files(plan, name)
    ]


def check_served(plan: SuitePlan, suites: Mapping[str, Suite], *, base: bool, weights: bool) -> None:
    """Refuse a plan that a server cannot carry out, before anything is asked.

    Args:
        plan: with the settings of a served policy, or none.
        suites: from `check_suites`.
        base: whether the base is put to the suites as well.
        weights: whether the policy's weights are at hand too.

    Raises:
        ConfigError: if the base is needed and not named, or a suite needs weights that are not there.

    >>> plan = SuitePlan(names=("crass",), served=ServedSettings(url="http://127.0.0.1:1/v1", model="m"))
    >>> check_served(plan, {"crass": None}, base=False, weights=False)
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ConfigError: suite crass reads log-probabilities, which a server does not give; score the ...
    """
    if plan.served is None:
        return
    lacking = [name for name in suites if name in NEED_WEIGHTS]
    if lacking and not weights:
        raise ConfigError(
            f"suite {lacking[0]} reads log-probabilities, which a server does not give; score the weights by "
            "RUN_OR_MODEL without --suites-only, or leave the suite out"
        )
    if lacking == list(suites):
        raise ConfigError(
            f"--served was given, but no suite that is run takes answers ({', '.join(lacking) or 'none is named'}); "
            "name one by --suite, or leave --served out"
        )
    against = suites_against_base(suites, plan)
    if plan.served.base_model is None and (base or against):
        what = f"suite {against[0]} sets answers against the base's" if against else "the base is compared as well"
        raise ConfigError(
            f"{what}, and the base must answer from the same server; give its name there by --served base_model=NAME"
        )


def make_plan_judge(plan: SuitePlan, cache: Path | None) -> Judge | None:
    """Return the judge of a plan, None where it has none; judgments are kept in `cache` unless the plan says where.

    Raises:
        ConfigError: if the judge cannot be made.
    """
    if plan.judge is None:
        return None
    return make_judge(plan.judge if plan.judge.cache is not None else replace(plan.judge, cache=cache))


@dataclass(frozen=True, kw_only=True)
class SuiteBench:
    """What all suites of one evaluation share."""

    plan: SuitePlan
    suites: Mapping[str, Suite]
    """From `check_suites`."""
    judge: Judge | None
    """From `make_plan_judge`."""
    parts: FinishedParts
    """Where finished suites are kept."""
    served: Served | None = None
    """Who answers instead of the model in memory, in all suites but those of `NEED_WEIGHTS`."""
    folder: Path
    """Where the answers of an unfinished suite are kept; made where it is missing."""
    opponent: "Policy | None" = None
    """The base, for the suites of `suites_against_base`; it is not put to these itself."""
    batch_size: int = 8
    """Conversations side by side."""
    seed: int = 0
    """Seeds sampled answers."""
    progress: Progress | None = None
    """Called with (suite and policy, items done, items in all)."""


def run_suites(bench: SuiteBench, policies: Mapping[str, "Policy | None"]) -> dict[tuple[str, str], SuiteResult]:
    """Put every suite to every policy.

    Args:
        bench: suites, judge and places.
        policies: label -> policy; None where only the server has it.

    Returns:
        (label, suite) -> result, the base's before the others'.

    Raises:
        ConfigError: if a suite cannot use what it was given.
        JudgeError: if a judge stops.
    """
    found = {}
    against_base = suites_against_base(bench.suites, bench.plan)
    for name, suite in bench.suites.items():
        other = _answering(bench, name, "base", bench.opponent) if name in against_base else None
        for label, in_memory in policies.items():
            policy = _answering(bench, name, label, in_memory)
            if other is not None and label == "base":
                continue
            # A judgment that failed is asked for again next time; answers and finished judgments are kept inside.
            complete = _all_scored if "judge" in suite.needs else _any
            part = bench.parts.get(
                f"suite {name} {label}",
                _key(bench, suite, policy, other),
                partial(_run, bench, suite, label, policy, other),
                complete=complete,
            )
            found[label, name] = _from_part(part)
    return found


def _answering(bench: SuiteBench, name: str, label: str, in_memory: "Policy | None") -> "Policy | ServedPolicy":
    """Who is put to a suite under a label."""
    if bench.served is not None and name not in NEED_WEIGHTS:
        return bench.served.get(label)
    assert in_memory is not None, "`check_suites` or the caller refuses what lacks weights"
    return in_memory


def _run(
    bench: SuiteBench,
    suite: Suite,
    label: str,
    policy: "Policy | ServedPolicy",
    opponent: "Policy | ServedPolicy | None",
) -> FinishedPart:
    plan, place = bench.plan, bench.folder / suite.name.replace(":", "-")
    place.mkdir(parents=True, exist_ok=True)
    options = SuiteOptions(
        folder=place,
        items=plan.items.get(suite.name),
        judge=bench.judge,
        opponent=opponent,
        batch_size=bench.batch_size,
        max_new_tokens=plan.max_new_tokens,
        max_items=plan.max_items,
        seed=bench.seed,
        progress=_told(bench.progress, f"{suite.name}, {label}"),
        switches=plan.switches.get(suite.name, {}),
    )
    result = suite.run(policy, options)
    if isinstance(policy, ServedPolicy):
        notes = (*result.notes, *policy.take_notes())
        result = replace(result, settings={**result.settings, "served": policy.describe()}, notes=notes)
    return _to_part(result)


def _key(
    bench: SuiteBench, suite: Suite, policy: "Policy | ServedPolicy", opponent: "Policy | ServedPolicy | None"
) -> dict[str, Any] | None:
    """What settles the result; None where a policy cannot be recognised later."""
    plan, own = bench.plan, _identity(policy)
    their = None if opponent is None else _identity(opponent)
    if own is None or (opponent is not None and their is None):
        return None
    items = plan.items.get(suite.name)
    return {
        "policy": own,
        "suite": suite.name,
        "items": None if items is None else file_digest(items),
        "switches": {**plan.switches.get(suite.name, {}), **_digests(plan, suite.name)},
        "judge": _judge_key(bench.judge) if bench.judge is not None and "judge" in suite.needs else None,
        "max_items": plan.max_items,
        "max_new_tokens": plan.max_new_tokens,
        "seed": bench.seed,
        **({} if opponent is None else {"opponent": their}),
    }


def _identity(policy: "Policy | ServedPolicy") -> dict[str, Any] | None:
    return policy.identity() if isinstance(policy, ServedPolicy) else identity(policy)


def _files(plan: SuitePlan, name: str) -> dict[str, str]:
    """The switches of a suite that name a file."""
    switches = plan.switches.get(name, {})
    return {switch: str(switches[switch]) for switch in FILE_SWITCHES if switches.get(switch) is not None}


def _digests(plan: SuitePlan, name: str) -> dict[str, str]:
    return {switch: file_digest(Path(file)) for switch, file in _files(plan, name).items()}


def _judge_key(judge: Judge) -> dict[str, Any]:
    record = judge.backend.record_file
    # A limit on spend or a time-out settles no judgment; who judges does, and of a record what is in it.
    return {"identity": judge.backend.identity(), "record": None if record is None else file_digest(record)}


def _told(progress: Progress | None, where: str) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(f"{where}, {what}", done, total)


def _all_scored(part: FinishedPart) -> bool:
    return bool(part.tables["items"]["score"].null_count == 0)


def _any(part: FinishedPart) -> bool:
    return True


def _to_part(result: SuiteResult) -> FinishedPart:
    return FinishedPart({"suite": result.suite, **suite_record(result)}, {"items": result.items})


def _from_part(part: FinishedPart) -> SuiteResult:
    scores: Sequence[Mapping[str, Any]] = part.record["scores"]
    return SuiteResult(
        suite=part.record["suite"],
        version=part.record["version"],
        scores=tuple(SuiteScore(**score) for score in scores),
        items=part.tables["items"],
        settings=part.record["settings"],
        notes=tuple(part.record["notes"]),
    )
