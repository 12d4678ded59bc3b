"""The subcommand `worker` of `fedllm-train`: an organisation's own end of a run. The parser imports no torch."""

import argparse
import warnings
from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun
from fedllm_data.command_line.one_line_parser import add_command

__all__ = ["add_worker_command"]


def add_worker_command(commands: Any) -> None:
    """Add `worker` to the subcommands of `fedllm-train`."""
    worker = add_command(
        commands,
        "worker",
        does="let a run visit the clients whose rows are here, within limits that are set here",
        writes=True,
        shown=(
            (
                "Serve on a socket",
                "fedllm-train worker --data clients --model base --policy worker.yaml --socket w.sock",
            ),
            ("What asks for approval", "fedllm-train worker list --folder worker"),
            ("Approve a run", "fedllm-train worker approve 862ee6fb --folder worker"),
        ),
    )
    worker.add_argument(
        "action",
        nargs="?",
        choices=("serve", "list", "approve", "forget"),
        default="serve",
        help="serve (the default); list runs that ask for approval; approve one; forget what one kept here",
    )
    worker.add_argument(
        "run", nargs="?", metavar="RUN", help="with approve and forget: the run's key, or its beginning"
    )
    worker.add_argument("--data", metavar="DIR_OR_ID", help="client repo with the rows of the clients here")
    worker.add_argument("--model", metavar="DIR_OR_ID", help="base model of this machine")
    worker.add_argument("--revision", metavar="COMMIT", help="revision of the base model on the Hub")
    worker.add_argument("--policy", type=Path, metavar="FILE", help="worker.yaml; without it every run needs approval")
    worker.add_argument("--socket", type=Path, metavar="PATH", help="unix socket that the relay beside it connects to")
    worker.add_argument(
        "--folder", type=Path, default=Path("worker"), metavar="DIR", help="where runs keep what they keep (worker)"
    )
    worker.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the base model")
    worker.set_defaults(command=_worker)


def _worker(arguments: argparse.Namespace) -> None:
    from fedllm_data.errors import ConfigError

    if arguments.action != "serve":
        _about_runs(arguments)
        return
    for name in ("data", "model", *(() if arguments.dry_run else ("socket",))):
        if getattr(arguments, name) is None:
            raise ConfigError(f"--{name} is not given; a worker needs --data, --model and --socket")
    if arguments.run is not None:
        raise ConfigError(f"{arguments.run!r} is given, and serve takes none; leave it out")
    warnings.filterwarnings("ignore", category=FutureWarning)
    from fedllm_train.engines.remote.policy import read_policy

    policy = read_policy(arguments.policy)
    from fedllm_train.engines.remote.organisation import Organisation
    from fedllm_train.engines.remote.site_facts import site_facts

    site = Organisation(
        data=arguments.data,
        model=arguments.model,
        revision=arguments.revision,
        trust_remote_code=arguments.trust_remote_code,
    )
    if arguments.dry_run:
        facts = site_facts(site, policy)
        shown = "; ".join(
            f"{name}: {len(told.rows):,} clients, {sum(told.rows.values()):,} rows"
            for name, told in facts.splits.items()
        )
        plan = DryRun(
            does=f"serve {len(facts.ids):,} clients to a run",
            reads=[f"{site.data}", f"{site.model}, weights {site.base_digest()}"],
            writes=[f"{arguments.folder}: what runs keep, and requests.jsonl"],
            settings={
                "a server sees of each split": shown,
                "and these columns of the clients table": ", ".join(facts.table) or "none",
                "policy": ", ".join(f"{name} {value}" for name, value in facts.policy.items() if value is not None),
            },
        )
        print(plan.text())
        return
    from fedllm_train.engines.remote.worker import Worker
    from fedllm_train.engines.remote.worker_server import listening, serve

    with listening(arguments.socket) as server:
        worker = Worker(site, policy, arguments.folder, say=_say)
        facts = worker.facts
        _say(
            f"serving {len(facts.ids):,} clients of {site.data} on {arguments.socket}; base {worker.base_digest}; "
            f"runs {'need approval' if policy.approve == 'ask' else 'begin by themselves within the policy'}"
        )
        serve(worker, server)
    _say("stopped")


def _about_runs(arguments: argparse.Namespace) -> None:
    from fedllm_data.errors import ConfigError
    from fedllm_train.engines.remote.run_folders import RunFolders

    folders = RunFolders(arguments.folder)
    if arguments.action == "list":
        asked = folders.waiting()
        for begin in asked:
            privacy = (
                "no guarantee"
                if begin.privacy is None
                else f"epsilon {begin.privacy.epsilon:.4g} (unit: {begin.privacy.unit})"
            )
            steps = "as its rows make" if begin.max_steps is None else f"{begin.max_steps:,}"
            print(
                f"{begin.run}: {begin.spec.get('strategy')}, {begin.num_rounds:,} rounds, {len(begin.clients):,} "
                f"clients, {steps} steps a visit, {privacy}"
            )
        if not asked:
            print(f"no run asks for approval in {arguments.folder}")
        return
    if arguments.run is None:
        raise ConfigError(f"{arguments.action} needs a run; fedllm-train worker list names those that ask")
    if arguments.action == "approve":
        begin = folders.approve(arguments.run)
        print(f"{begin.run} is approved, with exactly the settings that it asked with")
        return
    print(f"{folders.forget_named(arguments.run)} is forgotten, but for its clients' own adapters")


def _say(line: str) -> None:
    print(f"fedllm-train worker: {line}", flush=True)
