"""The subcommands `plant` and `audit` of `fedllm-eval`: canaries into a client repo, and what a run gives away."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_eval.texts import json_text, whole

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["add_audit_commands", "audit_lines", "audit_run"]

FILES = ("audit.json", "audit.md")
FORMAT = "fedllm-eval-audit/1"


def add_audit_commands(commands: Any, progress: Callable[[], Any]) -> None:
    """Add `plant` and `audit` to the subcommands.

    Args:
        commands: what `add_subparsers` returned.
        progress: makes the context manager that shows how far the work is.
    """
    plant = commands.add_parser("plant", help="write a client repo with planted secrets, to train on and audit")
    plant.add_argument("data", metavar="DIR_OR_ID", help="client repo to start from: folder or Hub id")
    plant.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the new client repo")
    plant.add_argument(
        "--secrets", required=True, type=Path, metavar="FILE", help="where the secrets go; outside --out"
    )
    plant.add_argument("--salt", required=True, type=Path, metavar="FILE", help="salt of the secrets; made if missing")
    plant.add_argument("--num-canaries", type=int, default=10, metavar="N", help="clients that get a secret (10)")
    plant.add_argument("--alphabet", default="digits", help="digits, letters, hex, or the letters themselves (digits)")
    plant.add_argument("--length", type=int, default=6, metavar="N", help="letters of a secret (6)")
    plant.add_argument("--copies", type=int, default=1, metavar="N", help="rows that hold it (1)")
    plant.add_argument("--seed", type=int, default=0, help="of the choice of clients (0)")
    plant.set_defaults(command=_plant)

    audit = commands.add_parser("audit", help="what a run gives away: membership, planted secrets, a bound on epsilon")
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
    audit.add_argument("--delta", type=float, default=0.0, help="of the guarantee that epsilon is bounded under (0)")
    audit.add_argument("--max-rows", type=int, metavar="N", help="use at most N rows of each side")
    audit.add_argument("--batch-size", type=int, default=8, metavar="N", help="sequences in a batch (8)")
    audit.add_argument("--max-length", type=int, metavar="N", help="tokens a sequence keeps (1024, or what fits)")
    audit.add_argument("--seed", type=int, default=0, help="of samples, halves and candidates (0)")
    audit.add_argument("--json", action="store_true", help="print audit.json")
    audit.set_defaults(command=lambda arguments: _audit(arguments, progress))


def audit_run(
    run_or_model: "str | Path | Policy",
    repo_or_dir: str | Path,
    out: Path | None = None,
    *,
    reference: "str | Path | Policy | None" = None,
    nonmembers: str = "unseen",
    secrets: Path | None = None,
    num_candidates: int = 999,
    delta: float = 0.0,
    max_rows: int | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Audit a run on the client repo it was trained on: members are its training rows.

    Args:
        run_or_model: what is audited; a name, or a policy in memory.
        repo_or_dir: client repo: folder or Hub id.
        out: folder for `audit.json` and `audit.md`; None writes nothing.
        reference: the start policy; by default what the run or adapter started from.
        nonmembers: the split whose rows the run never saw.
        secrets: the secrets file of planted canaries.
        num_candidates: secrets that each canary is ranked against.
        delta: of the guarantee that epsilon is bounded under.
        max_rows: use at most so many rows of each side.
        batch_size: sequences a batch holds at most.
        max_length: tokens a sequence keeps.
        seed: of samples, halves and candidates.
        progress: told after every batch.

    Raises:
        ConfigError: if the policy, the secrets or a setting cannot be used.
        SchemaError: if the repo has no such split.
        MetricError: if no row can be scored.
    """
    from fedllm_data.clients import load_clients
    from fedllm_eval.audit import audit_canaries, audit_membership, read_secrets
    from fedllm_eval.policy.policies import Policy, load_policy, load_reference
    from fedllm_eval.results import without_nan
    from fedllm_eval.running.folders import check_out, replace_folder

    if out is not None:
        check_out(out, FILES)
    canaries = None if secrets is None else read_secrets(secrets)
    inside, outside = load_clients(repo_or_dir, "train"), load_clients(repo_or_dir, nonmembers)
    policy = run_or_model if isinstance(run_or_model, Policy) else load_policy(run_or_model)
    start = None
    if reference is not None:
        start = reference if isinstance(reference, Policy) else load_policy(reference, share=policy)
    elif policy.adapter is not None:
        start = load_reference(policy)
    found = audit_membership(
        policy,
        inside,
        outside,
        reference=start,
        delta=delta,
        max_rows=max_rows,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        progress=progress,
    )
    audit: dict[str, Any] = {
        "format": FORMAT,
        "policy": policy.describe(),
        "reference": None if start is None else start.describe(),
        "dataset": {"name": inside.name, "revision": inside.revision, "non_members": nonmembers},
        "settings": {"delta": delta, "max_rows": max_rows, "max_length": max_length, "seed": seed},
        "membership": found,
        "canaries": None,
    }
    if canaries is not None:
        options: dict[str, Any] = {"num_candidates": num_candidates, "batch_size": batch_size, "seed": seed}
        options["progress"] = progress
        audit["canaries"] = {"trained": audit_canaries(policy, canaries, **options), "start": None}
        if start is not None:
            audit["canaries"]["start"] = audit_canaries(start, canaries, **options)
    audit = without_nan(audit)
    if out is not None:

        def fill(folder: Path) -> None:
            text = json_text(audit, indent=2, allow_nan=False)
            (folder / "audit.json").write_text(text + "\n", encoding="utf-8")
            lines = [f"# What {audit['policy']['name']} gives away", "", *(f"- {line}" for line in audit_lines(audit))]
            (folder / "audit.md").write_text(whole("\n".join(lines)) + "\n", encoding="utf-8")

        replace_folder(out, fill, FILES)
    return audit


