"""The subcommands `plant` and `audit` of `fedllm-eval`: canaries into a client repo, and what a run gives away."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun, folder_to_write, place_to_read
from fedllm_data.command_line.one_line_parser import add_command
from fedllm_data.errors import ConfigError
from fedllm_data.rehearsal import rehearsing
from fedllm_data.reporting.language_flag import add_language

__all__ = ["add_audit_commands"]


def add_audit_commands(commands: Any, progress: Callable[[], Any]) -> None:
    """Add `plant` and `audit` to the subcommands.

    Args:
        commands: what `add_subparsers` returned.
        progress: makes the context manager that shows how far the work is.
    """
    plant = add_command(
        commands, "plant", does="write a client repo with planted secrets, to train on and audit", writes=True
    )
    plant.add_argument("data", metavar="DIR_OR_ID", help="client repo to start from: folder or Hub id")
    plant.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the new client repo")
    plant.add_argument(
        "--secrets", required=True, type=Path, metavar="FILE", help="where the secrets go; outside --out"
    )
    plant.add_argument("--salt", required=True, type=Path, metavar="FILE", help="salt of the secrets; made if missing")
    plant.add_argument("--num-canaries", type=int, default=10, metavar="N", help="clients that get a secret (10)")
    plant.add_argument(
        "--alphabet", default="digits", metavar="NAME", help="digits (default), letters, hex, or the letters"
    )
    plant.add_argument("--length", type=int, default=6, metavar="N", help="letters of a secret (6)")
    plant.add_argument("--copies", type=int, default=1, metavar="N", help="rows that hold it (1)")
    plant.add_argument(
        "--coins",
        choices=("example", "client"),
        help="plant each or keep it out by a coin that follows from the salt, for a bound on epsilon: a canary is one "
        "row of some client, or a client of its own",
    )
    plant.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the choice of clients (0)")
    plant.set_defaults(command=_plant)

    audit = add_command(
        commands,
        "audit",
        does="what runs give away: membership, planted secrets, a bound on epsilon beside the claimed one",
        writes=True,
    )
    audit.add_argument(
        "policies",
        nargs="+",
        metavar="RUN_OR_MODEL",
        help="run folders, adapters or models, or NAME=RUN; folders or Hub ids; several are set side by side",
    )
    audit.add_argument("--data", required=True, metavar="DIR_OR_ID", help="the client repo that it was trained on")
    audit.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the findings and a page")
    audit.add_argument(
        "--reference", metavar="RUN_OR_MODEL", help="start policy; by default what the run started from"
    )
    audit.add_argument("--non-members", default="unseen", metavar="SPLIT", help="rows that it never saw (unseen)")
    audit.add_argument(
        "--secrets", type=Path, metavar="FILE", help="secrets file of `plant`, where canaries were planted"
    )
    audit.add_argument("--num-candidates", type=int, default=999, metavar="N", help="secrets to rank against (999)")
    audit.add_argument(
        "--delta",
        type=float,
        metavar="X",
        help="delta of the guarantee that is bounded; by default that of the run's own, or 0",
    )
    audit.add_argument("--max-rows", type=int, metavar="N", help="use at most N rows of each side")
    audit.add_argument("--batch-size", type=int, default=8, metavar="N", help="sequences in a batch (8)")
    audit.add_argument("--max-length", type=int, metavar="N", help="tokens a sequence keeps (1024, or what fits)")
    audit.add_argument("--seed", type=int, default=0, metavar="N", help="seed of samples, halves and candidates (0)")
    audit.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_language(audit)
    audit.set_defaults(command=lambda arguments: _audit(arguments, progress))


def _plant(arguments: argparse.Namespace) -> None:
    from fedllm_data.pipeline.salt import read_salt
    from fedllm_eval.audit.planted_repo import CanarySettings, plant_repo

    settings = CanarySettings(
        num_canaries=arguments.num_canaries,
        alphabet=arguments.alphabet,
        length=arguments.length,
        copies=arguments.copies,
        seed=arguments.seed,
        coins=arguments.coins,
    )
    with rehearsing(when=arguments.dry_run):
        canaries = plant_repo(
            arguments.data, arguments.out, arguments.secrets, salt=read_salt(arguments.salt), settings=settings
        )
    if arguments.dry_run:
        writes = [folder_to_write(arguments.out, "a client repo with secrets"), f"{arguments.secrets}: the secrets"]
        writes += [] if arguments.salt.exists() else [f"{arguments.salt}: a new salt, to be kept"]
        does = f"plant {settings.num_canaries} secrets, {settings.copies} rows each"
        print(DryRun(does=does, reads=[arguments.data], writes=writes, settings={"seed": settings.seed}).text())
        return
    if settings.coins is None:
        print(f"{len(canaries)} clients of {arguments.out} hold a secret in {arguments.copies} rows each")
    else:
        num_in = sum(canary.is_in for canary in canaries)
        print(f"{num_in} of {len(canaries)} canaries are in {arguments.out} by their coins, unit {settings.coins}")
    print(
        f"secrets in {arguments.secrets}: fedllm-eval audit RUN --data {arguments.out} --secrets {arguments.secrets}"
    )


def _audit(arguments: argparse.Namespace, make_progress: Callable[[], Any]) -> None:
    from fedllm_eval.audit.audit_run import audit_run
    from fedllm_eval.audit.audit_runs import audit_runs, run_labels
    from fedllm_eval.audit.audit_settings import AuditSettings
    from fedllm_eval.reporting.audit_lines import audit_lines
    from fedllm_eval.reporting.audit_table import verdict_of

    settings = AuditSettings(
        nonmembers=arguments.non_members,
        secrets=arguments.secrets,
        num_candidates=arguments.num_candidates,
        delta=arguments.delta,
        max_rows=arguments.max_rows,
        batch_size=arguments.batch_size,
        max_length=arguments.max_length,
        seed=arguments.seed,
    )
    _check(settings)
    places = list(run_labels(arguments.policies).values())
    options: dict[str, Any] = {
        "reference": arguments.reference,
        "settings": settings,
        "language": arguments.language,
    }
    with make_progress() as progress, rehearsing(when=arguments.dry_run):
        options["progress"] = progress
        if len(places) == 1:
            audit = audit_run(places[0], arguments.data, arguments.out, **options)
        else:
            audit = audit_runs(arguments.policies, arguments.data, arguments.out, **options)
    if arguments.dry_run:
        reads = [
            *(place_to_read(place, "a policy" if len(places) > 1 else "the policy") for place in places),
            f"{arguments.data}: splits train and {settings.nonmembers}",
        ]
        reads += [] if settings.secrets is None else [f"{settings.secrets}: the secrets"]
        writes = [folder_to_write(arguments.out, "what was found, as JSON, in words, and as a page")]
        does = f"audit {', '.join(places)}"
        print(
            DryRun(does=does, reads=reads, writes=writes, settings={"seed": settings.seed}).text(
                as_json=arguments.json
            )
        )
        return
    found = audit["runs"] if "runs" in audit else {"": audit}
    if any(verdict_of(one) == "above" for one in found.values()):
        arguments.exit_code = 1  # as where a gate stops
    if arguments.json:
        print(json.dumps(audit, indent=2, ensure_ascii=False))
        return
    for name, one in found.items():
        if name:
            print(f"{name}:")
        for line in audit_lines(one):
            print(f"  {line}" if name else line)
    print(f"audit in {arguments.out}")


def _check(settings: Any) -> None:
    """Refuse numbers that make no sense, before anything is read."""
    if settings.delta is not None and not 0 <= settings.delta < 1:
        raise ConfigError(f"--delta is {settings.delta}; it is in [0, 1), and far below 1 / number of canaries")
    for name in ("num_candidates", "batch_size", "max_rows", "max_length"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; give 1 or more")
