"""What a run would do, from its settings and the clients' roster: no weights are loaded and no rows are read.

`prepare` makes the plan and refuses what the run would refuse; here it is put into words.
"""

from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun, folder_to_write, place_to_read
from fedllm_data.errors import ConfigError
from fedllm_data.repo import open_repo
from fedllm_data.roster import roster_of_repo
from fedllm_train.arguments import RunArguments
from fedllm_train.clients.local_work import LocalWork
from fedllm_train.clients.memory_fit import goes_by_memory, memory_fit
from fedllm_train.prepare import RunPlan, prepare
from fedllm_train.run_files.open_run import is_begun

__all__ = ["dry_run"]


def dry_run(task: str, arguments: RunArguments) -> DryRun:
    """Return what a run would do.

    Args:
        task: "sft", "dpo" or "kto".
        arguments: everything the command was told.

    Raises:
        FedLLMError: for a dataset that is not there, or a setting that cannot be honoured.
    """
    run, federated = arguments.given, arguments.federated
    if run.data is None:
        raise ConfigError(
            "--dry-run reads what is here, and the clients are at sites; fedllm-train sites list says who is there"
        )
    roster = roster_of_repo(open_repo(run.data, run.data_revision))
    fit = None
    if goes_by_memory(federated) and run.adapter is None:
        kwargs = arguments.client.model_init_kwargs or {}
        quantization, dtype = arguments.quantization, kwargs.get("dtype")
        fit = memory_fit(
            run.model, arguments.peft, arguments.client, task=task, quantization=quantization, dtype=dtype
        )
    plan = prepare(federated, roster, arguments.client, fit=fit)
    places = [place_to_read(run.model, "the base model")]
    places += [] if run.adapter is None else [place_to_read(run.adapter, "the adapter to start from")]
    out = Path(federated.output_dir)
    return DryRun(
        does=f"{task} of {run.model} with {plan.strategy.traits.title}, {federated.num_rounds} rounds",
        reads=[f"{run.data}: {len(roster):,} training clients, {sum(roster.sizes.values()):,} rows", *places],
        writes=[folder_to_write(out, _written(plan, resume=run.resume and is_begun(out)))],
        settings=_settings(arguments, plan),
    )


def _written(plan: RunPlan, *, resume: bool) -> str:
    made = "model/" if plan.config.full_finetuning else "adapter/"
    personal = ", personal/" if plan.strategy.traits.personal else ""
    again = "; goes on from its newest checkpoint" if resume else ""
    return f"config.yaml, rounds.jsonl, checkpoints/, {made}{personal}, README.md{again}"


def _settings(arguments: RunArguments, plan: RunPlan) -> dict[str, Any]:
    """What was decided, by the words to show."""
    client, config, traits = arguments.client, plan.config, plan.strategy.traits
    up = "" if config.wire == "none" else f", packed by {config.wire}"
    up += "" if config.error_feedback == "none" else f" with {config.error_feedback}"
    down = "" if config.download_wire == "none" else f", packed by {config.download_wire} ({config.download_base})"
    adapter = "all weights"
    if arguments.given.adapter is not None:
        adapter = f"as {arguments.given.adapter}"
    elif arguments.peft is not None:
        settings = arguments.peft.to_dict()
        sizes = [f"{name} {settings[name]}" for name in ("r", "lora_alpha") if settings.get(name) is not None]
        adapter = ", ".join([arguments.given.peft_type, *sizes])
    shown = {
        "cohort": f"{plan.cohort_size} of {len(plan.participants):,} clients a round ({config.cohort_rule})",
        "waits for": None if plan.machines is None else _waits_for(plan),
        "machines": config.client_table,
        "local work": _work(plan.work),
        "rows a step": client.train_batch_size * client.gradient_accumulation_steps,
        "learning rate": f"{plan.learning_rate:g}, falling to {plan.min_learning_rate:g}",
        "tokens a row": client.max_length,
        "adapter": adapter,
        "down": f"{traits.down}{down}" if traits.travels else "nothing travels",
        "up": f"{traits.up}{up}" if traits.travels else "nothing travels",
        "privacy": _privacy(plan),
        "server sees": _sees(plan),
        "scores": None if config.eval_every is None else f"every {config.eval_every} rounds on {config.eval_split}",
        "seed": config.seed,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _waits_for(plan: RunPlan) -> str:
    waits = plan.turnout.in_words(plan.config)
    if plan.config.participation != "deadline":
        return waits
    late = "dropped" if plan.config.late == "drop" else "applied when they come"
    return f"{waits}; late ones are {late}"


def _work(work: LocalWork) -> str:
    if work.rule == "steps":
        return f"{int(work.amount)} steps a visit"
    over = "a visit" if work.rule == "epochs" else "in the whole run, as expected"
    return f"{work.amount:g} passes over a client's rows {over}"


def _sees(plan: RunPlan) -> str | None:
    if (sums := plan.sums) is None:
        return None
    least = sums.threshold_of(sums.max_clients)
    return (
        f"sums of {least} to {sums.max_clients} updates and no single one, in whole numbers of {sums.bits} bits and "
        f"steps of 2^-{sums.fraction_bits}"
    )


def _privacy(plan: RunPlan) -> str | None:
    if plan.row_guarantee is not None:
        return plan.row_guarantee.spent_in_words(plan.config.num_rounds)
    if plan.guarantee is None:
        return None
    return plan.guarantee.spent_in_words(plan.config.num_rounds)
