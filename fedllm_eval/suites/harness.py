"""Closed-ended benchmarks through lm-evaluation-harness (extra `harness`), on the policy that is in memory.

The harness (EleutherAI) owns questions, prompts, extraction and scores; here its tasks are chosen, the policy's model
is handed over with its adapter on, and what comes back becomes scores with intervals: value +- 1.96 of the harness's
own standard error. A metric for which it gives none has NaN bounds, and a note says so.

`--suite-items harness=FOLDER` names a folder of task files (the harness's `--include_path`), whose data may be local;
other tasks load theirs from the Hub. Switches: `tasks` (names of tasks, groups or of `TASK_SETS`, commas between),
`num_fewshot` (default the task's own), `chat_template` (default false, as published numbers have it), `allow_code`
(default false: HumanEval and MBPP run what the policy wrote, on this machine). Requests already answered are kept in
the suite's folder, one file a policy.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from math import isfinite
from numbers import Real
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.wording.catalogue import words
from fedllm_eval.suites.suite import SuiteOptions, SuiteResult, SuiteScore
from fedllm_eval.texts import json_text

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["CODE_TASKS", "TASK_SETS", "Harness", "suite_scores"]

TASK_SETS: dict[str, tuple[str, ...]] = {
    "closed_ended": ("mmlu", "bbh", "drop", "humaneval", "gsm8k"),
    "multilingual": ("mgsm_direct", "xcopa", "belebele"),
    "medicine": ("medqa_4options", "medmcqa", "pubmedqa"),
    "finance": (
        "financial_tweets",
        "mmlu_econometrics",
        "mmlu_high_school_macroeconomics",
        "mmlu_high_school_microeconomics",
        "mmlu_professional_accounting",
    ),
    "law": (
        "mmlu_international_law",
        "mmlu_jurisprudence",
        "mmlu_professional_law",
        "agieval_lsat_ar",
        "agieval_lsat_lr",
        "agieval_lsat_rc",
    ),
    "code": ("humaneval", "mbpp"),
}
"""Name -> tasks of lm-evaluation-harness 0.4.13."""
CODE_TASKS = frozenset({"humaneval", "humaneval_instruct", "humaneval_plus", "mbpp", "mbpp_instruct", "mbpp_plus"})
"""Tasks that run what the policy wrote, as far as `TASK_SETS` and their kin go; the harness knows them all."""
SWITCHES = ("tasks", "num_fewshot", "chat_template", "allow_code")
Z = NormalDist().inv_cdf(0.975)


class Harness:
    """Tasks of lm-evaluation-harness."""

    name = "harness"
    summary = "closed-ended benchmarks (MMLU, BBH, DROP, GSM8K, ...) through lm-evaluation-harness"
    needs: tuple[str, ...] = ("tasks",)

    def run(self, policy: "Policy", options: SuiteOptions) -> SuiteResult:
        """Run the tasks on a policy.

        Raises:
            ConfigError: if the harness is not installed, no task is named, a task is unknown, its data cannot be
                loaded, or it would run code without leave.
        """
        settings, notes = _settings(options)
        if find_spec("lm_eval") is None:
            raise ConfigError(
                "suite harness needs lm-evaluation-harness; install it by pip install fedllm-commons[harness]"
            )
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        manager = _task_manager(settings["tasks"], options.items)
        with policy.active() as model, _code_allowed(settings["allow_code"]):
            lm = HFLM(pretrained=model, tokenizer=policy.tokenizer, backend="causal", batch_size=options.batch_size)
            try:
                found = simple_evaluate(
                    lm,
                    tasks=list(settings["tasks"]),
                    num_fewshot=settings["num_fewshot"],
                    limit=options.max_items,
                    apply_chat_template=settings["chat_template"],
                    use_cache=_cache_path(policy, options.folder),
                    task_manager=manager,
                    confirm_run_unsafe_code=settings["allow_code"],
                    random_seed=options.seed,
                    numpy_random_seed=options.seed,
                    torch_random_seed=options.seed,
                    fewshot_random_seed=options.seed,
                )
            except ValueError as error:
                if "marked as unsafe" not in str(error):
                    raise
                raise ConfigError(
                    f"task {str(error).split()[4]} runs code that the policy wrote, on this machine; allow it "
                    "by allow_code=true where that is safe"
                ) from error
            except (OSError, KeyError) as error:
                reason = " ".join(str(error).split())[:200]
                raise ConfigError(
                    f"tasks {', '.join(settings['tasks'])} cannot be loaded: {reason}; check the names, the data "
                    "files and the network"
                ) from error
        scores, score_notes = suite_scores(found)
        settings["task_versions"] = {name: str(value) for name, value in found["versions"].items()}
        return SuiteResult(
            suite=self.name,
            version=f"lm-eval {settings['lm_eval']}",
            scores=scores,
            items=_items(found["samples"]),
            settings=settings,
            notes=(*notes, *score_notes),
        )


def _settings(options: SuiteOptions) -> tuple[dict[str, Any], list[str]]:
    for name in options.switches:
        if name not in SWITCHES:
            raise ConfigError(
                f"switch {name!r} is unknown; {did_you_mean(name, SWITCHES)}suite harness takes {', '.join(SWITCHES)}"
            )
    given = options.switches.get("tasks", ())
    wanted = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
    if not any(wanted):
        raise ConfigError(f"suite harness was given no tasks; name some, or one of the sets {', '.join(TASK_SETS)}")
    allow_code = bool(options.switches.get("allow_code", False))
    tasks, left_out = [], []
    for name in filter(None, wanted):
        for task in TASK_SETS.get(name, (name,)):
            if task in CODE_TASKS and not allow_code:
                if name == task:
                    raise ConfigError(
                        f"task {task} runs code that the policy wrote, on this machine; allow it by allow_code=true "
                        "where that is safe"
                    )
                left_out.append(task)
            else:
                tasks.append(task)
    if not tasks:
        raise ConfigError(f"tasks {', '.join(left_out)} run code; allow it by allow_code=true or name other tasks")
    notes = [words("{tasks} left out: running code was not allowed", tasks=", ".join(left_out))] if left_out else []
    num_fewshot = options.switches.get("num_fewshot")
    return {
        "tasks": tuple(dict.fromkeys(tasks)),
        "num_fewshot": None if num_fewshot is None else int(num_fewshot),
        "chat_template": bool(options.switches.get("chat_template", False)),
        "allow_code": allow_code,
        "max_items": options.max_items,
        "seed": options.seed,
        "items": None if options.items is None else options.items.name,
        "lm_eval": _harness_version(),
    }, notes


def _harness_version() -> str | None:
    try:
        return version("lm-eval")
    except PackageNotFoundError:
        return None


def _task_manager(tasks: tuple[str, ...], folder: Path | None) -> Any:
    from lm_eval.tasks import TaskManager

    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name a folder of task files (YAML) of lm-evaluation-harness")
    if folder is not None:
        # Indexing the harness's own 14,000 tasks takes fifteen seconds; local tasks do not need them.
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        if all(manager.match_tasks([task]) for task in tasks):
            return manager
    manager = TaskManager(include_path=None if folder is None else str(folder))
    unknown = [task for task in tasks if not manager.match_tasks([task])]
    if unknown:
        raise ConfigError(
            f"lm-evaluation-harness knows no task {', '.join(unknown)}; `lm_eval ls tasks` lists those it has, "
            "--suite-items harness=FOLDER names a folder of your own"
        )
    return manager


@contextmanager
def _code_allowed(allowed: bool) -> Iterator[None]:
    """The `code_eval` metric wants a word from the environment as well."""
    name = "HF_ALLOW_CODE_EVAL"
    before = os.environ.get(name)
    if allowed:
        os.environ[name] = "1"
    try:
        yield
    finally:
        if allowed:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


def _cache_path(policy: "Policy", folder: Path) -> str | None:
    """One file a policy: the harness's keys are the requests alone."""
    weights = {name: value for name, value in policy.describe().items() if name not in ("name", "base")}
    if weights["base_digest"] is None or (policy.adapter is not None and weights["adapter_sha256"] is None):
        return None
    digest = hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()
    return str(folder / f"harness-{digest[:16]}")


