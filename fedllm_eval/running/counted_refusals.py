"""Prompts put to a policy and its refusals counted: what the suites `advbench` and `over_refusal` share.

The language of an answer is told by the project's detector, because the phrases are English: an answer in another
language that no phrase matches is undetermined, left out of the rates and counted (see `scoring/refusal.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.pipeline.language_detection import DETECTOR, detect_languages
from fedllm_data.wording.catalogue import words
from fedllm_eval.running.kept_answers import kept_answers
from fedllm_eval.scoring.proportion import Proportion
from fedllm_eval.scoring.refusal import REFUSAL_RULES, RefusalRate, Verdict, refusal_rate, verdicts
from fedllm_eval.suites.suite import SuiteOptions, SuiteScore

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.served import ServedPolicy

__all__ = ["Prompt", "Refusals", "count_refusals", "rate_score", "refusal_settings"]

SWITCHES = ("refusal_list", "temperature", "detect_language")
Detector = Callable[[Sequence[str]], list[str | None]]


@dataclass(frozen=True)
class Prompt:
    """One request of a suite."""

    item_id: str
    text: str
    category: str | None = None


@dataclass(frozen=True)
class Refusals:
    """Rates by rule (None where no answer can be classified), and one row per prompt."""

    rates: Mapping[str, RefusalRate | None]
    main_rule: str
    items: pa.Table
    notes: tuple[str, ...]


def refusal_settings(options: SuiteOptions) -> dict[str, Any]:
    """Return the settings that a result of these options states.

    Raises:
        ConfigError: if a switch is unknown or makes no sense.

    >>> from pathlib import Path
    >>> refusal_settings(SuiteOptions(folder=Path("."), switches={"refusal_list": "benchmark"}))["refusal_list"]
    'benchmark'
    """
    for name in options.switches:
        if name not in SWITCHES:
            raise ConfigError(
                f"switch {name!r} is unknown; {did_you_mean(name, SWITCHES)}this suite takes {', '.join(SWITCHES)}"
            )
    rule = options.switches.get("refusal_list", "curated")
    if rule not in REFUSAL_RULES:
        raise ConfigError(f"refusal_list is {rule!r}; it must be one of {', '.join(REFUSAL_RULES)}")
    detect = bool(options.switches.get("detect_language", True))
    return {
        "refusal_list": rule,
        "language_detector": DETECTOR if detect else None,
        "temperature": float(options.switches.get("temperature", 0.0)),
        "max_new_tokens": options.max_new_tokens,
        "max_items": options.max_items,
        "seed": options.seed,
    }


def count_refusals(
    policy: "Policy | ServedPolicy",
    prompts: Sequence[Prompt],
    options: SuiteOptions,
    detector: Detector = detect_languages,
) -> Refusals:
    """Answer the prompts, one turn each without a system message, and count refusals by every rule.

    Args:
        policy: who answers.
        prompts: at least one; their ids are unique.
        options: the suite's options; `max_items` takes the first ones.
        detector: gives the language of each answer, None where it does not dare.

    Returns:
        Rates by each of `REFUSAL_RULES`, and the answers with the verdict of the main rule.

    Raises:
        ConfigError: if there is no prompt or a setting makes no sense; before anything is answered.
    """
    settings = refusal_settings(options)
    prompts = list(prompts)[: options.max_items]
    if not prompts:
        raise ConfigError(f"no prompts to put to {policy.name!r}; the file or max_items leaves none")
    told = options.progress
    answers = kept_answers(
        policy,
        [[{"role": "user", "content": prompt.text}] for prompt in prompts],
        options.folder,
        max_new_tokens=options.max_new_tokens,
        temperature=settings["temperature"],
        seed=options.seed,
        batch_size=options.batch_size,
        progress=None if told is None else lambda done, total: told("answers", done, total),
    )
    texts = [answer.text for answer in answers]
    languages = detector(texts) if settings["language_detector"] is not None else None
    found = {rule: verdicts(texts, rule, languages) for rule in REFUSAL_RULES}
    main_rule = settings["refusal_list"]
    verdict = found[main_rule]
    columns = {
        "item_id": [prompt.item_id for prompt in prompts],
        "score": [None if one == "undetermined" else float(one == "refused") for one in verdict],
        "category": [prompt.category for prompt in prompts],
        "language": languages or [None] * len(prompts),
        "verdict": verdict,
        "prompt": [prompt.text for prompt in prompts],
        "answer": texts,
        "finished": [answer.finished for answer in answers],
    }
    types = {"score": pa.float64(), "finished": pa.bool_()}
    items = pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()})
    rates = {rule: None if set(one) == {"undetermined"} else refusal_rate(one) for rule, one in found.items()}
    return Refusals(rates, main_rule, items, _notes(verdict, rates[main_rule], answers))


def rate_score(name: str, rate: RefusalRate | None, *, refused: bool, higher_is_better: bool) -> SuiteScore:
    """Return a score: the share of refusals or, turned round, of answers; NaN where no answer can be classified."""
    share = Proportion(float("nan"), float("nan"), float("nan"), 0) if rate is None else rate.refused
    bounds = (share.low, share.high) if refused else (1 - share.high, 1 - share.low)
    return SuiteScore(
        name=name,
        value=share.fraction if refused else 1 - share.fraction,
        low=bounds[0],
        high=bounds[1],
        num_items=share.num_items,
        unit="fraction of answers",
        higher_is_better=higher_is_better,
    )


def _notes(verdict: list[Verdict], rate: RefusalRate | None, answers: Sequence[Any]) -> tuple[str, ...]:
    notes = []
    num_undetermined = verdict.count("undetermined")
    if rate is None:
        notes.append(
            words(
                "none of {num} answers can be told: all are empty or in another language than English, and the phrases"
                " are English",
                num=len(verdict),
            )
        )
    elif num_undetermined:
        notes.append(
            words(
                "{num} of {total} answers are empty or not in English and left out; whatever they are, the share of"
                " refusals over all lies between {low} and {high}",
                num=num_undetermined,
                total=len(verdict),
                low=f"{rate.lowest:.3f}",
                high=f"{rate.highest:.3f}",
            )
        )
    num_cut = sum(not answer.finished for answer in answers)
    if num_cut:
        notes.append(
            words("{num} of {total} answers were cut at the limit of tokens", num=num_cut, total=len(answers))
        )
    return tuple(notes)
