"""`fedllm-train`: federated SFT, DPO and KTO, and what goes with them, from the command line.

Only the standard library is imported until a command runs, so that `--help` answers at once.
"""

import argparse
import json
import re
import sys
import textwrap
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from fedllm_data.command_line.dry_run import DryRun, folder_to_write
from fedllm_data.command_line.one_line_parser import OneLineParser, ShowVersion, add_command
from fedllm_data.command_line.shared_commands import add_shared_commands
from fedllm_data.command_line.spelling import dashed
from fedllm_data.rehearsal import rehearsing
from fedllm_data.reporting.language_flag import add_language
from fedllm_data.terminal import run_command
from fedllm_train.chat_terminal import add_chat_flags, run_chat
from fedllm_train.disclosure.disclosure_command import add_reveals_command
from fedllm_train.engines.flower.deploy_command import add_deploy_command
from fedllm_train.engines.remote.sites_command import add_sites_command
from fedllm_train.engines.remote.worker_command import add_worker_command
from fedllm_train.flag_names import in_flags
from fedllm_train.planning.plan_help import PLAN_EXAMPLES, add_plan_flags
from fedllm_train.privacy.matrix_command import add_matrix_command
from fedllm_train.scenarios.scenario_command import add_scenario_command

__all__ = ["main"]

_FLAG_OF_A_RUN = re.compile("no flag of fedllm-train (sft|dpo|kto)")
"""How a run refuses a flag that nobody knows; a plan hands its flags on to a run's parser."""


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
    if argv[:1] == ["plan"] and not {"-h", "--help", "--version"} & {*argv}:
        # It takes every flag of a run, which the parser below does not know.
        return run_command(
            "fedllm-train",
            lambda: _plan(argv[1:]),
            when_interrupted="nothing was written",
            spell=lambda message: _FLAG_OF_A_RUN.sub("no flag of fedllm-train plan", _in_flags(message, argv)),
        )
    arguments = _parser().parse_args(argv)
    return run_command("fedllm-train", lambda: arguments.command(arguments), when_interrupted="nothing was written")


def _parser(*, with_flags: bool = False) -> OneLineParser:
    """The parser of the command; the flags of training are TRL's parser's, and added for completion alone."""
    parser = OneLineParser(prog="fedllm-train", description="Federated SFT, DPO and KTO with TRL and PEFT.")
    parser.add_argument("--version", action=ShowVersion)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for task in ("sft", "dpo", "kto"):
        does = f"federated {task.upper()}; see fedllm-train {task} --help"
        training = commands.add_parser(task, help=does, add_help=False)
        if with_flags:
            from fedllm_train.train_help import add_every_flag

            add_every_flag(training, task)
    plan = add_command(
        commands,
        "plan",
        does="say what runs would cost, side by side, before anything is trained",
        writes=True,
        shown=PLAN_EXAMPLES,
    )
    add_plan_flags(plan)
    add_language(plan)
    if with_flags:
        from fedllm_train.train_help import add_missing_flags

        add_missing_flags(plan, "sft")
    tiny = add_command(
        commands, "tiny", does="train a small base model on a corpus's public split, without a hub", writes=True
    )
    what = tiny.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", metavar="DIR_OR_ID", help="client repo with a public split")
    what.add_argument(
        "--shipped",
        action="store_true",
        help="train nothing: copy the model that comes with this package, trained by this command on the public split "
        "of fed-synth; its RECIPE.json says how to make it again",
    )
    tiny.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the model and its tokenizer")
    tiny.add_argument(
        "--steps", type=int, default=None, metavar="N", help="optimizer steps (default: a minute's worth)"
    )
    tiny.add_argument("--seed", type=int, default=None, metavar="N", help="seeds weights and batches (0)")
    tiny.set_defaults(command=_tiny)
    publish = add_command(commands, "publish", does="publish a finished run on the Hub, in one commit", writes=True)
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
    chat = add_command(
        commands, "chat", does="talk to what a run started from and to what it ended with, side by side"
    )
    add_chat_flags(chat)
    chat.set_defaults(command=run_chat)
    add_scenario_command(commands, main)
    add_reveals_command(commands)
    add_worker_command(commands)
    add_deploy_command(commands)
    add_sites_command(commands)
    add_matrix_command(commands)
    methods = add_command(commands, "methods", does="list the federated algorithms and what each can and cannot do")
    methods.add_argument("name", nargs="?", metavar="NAME", help="one method, with its rules, settings and costs")
    methods.add_argument("--json", action="store_true", help="machine-readable")
    methods.set_defaults(command=_methods)
    presets = add_command(commands, "presets", does="list the published set-ups that --preset begins from")
    presets.add_argument("--json", action="store_true", help="machine-readable")
    presets.set_defaults(command=_presets)
    machines = add_command(
        commands, "machines", does="list the lines and devices that --client-table knows, with source and date"
    )
    machines.add_argument("name", nargs="?", metavar="NAME", help="one profile, line or device, number by number")
    machines.add_argument("--json", action="store_true", help="machine-readable")
    machines.set_defaults(command=_machines)
    add_shared_commands(commands, "fedllm-train", lambda: _parser(with_flags=True), _completions)
    return parser


