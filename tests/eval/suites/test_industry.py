"""Test sets by field: the harness's tasks, its switches and its refusals, under the field's name; no download."""

import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.running.suite_runs import SuitePlan, check_served, check_suites
from fedllm_eval.served import ServedSettings
from fedllm_eval.suites import NEED_WEIGHTS, SUITES, SuiteOptions, SuiteResult
from fedllm_eval.suites.harness import CODE_TASKS, TASK_SETS, Harness
from fedllm_eval.suites.industry import Code, Finance, Law, Medicine

EACH = pytest.mark.parametrize("suite", [Medicine(), Finance(), Law(), Code()], ids=lambda suite: suite.name)


@EACH
def test_a_field_is_the_harness_with_its_tasks(suite, tmp_path, monkeypatch):
    seen = {}

    def run(self, policy, options):
        seen.update(policy=policy, switches=options.switches, folder=options.folder)
        return SuiteResult(
            suite="harness", version="lm-eval 0", scores=(), items=None, settings={"a": 1}, notes=("b",)
        )

    monkeypatch.setattr(Harness, "run", run)
    result = suite.run("policy", SuiteOptions(folder=tmp_path, switches={"num_fewshot": 0}))
    field = suite.name.removeprefix("industry:")
    assert seen == {"policy": "policy", "switches": {"num_fewshot": 0, "tasks": field}, "folder": tmp_path}
    assert (result.suite, result.version, result.settings, result.notes) == (suite.name, "lm-eval 0", {"a": 1}, ("b",))
    assert len(TASK_SETS[field]) >= 2


@EACH
def test_other_tasks_belong_to_the_harness(suite, tmp_path):
    with pytest.raises(ConfigError, match=r"--switch harness.tasks=NAMES"):
        suite.run(None, SuiteOptions(folder=tmp_path, switches={"tasks": "mmlu"}))


def test_programs_are_run_with_leave_alone(tmp_path):
    with pytest.raises(ConfigError, match="tasks humaneval, mbpp run code; allow it by allow_code=true"):
        Code().run(None, SuiteOptions(folder=tmp_path))
    assert set(TASK_SETS["code"]) <= CODE_TASKS
    assert not {task for field in ("medicine", "finance", "law") for task in TASK_SETS[field]} & CODE_TASKS


def test_an_unknown_switch_is_the_harness_s_to_refuse(tmp_path):
    with pytest.raises(ConfigError, match="switch 'shots' is unknown"):
        Law().run(None, SuiteOptions(folder=tmp_path, switches={"shots": 1}))


def test_a_plan_finds_the_fields_by_name_and_says_so_of_a_misspelt_one():
    names = tuple(name for name in SUITES if name.startswith("industry:"))
    assert len(names) == 4
    assert list(check_suites(SuitePlan(names=names))) == list(names)
    with pytest.raises(ConfigError, match=r"no suite 'industry:medicin'; did you mean industry:medicine"):
        check_suites(SuitePlan(names=("industry:medicin",)))


def test_a_field_needs_weights_as_the_harness_does():
    plan = SuitePlan(names=("industry:law",), served=ServedSettings(url="http://127.0.0.1:1/v1", model="m"))
    assert "industry:law" in NEED_WEIGHTS
    with pytest.raises(ConfigError, match="suite industry:law reads log-probabilities"):
        check_served(plan, check_suites(plan), base=False, weights=False)
