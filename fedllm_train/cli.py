"""`fedllm-train`: federated SFT, DPO and KTO, and what goes with them, from the command line.

Only the standard library is imported until a command runs, so that `--help` answers at once.
"""

import argparse
import json
import sys
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from fedllm_data.command_line.one_line_parser import OneLineParser, ShowVersion
from fedllm_data.terminal import run_command
from fedllm_train.config import FederatedConfig, RunInput
from fedllm_train.flag_names import flag_of, in_flags
from fedllm_train.strategies import STRATEGIES, settings_class

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when the work was done and 2 for bad input, with one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] in (["sft"], ["dpo"], ["kto"]):
        # TRL's own parser takes these, and it must not be imported for anything else.
        return run_command(
            "fedllm-train",
            lambda: _run(argv[0], argv[1:]),
            when_interrupted="go on with --resume",
            spell=lambda message: _in_flags(message, argv),
        )
    arguments = _parser().parse_args(argv)
    return run_command("fedllm-train", lambda: arguments.command(arguments), when_interrupted="nothing was written")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="fedllm-train", description="Federated SFT, DPO and KTO with TRL and PEFT.")
    parser.add_argument("--version", action=ShowVersion)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for task in ("sft", "dpo", "kto"):
        commands.add_parser(task, help=f"federated {task.upper()}; see fedllm-train {task} --help", add_help=False)
    tiny = commands.add_parser("tiny", help="train a small base model on a corpus's public split, without a hub")
    tiny.add_argument("--data", required=True, help="client repo with a public split: a folder or a Hub dataset id")
    tiny.add_argument("--out", required=True, type=Path, help="folder for the model and its tokenizer")
    tiny.add_argument("--steps", type=int, default=None, help="optimizer steps (default: about a minute's worth)")
    tiny.add_argument("--seed", type=int, default=0)
    tiny.set_defaults(command=_tiny)
    publish = commands.add_parser("publish", help="publish a finished run on the Hub, in one commit")
    publish.add_argument("run", type=Path, metavar="RUN", help="a finished run folder")
    publish.add_argument("--repo", required=True, metavar="ORG/NAME", help="the model on the Hub")
    visibility = publish.add_mutually_exclusive_group()
    visibility.add_argument(
        "--private", action="store_true", help="make a new repo private; the default for a run on a local dataset"
    )
    visibility.add_argument("--public", action="store_true", help="make a new repo public")
    publish.add_argument(
        "--include-clients",
        action="store_true",
        help="also push what names single clients: ids, row counts and losses in rounds.jsonl, tables of scores",
    )
    publish.add_argument(
        "--include-scores",
        action="store_true",
        help="also push the scores of a run with differential privacy, though its guarantee does not cover them",
    )
    publish.add_argument("--json", action="store_true", help="print JSON instead of lines")
    publish.set_defaults(command=_publish)
    methods = commands.add_parser("methods", help="list the federated algorithms and what each can and cannot do")
    methods.add_argument("--json", action="store_true", help="machine-readable")
    methods.set_defaults(command=_methods)
    presets = commands.add_parser("presets", help="list the published set-ups that --preset begins from")
    presets.add_argument("--json", action="store_true", help="machine-readable")
    presets.set_defaults(command=_presets)
    return parser


def _run(task: str, argv: list[str]) -> None:
    if "-h" in argv or "--help" in argv:
        _help_parser(task).print_help()
        return
    # Third parties announce renamed settings; nothing a user of this command can do about it.
    warnings.filterwarnings("ignore", category=FutureWarning)
    if "--help-all" in argv:
        from fedllm_train.arguments import print_all_flags

        _help_parser(task).print_help()
        print_all_flags(task)
        return
    from fedllm_train.flags import check_surroundings, parse_our_flags

    flags = parse_our_flags(task, argv)
    check_surroundings(flags)

    from fedllm_data.clients import load_clients
    from fedllm_eval.policy.threads import threads_by_size
    from fedllm_train.arguments import parse_run_arguments
    from fedllm_train.monitoring.progress import RoundProgress
    from fedllm_train.run_files.finished import finished_folder
    from fedllm_train.trainer import FederatedTrainer

    arguments = parse_run_arguments(task, argv, flags=flags)
    for note in arguments.notes:
        print(f"fedllm-train: {note}", file=sys.stderr)
    clients = load_clients(arguments.given.data, split="train", revision=arguments.given.data_revision)
    rounds = RoundProgress(arguments.federated.num_rounds)
    with threads_by_size(), rounds as progress, progress.warnings("fedllm_train"):
        trainer = FederatedTrainer(
            arguments.given.model,
            arguments.federated,
            clients,
            arguments.client,
            arguments.peft,
            adapter=arguments.given.adapter,
            revision=arguments.revision,
            trust_remote_code=arguments.client.trust_remote_code,
            quantization=arguments.quantization,
            callbacks=[progress.advance],
        )
        state = trainer.train(resume=arguments.given.resume)
    ledger, made = state.ledger, finished_folder(trainer.model)
    place, spent = trainer.run / made, ""
    if trainer.guarantee is not None:
        spent = f"; {trainer.guarantee.spent_in_words(state.next_round)}"
    print(
        f"{trainer.run}: {state.next_round} rounds, {ledger.num_local_steps} local steps, "
        f"{ledger.download_bytes:,} bytes down, {ledger.upload_bytes:,} bytes up; {made} in {place}{spent}"
    )
    if trainer.unrendered is not None and trainer.unrendered.num_unrendered:
        print(trainer.unrendered.line())