def _completions() -> dict[str, list[str]]:
    """What arguments can be completed with that their parser does not know."""
    from fedllm_eval.machines.profiles import DEVICES, LINES, PROFILES
    from fedllm_train.presets import PRESETS
    from fedllm_train.strategies import STRATEGIES

    of_runs = {"strategy": list(STRATEGIES), "preset": list(PRESETS)}
    named = {f"{task} {name}": words for task in ("sft", "dpo", "kto", "plan") for name, words in of_runs.items()}
    return named | {"methods name": list(STRATEGIES), "machines name": [*PROFILES, *LINES, *DEVICES]}


def _run(task: str, argv: list[str]) -> None:
    if "-h" in argv or "--help" in argv:
        from fedllm_train.train_help import help_parser

        help_parser(task).print_help()
        return
    if "--version" in argv:
        print(f"fedllm-train {version('fedllm-commons')}")
        return
    is_dry = "--dry-run" in dashed(argv)
    # Third parties announce renamed settings; nothing a user of this command can do about it.
    warnings.filterwarnings("ignore", category=FutureWarning)
    if "--help-all" in argv:
        from fedllm_train.arguments import print_all_flags
        from fedllm_train.train_help import help_parser

        help_parser(task).print_help()
        print_all_flags(task)
        return
    from fedllm_train.engines.engine_choice import whose_clients
    from fedllm_train.flags import check_surroundings, parse_our_flags
    from fedllm_train.run_files.open_run import is_begun

    flags = parse_our_flags(task, argv)
    known = check_surroundings(flags)
    begun, out = time.monotonic(), flags.federated.output_dir
    what = f"{flags.federated.num_rounds:,} rounds" if known is None else known.in_words()
    resuming = "going on with" if flags.run.resume and is_begun(Path(out)) else "into"
    print(
        f"fedllm-train {task}: {flags.federated.strategy} on {whose_clients(flags.run)}, {what}; from "
        f"{flags.run.model} {resuming} {out}; loading",
        file=sys.stderr,
        flush=True,
    )

    from fedllm_eval.policy.threads import threads_by_size
    from fedllm_train.arguments import parse_run_arguments
    from fedllm_train.engines.engine_choice import engine_maker, options_of, training_clients
    from fedllm_train.monitoring.progress import RoundProgress
    from fedllm_train.monitoring.time_left import duration_text
    from fedllm_train.privacy.beginning import first_line_of, num_values_sent
    from fedllm_train.run_files.finished import finished_folder
    from fedllm_train.trainer import FederatedTrainer

    arguments = parse_run_arguments(task, argv, flags=flags)
    for note in arguments.notes:
        print(f"fedllm-train: {note}", file=sys.stderr)
    if is_dry:
        from fedllm_train.dry_run import dry_run

        print(dry_run(task, arguments).text())
        return
    rounds = RoundProgress(arguments.federated.num_rounds)
    with (
        threads_by_size(),
        training_clients(arguments.given) as clients,
        rounds as progress,
        progress.warnings("fedllm_train"),
    ):
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
            callbacks=[progress],
            engine=engine_maker(arguments.given, clients, Path(out)),
            at_sites=options_of(arguments.given),
        )
        progress.cohort_size = trainer.plan.cohort_size
        progress.say(
            f"loaded in {duration_text(time.monotonic() - begun)}; {trainer.plan.in_words()}; how long it takes is "
            "told from the first clients on"
        )
        if trainer.guarantee is not None:
            start = trainer.loaded.start_state
            progress.say(first_line_of(trainer.guarantee, trainer.plan.strategy, start, trainer.plan.participants))
        if (of_rows := trainer.plan.row_guarantee) is not None:
            anybody, start = trainer.plan.participants[0], trainer.loaded.start_state
            progress.say(of_rows.first_line(num_values_sent(trainer.plan.strategy, start, anybody)))
        progress.begin()
        state = trainer.train(resume=arguments.given.resume)
    ledger, made = state.ledger, finished_folder(trainer.model)
    place, spent = trainer.run / made, ""
    if trainer.guarantee is not None:
        spent = f"; {trainer.guarantee.spent_in_words(state.next_round)}"
    if trainer.plan.row_guarantee is not None:
        spent = f"; {trainer.plan.row_guarantee.spent_in_words(state.next_round)}"
    print(
        f"{trainer.run}: {state.next_round} rounds, {ledger.num_local_steps} local steps, "
        f"{ledger.download_bytes:,} bytes down, {ledger.upload_bytes:,} bytes up; {made} in {place}{spent}"
    )
    if trainer.unrendered is not None and trainer.unrendered.num_unrendered:
        print(trainer.unrendered.line())


def _plan(argv: Sequence[str]) -> None:
    if "--help-all" in argv:
        from fedllm_train.arguments import print_all_flags

        with suppress(SystemExit):
            _parser().parse_args(["plan", "--help"])
        print_all_flags(next((task for task in ("dpo", "kto") if task in argv), "sft"))
        return
    from fedllm_train.planning.plan_command import run_plan

    run_plan(argv)


