"""The subcommands `plant` and `audit` of `fedllm-eval`: canaries into a client repo, and what a run gives away."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun, folder_to_write, place_to_read
from fedllm_data.command_line.one_line_parser import add_command
from fedllm_data.rehearsal import rehearsing

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
    plant.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the choice of clients (0)")
    plant.set_defaults(command=_plant)

    audit = add_command(
        commands, "audit", does="what a run gives away: membership, planted secrets, a bound on epsilon", writes=True
    )
    audit.add_argument("policy", metavar="RUN_OR_MODEL", help="run folder, adapter or model; folder or Hub id")
    audit.add_argument("--data", required=True, metavar="DIR_OR_ID", help="the client repo that it was trained on")
    audit.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for audit.json and audit.md")
    audit.add_argument(
        "--reference", metavar="RUN_OR_MODEL", help="start policy; by default what the run started from"
    )
    audit.add_argument("--non-members", default="unseen", metavar="SPLIT", help="rows that it never saw (unseen)")
    audit.add_argument(
        "--secrets", type=Path, metavar="FILE", help="secrets file of `plant`, where canaries were planted"
    )
    audit.add_argument("--num-candidates", type=int, default=999, metavar="N", help="secrets to rank against (999)")
    audit.add_argument(
        "--delta", type=float, default=0.0, metavar="X", help="delta of the guarantee that is bounded (0)"
    )
    audit.add_argument("--max-rows", type=int, metavar="N", help="use at most N rows of each side")
    audit.add_argument("--batch-size", type=int, default=8, metavar="N", help="sequences in a batch (8)")
    audit.add_argument("--max-length", type=int, metavar="N", help="tokens a sequence keeps (1024, or what fits)")
    audit.add_argument("--seed", type=int, default=0, metavar="N", help="seed of samples, halves and candidates (0)")
    audit.add_argument("--json", action="store_true", help="print audit.json")
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
    print(f"{len(canaries)} clients of {arguments.out} hold a secret in {arguments.copies} rows each")
    print(
        f"secrets in {arguments.secrets}: fedllm-eval audit RUN --data {arguments.out} --secrets {arguments.secrets}"
    )


def _audit(arguments: argparse.Namespace, make_progress: Callable[[], Any]) -> None:
    from fedllm_eval.audit.audit_run import audit_run
    from fedllm_eval.audit.audit_settings import AuditSettings
    from fedllm_eval.reporting.audit_lines import audit_lines

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
    with make_progress() as progress, rehearsing(when=arguments.dry_run):
        audit = audit_run(
            arguments.policy,
            arguments.data,
            arguments.out,
            reference=arguments.reference,
            settings=settings,
            progress=progress,
        )
    if arguments.dry_run:
        reads = [
            place_to_read(arguments.policy, "the policy"),
            f"{arguments.data}: splits train and {settings.nonmembers}",
        ]
        reads += [] if settings.secrets is None else [f"{settings.secrets}: the secrets"]
        writes = [folder_to_write(arguments.out, "audit.json and audit.md")]
        plan = DryRun(does=f"audit {arguments.policy}", reads=reads, writes=writes, settings={"seed": settings.seed})
        print(plan.text(as_json=arguments.json))
        return
    if arguments.json:
        print(json.dumps(audit, indent=2, ensure_ascii=False))
        return
    for line in audit_lines(audit):
        print(line)
    print(f"audit in {arguments.out}")
