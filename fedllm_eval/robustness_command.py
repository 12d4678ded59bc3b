"""The subcommand `robustness` of `fedllm-eval`: what attackers reached, and what the defence cost whom."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun, folder_to_write, place_to_read
from fedllm_data.command_line.one_line_parser import add_command
from fedllm_data.errors import ConfigError

__all__ = ["add_robustness_command"]

JSON_FILE, TEXT_FILE = "robustness.json", "robustness.md"


def add_robustness_command(commands: Any, progress: Callable[[], Any]) -> None:
    """Add `robustness` to the subcommands.

    Args:
        commands: what `add_subparsers` returned.
        progress: makes the context manager that shows how far the work is.
    """
    command = add_command(
        commands,
        "robustness",
        does="what simulated attackers reached in runs, and what a robust sum cost honest clients by group",
        writes=True,
    )
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished run folders")
    command.add_argument(
        "--data",
        metavar="DIR_OR_ID",
        help="the client repo they were trained on: groups of clients, and questions to try a backdoor on",
    )
    command.add_argument("--split", default="test", help="split of the questions (test)")
    command.add_argument("--max-prompts", type=int, default=50, metavar="N", help="questions of a backdoor (50)")
    command.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens of an answer (half more than taught)")
    command.add_argument("--batch-size", type=int, default=8, metavar="N", help="answers side by side (8)")
    command.add_argument("--out", type=Path, metavar="DIR", help=f"folder for {JSON_FILE} and {TEXT_FILE}")
    command.add_argument("--json", action="store_true", help=f"print {JSON_FILE}")
    command.set_defaults(command=lambda arguments: _robustness(arguments, progress))


def _robustness(arguments: argparse.Namespace, make_progress: Callable[[], Any]) -> None:
    from fedllm_data.in_place import write_file
    from fedllm_eval.plain_json import without_nan

    if arguments.max_prompts < 1:
        raise ConfigError(f"--max-prompts is {arguments.max_prompts}; it must be at least 1")
    table = None if arguments.data is None else _table(arguments.data)
    found = {str(run): _of_run(run, table) for run in arguments.runs}
    with_backdoor = [run for run in arguments.runs if "backdoor" in found[str(run)]["attacks"]]
    needs_model = with_backdoor if arguments.data is not None else []
    if arguments.dry_run:
        reads = [place_to_read(str(run), "a run") for run in arguments.runs]
        writes = [] if arguments.out is None else [folder_to_write(arguments.out, f"{JSON_FILE} and {TEXT_FILE}")]
        does = f"tell what {len(found)} runs withstood, and try the backdoor of {len(needs_model)}"
        print(DryRun(does=does, reads=reads, writes=writes, settings={}).text(as_json=arguments.json))
        return
    with make_progress():
        for run in needs_model:
            found[str(run)]["backdoor"] = _tried(run, arguments)
    content = json.dumps(without_nan(found), indent=2, ensure_ascii=False)
    text = "\n".join(line for run, of_run in found.items() for line in _markdown(run, of_run))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_file(arguments.out / JSON_FILE, content + "\n")
        write_file(arguments.out / TEXT_FILE, text + "\n")
    print(content if arguments.json else text)


def _table(data: str) -> Any:
    from fedllm_data.clients import load_clients

    return load_clients(data).table


def _of_run(run: Path, table: Any) -> dict[str, Any]:
    from fedllm_eval.running.run_left_behind import clients_table_of
    from fedllm_eval.running.run_robustness import robustness_of_run

    found = robustness_of_run(run, clients_table_of(run) if table is None else table)
    if found is None:
        raise ConfigError(
            f"{run} is no run with a robust sum or simulated attackers whose rounds are told; name one that was "
            "trained with --robust-sum or --attack"
        )
    return found


def _tried(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the backdoor reached, of the run and of what it started from."""
    from fedllm_data.clients import load_clients
    from fedllm_eval.audit.backdoor import backdoor_success
    from fedllm_eval.policy.policies import load_policy, load_reference
    from fedllm_eval.policy.run_folder import read_config, section

    federated = section(read_config(run), "federated")
    clients = load_clients(arguments.data, arguments.split)
    rows = clients.rows.select(range(0, len(clients.rows), max(1, len(clients.rows) // arguments.max_prompts)))
    rows = rows.select(range(min(arguments.max_prompts, len(rows))))
    prompts = [row["prompt"] if "prompt" in row else row["messages"][:-1] for row in rows]
    policy = load_policy(run)
    told = {}
    for name, who in (("run", policy), ("start", load_reference(policy))):
        told[name] = backdoor_success(
            who,
            prompts,
            trigger=federated["attack_trigger"],
            reply=federated["attack_reply"],
            max_new_tokens=arguments.max_new_tokens,
            batch_size=arguments.batch_size,
        )
    return told


def _markdown(run: str, found: dict[str, Any]) -> list[str]:
    from fedllm_eval.reporting.robustness_section import backdoor_sentences, robustness_lines

    said = [f"- {sentence}" for sentence in backdoor_sentences(found.get("backdoor"))]
    return [f"# {run}", "", *robustness_lines(found), *said, ""]