def _plant(arguments: argparse.Namespace) -> None:
    from fedllm_data.pipeline.salt import read_salt
    from fedllm_eval.audit.planted_repo import plant_repo

    canaries = plant_repo(
        arguments.data,
        arguments.out,
        arguments.secrets,
        salt=read_salt(arguments.salt),
        num_canaries=arguments.num_canaries,
        alphabet=arguments.alphabet,
        length=arguments.length,
        copies=arguments.copies,
        seed=arguments.seed,
    )
    print(f"{len(canaries)} clients of {arguments.out} hold a secret in {arguments.copies} rows each")
    print(
        f"secrets in {arguments.secrets}: fedllm-eval audit RUN --data {arguments.out} --secrets {arguments.secrets}"
    )


def _audit(arguments: argparse.Namespace, make_progress: Callable[[], Any]) -> None:
    with make_progress() as progress:
        audit = audit_run(
            arguments.policy,
            arguments.data,
            arguments.out,
            reference=arguments.reference,
            nonmembers=arguments.non_members,
            secrets=arguments.secrets,
            num_candidates=arguments.num_candidates,
            delta=arguments.delta,
            max_rows=arguments.max_rows,
            batch_size=arguments.batch_size,
            max_length=arguments.max_length,
            seed=arguments.seed,
            progress=progress,
        )
    if arguments.json:
        print(json.dumps(audit, indent=2, ensure_ascii=False))
        return
    for line in audit_lines(audit):
        print(line)
    print(f"audit in {arguments.out}")


def audit_lines(audit: Mapping[str, Any]) -> list[str]:
    """The findings, a sentence each."""
    found = audit["membership"]
    lines = [
        f"members: {found['num_members']:,} training rows of {found['num_member_clients']:,} clients; non-members: "
        f"{found['num_nonmembers']:,} rows of {found['num_nonmember_clients']:,} clients"
    ]
    for name, attack in found["attacks"].items():
        lines.append(f"{name}: AUC {_interval(attack['auc'], attack['auc_low'], attack['auc_high'])}; 0.5 is guessing")
        for positives in attack["true_positives"]:
            where = f"{name}: true positives at {100 * positives['max_false_positive_fraction']:g} % false ones"
            share = _interval(positives["fraction"], positives["low"], positives["high"])
            lines.append(f"{where}: {share if positives['reason'] is None else positives['reason']}")
        for unit, bound in attack["epsilon"].items():
            if bound["epsilon"] is None:
                lines.append(f"{name}: no bound on epsilon for one {unit}: {bound['reason']}")
            else:
                lines.append(
                    f"{name}: epsilon for one {unit} is at least {bound['epsilon']:.2f} "
                    f"({100 * bound['confidence']:g} % sure, delta {bound['delta']:g}); with "
                    f"{bound['num_members']:,} members and {bound['num_nonmembers']:,} non-members no attack could "
                    f"have shown more than {bound['largest_epsilon']:.2f}"
                )
    if found["reference_auc"] is not None:
        before = found["reference_auc"]
        lines.append(
            f"start policy: AUC {_interval(before['auc'], before['auc_low'], before['auc_high'])} by its loss"
        )
    for when, canaries in (audit["canaries"] or {}).items():
        if canaries is None:
            continue
        bits, share = canaries["exposure"], canaries["extraction"]
        who = "start policy" if when == "start" else "canaries"
        lines.append(
            f"{who}: exposure {_interval(bits['mean_bits'], bits['low'], bits['high'])} bits over "
            f"{canaries['num_canaries']} canaries; {bits['chance_bits']:.2f} by chance, "
            f"{bits['ceiling_bits']:.2f} at most"
        )
        extracted = _interval(share["fraction"], share["low"], share["high"])
        lines.append(f"{who}: share extracted by their prefix {extracted}")
    return lines + list(found["notes"])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    shown = ["n/a" if number is None else f"{number:.3f}" for number in (value, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"
