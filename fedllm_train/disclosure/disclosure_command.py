"""The subcommand `reveals` of `fedllm-train`: what a run gives away, and to whom. The parser imports no page."""

import argparse
import json
from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun, folder_to_write
from fedllm_data.command_line.one_line_parser import add_command
from fedllm_data.errors import ConfigError
from fedllm_data.reporting.language_flag import add_language

__all__ = ["add_reveals_command"]


def add_reveals_command(commands: Any) -> None:
    """Add `reveals` to the subcommands."""
    reveals = add_command(
        commands,
        "reveals",
        does="make one page: what a run gives away, to the server, to other partners and to the public",
        writes=True,
        shown=(
            ("From the run's folder alone", "fedllm-train reveals runs/private --out revealed"),
            (
                "With what an audit found",
                "fedllm-train reveals runs/private --audit audit --out revealed",
            ),
        ),
    )
    reveals.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    reveals.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the page and its JSON")
    reveals.add_argument(
        "--audit", type=Path, metavar="DIR", help="folder that fedllm-eval audit wrote, of this run or with it"
    )
    reveals.add_argument("--json", action="store_true", help="print the JSON instead of lines")
    add_language(reveals)
    reveals.set_defaults(command=_reveals)


def _reveals(arguments: argparse.Namespace) -> None:
    from fedllm_train.disclosure.run_facts import read_run_facts

    facts = read_run_facts(arguments.run)
    audit = None if arguments.audit is None else find_audit(arguments.audit, arguments.run)
    if arguments.dry_run:
        reads = [str(arguments.run), *([] if arguments.audit is None else [str(arguments.audit)])]
        writes = [folder_to_write(arguments.out, "given_away.html and given_away.json")]
        plan = DryRun(does="say what a run gives away", reads=reads, writes=writes, settings={})
        print(plan.text(as_json=arguments.json))
        return
    from fedllm_train.disclosure.disclosure_page import disclosure_record, write_disclosure
    from fedllm_train.disclosure.readers import readers, summary_of

    write_disclosure(facts, arguments.out, audit=audit, language=arguments.language)
    if arguments.json:
        print(json.dumps(disclosure_record(facts, audit), indent=2, ensure_ascii=False))
        return
    print("\n".join(summary_of(facts)))
    for reader in readers(facts, audit):
        print(f"{reader.name}: {len(reader.sees)} things seen; protected by:")
        for sentence in reader.protects:
            print(f"  {sentence}")
    print(f"page: {arguments.out / 'given_away.html'}")


def find_audit(folder: Path, run: Path) -> dict[str, Any]:
    """Return what an audit found of a run: of one run, or this one of several.

    Args:
        folder: as `fedllm-eval audit` left it.
        run: the run folder.

    Raises:
        ConfigError: if there is no audit, or it is of other runs.
    """
    for name in ("audit.json", "audits.json"):
        if not (folder / name).is_file():
            continue
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            audits = list(content["runs"].values()) if "runs" in content else [content]
            adapter = _adapter_of(run)
            found = [audit for audit in audits if _is_of(audit["policy"], run, adapter)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{folder / name} is no audit ({error}); make it by fedllm-eval audit") from error
        if found:
            return dict(found[0])
        raise ConfigError(f"{folder / name} is of other runs than {run}; audit this one: fedllm-eval audit {run}")
    raise ConfigError(f"{folder} holds no audit; make it by fedllm-eval audit {run} --out {folder}")


def _is_of(policy: dict[str, Any], run: Path, adapter: str | None) -> bool:
    """Whether an audit is of a run: by its adapter, or by its name where it has none."""
    if adapter is not None and policy.get("adapter_sha256") is not None:
        return bool(policy["adapter_sha256"] == adapter)
    return Path(str(policy["name"])).resolve() == run.resolve()


def _adapter_of(run: Path) -> str | None:
    """The digest of a run's adapter, as an audit records it."""
    from fedllm_eval.policy.policies import adapter_digest
    from fedllm_eval.policy.run_folder import ADAPTER

    return adapter_digest(run / ADAPTER) if (run / ADAPTER).is_dir() else None
