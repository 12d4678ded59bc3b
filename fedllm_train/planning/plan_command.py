"""`fedllm-train plan`: reads its flags, plans every candidate, prints, and writes the page where one is asked for."""

import json
from collections.abc import Sequence

from fedllm_data.command_line.dry_run import DryRun, folder_to_write
from fedllm_data.errors import ConfigError
from fedllm_data.wording.catalogue import LANGUAGES
from fedllm_train.planning.plan_all import plan_all
from fedllm_train.planning.plan_flags import plan_flags
from fedllm_train.planning.plan_text import plan_lines

__all__ = ["run_plan"]


def run_plan(argv: Sequence[str]) -> None:
    """Do what `fedllm-train plan` was asked for.

    Args:
        argv: the flags after `plan`.

    Raises:
        ConfigError: for bad input.
    """
    flags = plan_flags(argv)
    if flags.language is not None and flags.language not in LANGUAGES:
        raise ConfigError(f"--language is {flags.language!r}; choose from {', '.join(LANGUAGES)}")
    if flags.out is None and (flags.is_dry or flags.language is not None):
        what = "--dry-run" if flags.is_dry else "--language"
        raise ConfigError(f"{what} is given, and without --out no page is written; leave it out, or give --out")
    plan = plan_all(flags)
    if flags.is_dry:
        assert flags.out is not None
        dry = DryRun(
            does=f"plan {len(plan.runs)} candidates of {plan.task} with {plan.model}",
            reads=[f"{plan.data}: {plan.num_clients:,} clients", f"{plan.model}: shapes alone"],
            writes=[folder_to_write(flags.out, "plan.html, plan.json")],
        )
        print(dry.text(as_json=flags.as_json))
        return
    if flags.out is not None:
        from fedllm_train.planning.plan_page import write_plan

        write_plan(plan, flags.out, language=flags.language)
    if flags.as_json:
        print(json.dumps(plan.as_record(), indent=2, ensure_ascii=False))
        return
    print("\n".join(plan_lines(plan)))
    if flags.out is not None:
        print(f"\n{flags.out / 'plan.html'}: the same, with numbers that can be changed")
