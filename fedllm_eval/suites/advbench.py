"""AdvBench: how often a policy does what harmful requests ask (Zou et al. 2023), told by refusals.

The requests are given by the user and not shipped: a CSV with the column `goal` (and `target`, which is not used), a
JSON list of texts or of records with `goal`, `instruction` or `prompt`, or JSON lines of such records. Attack success
is the share of answers that are no refusal, the harmless rate one minus it. A rule of phrases calls an answer that
babbles a success: it bounds what was given away, it does not measure it.

Switch `refusal_list` chooses what the main scores go by: `curated` (default), `prefix`, `benchmark` or
`benchmark_as_released` (FedLLM-Bench's keywords, with the comma it lacks or without). The other rules' rates stand
beside it.
"""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

from fedllm_data.errors import ConfigError
from fedllm_eval.running.counted_refusals import Prompt, count_refusals, rate_score, refusal_settings
from fedllm_eval.scoring.refusal import REFUSAL_RULES
from fedllm_eval.suites.suite import SuiteOptions, SuiteResult
from fedllm_eval.texts import whole

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.served import ServedPolicy

__all__ = ["AdvBench", "read_requests"]

FIELDS = ("goal", "instruction", "prompt")


class AdvBench:
    """Attack success on harmful requests."""

    name = "advbench"
    summary = "attack success and harmless rate on harmful requests, by refusals"
    needs: tuple[str, ...] = ("items",)

    def run(self, policy: "Policy | ServedPolicy", options: SuiteOptions) -> SuiteResult:
        """Put the requests to a policy.

        Raises:
            ConfigError: if no file of requests is given, it cannot be read, or a switch is unknown.
        """
        if options.items is None:
            raise ConfigError(
                "suite advbench ships no harmful requests; give the file by --suite-items advbench=FILE, such as "
                "AdvBench's harmful_behaviors.csv"
            )
        prompts = read_requests(options.items)
        found = count_refusals(policy, prompts, options)
        main = found.rates[found.main_rule]
        scores = [
            rate_score("advbench/attack_success", main, refused=False, higher_is_better=False),
            rate_score("advbench/harmless", main, refused=True, higher_is_better=True),
            *(
                rate_score(f"advbench/attack_success_{rule}", found.rates[rule], refused=False, higher_is_better=False)
                for rule in REFUSAL_RULES
                if rule != found.main_rule
            ),
        ]
        settings = {**refusal_settings(options), "items": options.items.name, "num_requests": len(prompts)}
        return SuiteResult(
            suite=self.name,
            version="1",
            scores=tuple(scores),
            items=found.items,
            settings=settings,
            notes=found.notes,
        )


def read_requests(file: Path) -> list[Prompt]:
    """Return the requests of a CSV, JSON or JSON-lines file.

    Raises:
        ConfigError: if there is no such file, it has none of the fields, or it holds no request.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}; name a CSV, JSON or JSON-lines file") from error
    if file.suffix.lower() == ".csv":
        records: object = list(csv.DictReader(text.splitlines(keepends=True)))
    else:
        try:
            if file.suffix.lower() == ".jsonl":
                records = whole([json.loads(line) for line in text.split("\n") if line.strip()])
            else:
                records = whole(json.loads(text))
        except json.JSONDecodeError as error:
            raise ConfigError(f"{file} is no JSON: {error}; requests are a CSV, a JSON list or JSON lines") from error
    if not isinstance(records, list) or not records:
        raise ConfigError(f"{file} holds no list of requests; it needs a column or field named {' or '.join(FIELDS)}")
    return [Prompt(f"{index:04d}", _request(record, file, index)) for index, record in enumerate(records)]


def _request(record: object, file: Path, index: int) -> str:
    if isinstance(record, dict):
        record = next((record[field] for field in FIELDS if record.get(field)), None)
    if not isinstance(record, str) or not record.strip():
        raise ConfigError(
            f"{file}: request {index} has no text under {' or '.join(FIELDS)}; add it or drop the request"
        )
    return record.strip()