def _in_flags(message: str, argv: Sequence[str]) -> str:
    """An error in the words of the command line; with a `--config` file, a bare name may be a key of it."""
    if any(word.partition("=")[0] == "--config" for word in argv):
        return in_flags(message)
    from fedllm_train.flag_fields import setting_names

    return in_flags(message, setting_names())


def _tiny(arguments: argparse.Namespace) -> None:
    if arguments.shipped:
        _copy_shipped(arguments)
        return
    warnings.filterwarnings("ignore", category=FutureWarning)
    from fedllm_data.clients import load_clients
    from fedllm_eval.policy.threads import threads_by_size
    from fedllm_train.models.tiny import TinyConfig, train_tiny
    from fedllm_train.monitoring.progress import StepProgress

    config = TinyConfig() if arguments.steps is None else TinyConfig(num_steps=arguments.steps)
    public = load_clients(arguments.data, split="public")
    with threads_by_size(), StepProgress(config.num_steps) as progress, rehearsing(when=arguments.dry_run):
        result = train_tiny(
            public.rows, arguments.out, seed=arguments.seed or 0, config=config, progress=progress.advance
        )
    if arguments.dry_run:
        plan = DryRun(
            does=f"train a small model of {config.num_steps} steps",
            reads=[f"{arguments.data}: {public.rows.num_rows:,} public rows"],
            writes=[folder_to_write(arguments.out, "a model and its tokenizer")],
            settings={"seed": arguments.seed or 0},
        )
        print(plan.text())
        return
    print(
        f"{arguments.out}: {result.num_parameters:,} parameters, {result.num_steps} steps in "
        f"{result.train_seconds:.0f} s, loss {result.first_loss:.3f} -> {result.last_loss:.3f}"
    )


def _copy_shipped(arguments: argparse.Namespace) -> None:
    from fedllm_data.errors import ConfigError
    from fedllm_train.models.shipped_base import copy_shipped_base

    for name in ("steps", "seed"):
        if (value := getattr(arguments, name)) is not None:
            raise ConfigError(f"--{name} {value} is given, and --shipped trains nothing; leave one of the two out")
    with rehearsing(when=arguments.dry_run):
        recipe = copy_shipped_base(arguments.out)
    if arguments.dry_run:
        plan = DryRun(
            does="copy the small model that comes with this package",
            reads=[],
            writes=[folder_to_write(arguments.out, "a model and its tokenizer")],
            settings={},
        )
        print(plan.text())
        return
    corpus, loss = recipe["corpus"], recipe["train_loss"]
    print(
        f"{arguments.out}: {recipe['num_parameters']:,} parameters, trained before this package was published: "
        f"{recipe['num_steps']} steps on the {corpus['num_rows']:,} {corpus['split']} rows of {corpus['name']} (seed "
        f"{recipe['seed']}), loss {loss['first']} -> {loss['last']}; RECIPE.json has the commands"
    )


def _publish(arguments: argparse.Namespace) -> None:
    from fedllm_eval.policy.run_folder import read_config

    config = read_config(arguments.run)  # said at once where this is no run folder
    from fedllm_train.run_files.publish_run import new_is_private, publish_run

    private = True if arguments.private else False if arguments.public else None
    with rehearsing(when=arguments.dry_run):
        result = publish_run(
            arguments.run,
            arguments.repo,
            private=private,
            include_clients=arguments.include_clients,
            include_scores=arguments.include_scores,
        )
    if arguments.dry_run:
        words = {True: "private", False: "public", None: "as the Hub makes new repos"}
        visibility = words[new_is_private(config, private)]
        named = "clients by name" if arguments.include_clients else "clients by running numbers"
        plan = DryRun(
            does=f"publish {arguments.run}",
            reads=[str(arguments.run)],
            writes=[f"{arguments.repo} on the Hub: the adapter, its card, config.yaml, the rounds, scores if any"],
            settings={"visibility": visibility, "names": named},
        )
        print(plan.text(as_json=arguments.json))
        return
    if arguments.json:
        names = ("repo_id", "revision", "url", "is_unchanged")
        said = {name: getattr(result, name) for name in names} | {"lines": result.lines()}
        print(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        print("\n".join([f"{result.url} is at {result.revision}", *result.lines()]))


def _methods(arguments: argparse.Namespace) -> None:
    from fedllm_train.methods import method_lines, method_records, print_methods

    if arguments.name is not None:
        lines = method_lines(arguments.name)
        records = [each for each in method_records() if each["name"] == arguments.name]
        print(json.dumps(records[0], indent=2) if arguments.json and records else "\n".join(lines))
    elif arguments.json:
        print(json.dumps(method_records(), indent=2))
    else:
        print_methods()


def _machines(arguments: argparse.Namespace) -> None:
    from fedllm_eval.machines.profile_listing import machine_lines, machine_record, machine_records, profile_lines

    if arguments.json:
        found = machine_records() if arguments.name is None else machine_record(arguments.name)
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(machine_lines() if arguments.name is None else profile_lines(arguments.name)))


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


if __name__ == "__main__":
    sys.exit(main())
