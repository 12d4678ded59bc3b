"""The subcommand `sites` of `fedllm-train`: who is at the other end of a deployment, and how different they are.

The parser imports no torch.
"""

import argparse
import json
import secrets
import warnings
from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun, folder_to_write
from fedllm_data.command_line.one_line_parser import add_command

__all__ = ["add_sites_command"]


def add_sites_command(commands: Any) -> None:
    """Add `sites` to the subcommands of `fedllm-train`."""
    sites = add_command(
        commands,
        "sites",
        does="list the sites of a deployment, or collect the profiles of their clients for a heterogeneity report",
        writes=True,
        shown=(
            ("Who is there", "fedllm-train sites list --engine sockets --deployment sites.yaml"),
            (
                "How different their clients are, without a row of theirs",
                "fedllm-train sites profile --deployment d --codebook book.json --out profiles",
            ),
        ),
    )
    sites.add_argument(
        "action", choices=("list", "profile"), help="list; or profile, which needs --codebook and --out"
    )
    sites.add_argument("--engine", choices=("sockets", "flower"), default="flower", help="the line to them (flower)")
    sites.add_argument("--deployment", required=True, type=Path, metavar="FOLDER", help="as in fedllm-train sft")
    sites.add_argument("--min-sites", type=int, metavar="N", help="go on when so many answer (all)")
    sites.add_argument("--codebook", type=Path, metavar="FILE", help="with profile: what all sites share")
    sites.add_argument("--out", type=Path, metavar="DIR", help="with profile: folder for the profiles")
    sites.add_argument("--json", action="store_true", help="machine-readable")
    sites.set_defaults(command=_sites)


def _sites(arguments: argparse.Namespace) -> None:
    from fedllm_data.errors import ConfigError
    from fedllm_train.engines.engine_choice import line_of

    for name in ("codebook", "out"):
        if (getattr(arguments, name) is None) != (arguments.action == "list"):
            what = "needs" if arguments.action == "profile" else "takes no"
            raise ConfigError(f"sites {arguments.action} {what} --{name}")
    if arguments.min_sites is not None and arguments.min_sites <= 0:
        raise ConfigError(f"--min-sites is {arguments.min_sites}; it must be positive")
    if not arguments.deployment.exists():
        raise ConfigError(f"deployment {arguments.deployment} is not there; make it with fedllm-train deploy init")
    line = line_of(arguments.engine, arguments.deployment)
    if arguments.dry_run:
        writes = ["nothing"] if arguments.out is None else [folder_to_write(arguments.out, "profiles")]
        print(
            DryRun(
                does=f"ask the sites of {arguments.deployment}",
                reads=[str(arguments.deployment)],
                writes=writes,
                settings={"engine": arguments.engine},
            ).text()
        )
        return
    warnings.filterwarnings("ignore", category=FutureWarning)
    from fedllm_train.engines.remote.site_clients import clients_at_sites

    with line:
        clients = clients_at_sites(line, min_sites=arguments.min_sites)
        if arguments.action == "list":
            _list(clients, as_json=arguments.json)
        else:
            _profile(clients, arguments)


def _list(clients: Any, *, as_json: bool) -> None:
    record = {
        site: {
            "key": clients.fingerprints.get(site),
            "splits": {
                name: {"clients": len(told.rows), "rows": sum(told.rows.values())}
                for name, told in facts.splits.items()
            },
            "columns": sorted(facts.table),
            "policy": facts.policy,
        }
        for site, facts in sorted(clients.facts.items())
    }
    if as_json:
        print(json.dumps(record, indent=2))
        return
    for site, told in record.items():
        counts = told["splits"].items()
        splits = "; ".join(f"{name} {each['clients']:,} clients, {each['rows']:,} rows" for name, each in counts)
        limits = ", ".join(f"{name} {value}" for name, value in told["policy"].items() if value not in (None, False))
        print(f"{site}: {splits}; tells {', '.join(told['columns']) or 'no columns'}; {limits}")


def _profile(clients: Any, arguments: argparse.Namespace) -> None:
    from fedllm_data.codebook import read_codebook
    from fedllm_data.errors import ConfigError, WorkerError
    from fedllm_train.engines.remote.messages import ProfileJob
    from fedllm_train.engines.remote.remote_engine import RemoteEngine
    from fedllm_train.engines.remote.seats import RemoteOptions
    from fedllm_train.engines.remote.site_profiles import write_site_profiles

    book = json.dumps(read_codebook(arguments.codebook).to_json()).encode()

    def never(site: str) -> Any:
        raise WorkerError(f"site {site} was asked to train, and profiles need no run")

    run = secrets.token_hex(8)
    engine = RemoteEngine(clients.line, clients.site_of, clients.sizes, never, run=run, options=RemoteOptions())
    written, silent = 0, []
    for site, result, body, reason in engine.results_of({site: [(ProfileJob(), book)] for site in clients.facts}):
        if result is None or reason is not None:
            silent.append(f"{site} ({reason})")
            continue
        own = clients.facts[site].splits["train"].rows
        written += write_site_profiles(body, arguments.out, own, site)
        print(f"{site}: {result.num_rows:,} clients")
    engine.finish()
    if not written:
        raise ConfigError(f"no site sent profiles: {'; '.join(silent)}")
    for each in silent:
        print(f"no profiles from {each}")
    print(
        f"{written:,} profiles in {arguments.out}; the text stayed where it was. The report: fedllm-data report "
        f"--profiles {arguments.out} --codebook {arguments.codebook} --out report"
    )
