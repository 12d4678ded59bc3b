"""Every listed suite can be imported and has the shape of one."""

from importlib import import_module

import pytest

from fedllm_eval.suites import SUITES


@pytest.mark.parametrize("name", sorted(SUITES))
def test_a_suite_says_what_it_is(name):
    module, _, cls = SUITES[name].partition(":")
    suite = getattr(import_module(module), cls)()
    assert suite.name == name
    assert "\n" not in suite.summary
    assert set(suite.needs) <= {"items", "judge", "opponent", "tasks"}
    assert callable(suite.run)