def _in_flags(message: str, argv: Sequence[str]) -> str:
    """An error in the words of the command line; with a `--config` file, a bare name may be a key of it."""
    if any(word.partition("=")[0] == "--config" for word in argv):
        return in_flags(message)
    from fedllm_train.flags import setting_names

    return in_flags(message, setting_names())


def _help_parser(task: str) -> argparse.ArgumentParser:
    """Return a parser that only prints help: our own flags, and where the others are."""
    parser = argparse.ArgumentParser(
        prog=f"fedllm-train {task}",
        description=f"Federated {task.upper()} of one adapter on the clients of a dataset.",
        epilog=f"Every flag of TRL's {task.upper()}Config and ModelConfig works too (--learning-rate, "
        "--per-device-train-batch-size, --max-length, --lora-r, --lora-alpha, ..., --config FILE.yaml): --help-all "
        "lists them.",
        add_help=False,
    )
    groups = [parser.add_argument_group("what a run starts from"), parser.add_argument_group("the federation")]
    for group, dataclass_type in zip(groups, (RunInput, FederatedConfig), strict=True):
        for each in fields(dataclass_type):
            if each.name != "method":
                _add_help(group, each)
    seen: set[str] = set()
    of_methods = parser.add_argument_group("single methods (fedllm-train methods --json has which of them read what)")
    for name in STRATEGIES:
        for each in fields(settings_class(name)):
            if each.name not in seen:
                _add_help(of_methods, each)
            seen.add(each.name)
    parser.add_argument("--help-all", action="store_true", help="every flag, TRL's and PEFT's included")
    return parser


def _add_help(group: "argparse._ArgumentGroup", each: "Field[Any]") -> None:
    """Show a field of ours as a flag."""
    required = each.default is MISSING
    shown = "" if required or each.default in (None, False) else f" (default: {each.default})"
    group.add_argument(
        flag_of(each.name), required=required, metavar=each.name.upper(), help=each.metadata["help"] + shown
    )


def _tiny(arguments: argparse.Namespace) -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    from fedllm_data.clients import load_clients
    from fedllm_eval.policy.threads import threads_by_size
    from fedllm_train.models.tiny import TinyConfig, train_tiny
    from fedllm_train.monitoring.progress import StepProgress

    config = TinyConfig() if arguments.steps is None else TinyConfig(num_steps=arguments.steps)
    public = load_clients(arguments.data, split="public")
    with threads_by_size(), StepProgress(config.num_steps) as progress:
        result = train_tiny(public.rows, arguments.out, seed=arguments.seed, config=config, progress=progress.advance)
    print(
        f"{arguments.out}: {result.num_parameters:,} parameters, {result.num_steps} steps in "
        f"{result.train_seconds:.0f} s, loss {result.first_loss:.3f} -> {result.last_loss:.3f}"
    )


def _publish(arguments: argparse.Namespace) -> None:
    from fedllm_eval.policy.run_folder import read_config

    read_config(arguments.run)  # said at once where this is no run folder
    from fedllm_train.run_files.publish_run import publish_run

    result = publish_run(
        arguments.run,
        arguments.repo,
        private=True if arguments.private else False if arguments.public else None,
        include_clients=arguments.include_clients,
        include_scores=arguments.include_scores,
    )
    if arguments.json:
        names = ("repo_id", "revision", "url", "is_unchanged")
        said = {name: getattr(result, name) for name in names} | {"lines": result.lines()}
        print(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        print("\n".join([f"{result.url} is at {result.revision}", *result.lines()]))


def _methods(arguments: argparse.Namespace) -> None:
    from fedllm_train.methods import method_records, print_methods

    if arguments.json:
        print(json.dumps(method_records(), indent=2))
    else:
        print_methods()


def _presets(arguments: argparse.Namespace) -> None:
    from fedllm_train.presets import preset_records

    records = preset_records()
    if arguments.json:
        print(json.dumps(records, indent=2))
        return
    for record in records:
        print(f"{record['name']}: fedllm-train {record['task']}, {record['source']}")
        print(f"    {record['base_model']}, {record['num_clients']} clients in the original data")
        settings = [f"{flag}={','.join(v) if isinstance(v, list) else v}" for flag, v in record["settings"].items()]
        print(textwrap.fill(" ".join(settings), 100, initial_indent="    ", subsequent_indent="    "))
    print("\nFlags override a preset. int8 bases need a GPU and bitsandbytes; --json has what each method is set to.")
