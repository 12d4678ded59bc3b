"""Test sets of a field by one word: `--suite industry:medicine` runs the tasks of lm-evaluation-harness for medicine.

Each is the suite `harness` with its tasks chosen (`TASK_SETS`), and takes the harness's other switches, such as
`--switch industry:law.num_fewshot=0`. What a field's own set says beside the clients' held-out rows is whether tuning
on their rows helped or harmed what the field asks of a model in general.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from fedllm_data.errors import ConfigError
from fedllm_eval.suites.harness import TASK_SETS, Harness
from fedllm_eval.suites.suite import SuiteOptions, SuiteResult

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["Code", "Finance", "Industry", "Law", "Medicine"]


class Industry:
    """The tasks of one field."""

    name: str
    summary: str
    needs: tuple[str, ...] = ()
    task_set: str
    """A name of `TASK_SETS`."""

    def run(self, policy: "Policy", options: SuiteOptions) -> SuiteResult:
        """Run the field's tasks on a policy.

        Raises:
            ConfigError: if tasks are named besides, or the suite `harness` cannot run.
        """
        if "tasks" in options.switches:
            raise ConfigError(
                f"suite {self.name} runs {', '.join(TASK_SETS[self.task_set])}; "
                "for other tasks run --suite harness with --switch harness.tasks=NAMES"
            )
        found = Harness().run(policy, replace(options, switches={**options.switches, "tasks": self.task_set}))
        return replace(found, suite=self.name)


class Medicine(Industry):
    """Questions of medical examinations and of research."""

    name = "industry:medicine"
    summary = "medicine: MedQA, MedMCQA and PubMedQA through lm-evaluation-harness"
    task_set = "medicine"


class Finance(Industry):
    """The mood of financial news, and economics and accounting."""

    name = "industry:finance"
    summary = "finance: financial tweets and MMLU's economics and accounting through lm-evaluation-harness"
    task_set = "finance"


class Law(Industry):
    """Law of examinations and of the admission test to law schools."""

    name = "industry:law"
    summary = "law: MMLU's law and jurisprudence and AGIEval's LSAT through lm-evaluation-harness"
    task_set = "law"


class Code(Industry):
    """Programs that are run; needs leave to run them."""

    name = "industry:code"
    summary = "code: HumanEval and MBPP through lm-evaluation-harness; needs allow_code=true, as it runs the answers"
    task_set = "code"