def suite_scores(found: Mapping[str, Any]) -> tuple[tuple[SuiteScore, ...], list[str]]:
    """Return one score for each metric of each task and group, with the harness's own error, and notes on these.

    Args:
        found: what `simple_evaluate` of lm-evaluation-harness returns.

    Returns:
        Scores with 95 % intervals, nan where the harness gives no standard error; and sentences for the reader.
    """
    scores, without_error, all_alike = [], [], []
    for task, values in {**found["results"], **found.get("groups", {})}.items():
        for key, value in values.items():
            metric, comma, rule = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, Real):
                continue
            name = f"{task}/{metric}" if rule == "none" else f"{task}/{metric}@{rule}"
            error = values.get(f"{metric}_stderr,{rule}")
            half = Z * float(error) if isinstance(error, Real) and isfinite(error) else float("nan")
            if not isfinite(half):
                without_error.append(name)
            elif half == 0:
                all_alike.append(name)
            counts = found["n-samples"].get(task) or {}
            scores.append(
                SuiteScore(
                    name=name,
                    value=float(value),
                    low=float(value) - half,
                    high=float(value) + half,
                    num_items=int(counts.get("effective") or _group_size(found, task)),
                    unit=f"{metric} of lm-evaluation-harness",
                    higher_is_better=bool(found["higher_is_better"].get(task, {}).get(metric, True)),
                )
            )
    notes = []
    if without_error:
        notes.append(
            words("lm-evaluation-harness gives no standard error for {scores}", scores=", ".join(without_error))
        )
    if all_alike:
        notes.append(
            words(
                "all items agree on {scores}: the harness's error is 0, the truth is not that sure",
                scores=", ".join(all_alike),
            )
        )
    return tuple(scores), notes


def _group_size(found: Mapping[str, Any], group: str) -> int:
    """Items of all tasks below a group."""
    below = found.get("group_subtasks", {}).get(group, [])
    sizes = found["n-samples"]
    return sum(int(sizes[task]["effective"]) if task in sizes else _group_size(found, task) for task in below)


def _items(samples: Mapping[str, list[dict[str, Any]]]) -> pa.Table:
    """One row per item, with the first metric of its task as the score."""
    rows: dict[str, list[Any]] = {"item_id": [], "score": [], "task": [], "metric": [], "answer": []}
    for task, entries in samples.items():
        for entry in sorted(entries, key=lambda entry: (entry["doc_id"], entry["filter"])):
            metric = next(iter(entry["metrics"]), None)
            value = entry.get(metric) if metric else None
            rule = "" if entry["filter"] == "none" else f"@{entry['filter']}"
            rows["item_id"].append(f"{task}/{entry['doc_id']}{rule}")
            rows["score"].append(float(value) if isinstance(value, Real) else None)
            rows["task"].append(task)
            rows["metric"].append(metric)
            rows["answer"].append(json_text(entry["filtered_resps"], default=str))
    types = {"score": pa.float64()}
    return pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in rows.items()})
