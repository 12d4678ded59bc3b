"""The subcommand `run` of `fedllm-eval`: the whole table of one run, adapter or model by one command."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.command_line.dry_run import DryRun, folder_to_write, place_to_read
from fedllm_data.command_line.one_line_parser import NEEDED, add_command
from fedllm_data.errors import ConfigError
from fedllm_data.rehearsal import rehearsing
from fedllm_data.reporting.language_flag import add_language

if TYPE_CHECKING:
    from fedllm_eval.results import Results
    from fedllm_eval.running.suite_runs import SuitePlan
    from fedllm_eval.score_settings import AskedBeside, OtherPolicies, ScoreSettings

__all__ = ["add_run_command", "parse_settings", "suite_plan"]

_OF_CLIENTS = (
    *("--data", "--reference", "--splits", "--beta", "--max-clients", "--max-rows", "--alone", "--centralised"),
    *("--language-run", "--kl", "--general-data", "--audit", "--secrets", "--cache"),
)
"""Flags that say something of clients' rows."""


def add_run_command(commands: Any, progress: Callable[[], Any], print_table: Callable[[Any], None]) -> None:
    """Add `run` to the subcommands.

    Args:
        commands: what `add_subparsers` returned.
        progress: makes the context manager that shows how far the work is.
        print_table: prints a table of rich.
    """
    run = add_command(
        commands,
        "run",
        does="score a run, an adapter or a model on the clients of a dataset",
        writes=True,
        shown=(
            ("Score a run on the clients of a folder", "fedllm-eval run runs/sft --data fed-synth --out scores/sft"),
            (
                "With what it started from, and the gains",
                "fedllm-eval run runs/sft --data fed-synth --out scores/gain --base-too",
            ),
            (
                "A model, on ten clients and five rows of each",
                "fedllm-eval run base --data fed-synth --out scores/base --max-clients 10 --max-rows 5",
            ),
        ),
    )
    run.add_argument(
        "policy", nargs="?", metavar="RUN_OR_MODEL", help="run folder, adapter or model; folder or Hub id"
    )
    needed = run.add_argument_group(NEEDED)
    needed.add_argument("--data", metavar="DIR_OR_ID", help="client repo: folder or Hub id; not with --suites-only")
    needed.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder for results.json and the tables"
    )
    run.add_argument(
        "--reference",
        metavar="RUN_OR_MODEL",
        help="what implicit rewards are measured against; by default what the run started from",
    )
    run.add_argument(
        "--splits", nargs="+", metavar="SPLIT", help="by default test and unseen, where the data have them"
    )
    run.add_argument("--beta", type=float, metavar="X", help="DPO's beta; by default the run's own, else 0.1")
    run.add_argument("--max-clients", type=int, metavar="N", help="score at most N clients of each split")
    run.add_argument("--max-rows", type=int, metavar="N", help="score at most N rows of each client")
    run.add_argument("--batch-size", type=int, default=8, metavar="N", help="sequences in a batch (8)")
    run.add_argument(
        "--max-length", type=int, metavar="N", help="tokens a sequence keeps (1024, or what the model holds)"
    )
    run.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder in which evaluations keep log-probabilities for one another; by default in --out, and those in "
        "the results folders beside it are read",
    )
    run.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the samples and the sign flips (0)")
    run.add_argument("--revision", help="revision of RUN_OR_MODEL on the Hub")
    run.add_argument("--data-revision", metavar="REVISION", help="revision of --data on the Hub")
    run.add_argument("--json", action="store_true", help="print results.json instead of the table")
    add_language(run)

    others = run.add_argument_group("other policies on the same clients")
    others.add_argument(
        "--base-too", action="store_true", help="score what the run started from, and the gains over it"
    )
    others.add_argument("--no-personal", action="store_true", help="leave out the run's personal adapters")
    others.add_argument("--alone", metavar="RUN", help="a run of --strategy local, for the gains over training alone")
    others.add_argument(
        "--centralised",
        "--centralized",
        metavar="RUN_OR_MODEL",
        help="a policy trained on all rows, for the gap",
    )
    others.add_argument(
        "--language-run",
        action="append",
        default=[],
        metavar="CODE=RUN",
        help="a run trained on one language; several give the transfer matrix",
    )

    suites = run.add_argument_group("suites (`fedllm-eval list` names them)")
    suites.add_argument("--suite", nargs="+", default=[], metavar="NAME", help="put these suites to the policy")
    suites.add_argument("--suite-items", nargs="+", default=[], metavar="NAME=PATH", help="the questions of a suite")
    suites.add_argument("--switch", nargs="+", default=[], metavar="SUITE.KEY=VALUE", help="a setting of one suite")
    suites.add_argument(
        "--judge",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="recorded=FILE, url=URL model=NAME, or local=RUN_OR_MODEL; also api_key_env, record, max_calls, "
        "max_cost, prompt_price, max_parallel, ... all as in judging.JudgeSettings",
    )
    suites.add_argument(
        "--served",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="take the answers from an OpenAI-compatible endpoint: url=URL model=NAME; also base_model, revision, "
        "api_key_env, system, stop, max_parallel, max_calls, ... all as in served.ServedSettings",
    )
    suites.add_argument(
        "--suites-only",
        action="store_true",
        help="no scores of clients: needs no --data and, with --served, no weights",
    )
    suites.add_argument("--max-items", type=int, metavar="N", help="the first N items of each suite")
    suites.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="tokens of an answer (512)")

    beside = run.add_argument_group("change, cost and privacy")
    beside.add_argument("--kl", type=int, default=0, metavar="N", help="KL from the base on answers to N prompts")
    beside.add_argument("--general-data", metavar="DIR_OR_ID", help="other conversations, for what was forgotten")
    beside.add_argument("--watts", type=float, metavar="X", help="what a client's device draws, for energy")
    beside.add_argument(
        "--download-mbit", type=float, metavar="X", help="a client's line in Mbit/s, for sending times"
    )
    beside.add_argument("--upload-mbit", type=float, metavar="X", help="the same the other way")
    beside.add_argument("--audit", action="store_true", help="membership inference, and canaries with --secrets")
    beside.add_argument("--non-members", default="unseen", metavar="SPLIT", help="rows the run never saw (unseen)")
    beside.add_argument("--secrets", type=Path, metavar="FILE", help="secrets file of `plant`")
    beside.add_argument("--audit-rows", type=int, metavar="N", help="audit at most N rows of each side")
    run.set_defaults(command=lambda arguments: _run(arguments, progress, print_table))


def suite_plan(arguments: argparse.Namespace) -> "SuitePlan":
    """Return the suites that the arguments ask for.

    Raises:
        ConfigError: if an argument is not of the form that it should have.
    """
    from fedllm_eval.judging import JudgeSettings
    from fedllm_eval.running.suite_runs import SuitePlan
    from fedllm_eval.served import ServedSettings

    switches: dict[str, dict[str, Any]] = {}
    for name, value in parse_settings(arguments.switch, "--switch", "SUITE.KEY=VALUE").items():
        suite, dot, key = name.partition(".")
        if not dot or not key:
            raise ConfigError(f"--switch {name} names no suite; write it as SUITE.KEY=VALUE")
        switches.setdefault(suite, {})[key] = value
    items = _texts(arguments.suite_items, "--suite-items", "NAME=PATH")
    judge = parse_settings(arguments.judge, "--judge", "KEY=VALUE")
    if judge and not arguments.suite:
        raise ConfigError("--judge was given, but no suite is run; name one by --suite")
    served = parse_settings(getattr(arguments, "served", []), "--served", "KEY=VALUE")
    if served and not arguments.suite:
        raise ConfigError("--served was given, but no suite is run; name one by --suite")
    return SuitePlan(
        names=tuple(arguments.suite),
        items={name: Path(path) for name, path in items.items()},
        switches=switches,
        judge=JudgeSettings.from_texts(judge) if judge else None,
        served=ServedSettings.from_texts(served) if served else None,
        max_items=arguments.max_items,
        max_new_tokens=arguments.max_new_tokens,
    )


def parse_settings(given: Sequence[str], flag: str, form: str) -> dict[str, Any]:
    """Return KEY=VALUE arguments as a mapping; numbers, true, false, null and JSON are read as such.

    Raises:
        ConfigError: if one has no = or a key comes twice.

    >>> parse_settings(["max_calls=10", "model=gpt-4", "references=false"], "--judge", "KEY=VALUE")
    {'max_calls': 10, 'model': 'gpt-4', 'references': False}
    """
    return {name: _value(text) for name, text in _texts(given, flag, form).items()}


def _texts(given: Sequence[str], flag: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name or not text:
            raise ConfigError(f"{flag} {item!r} is not of the form {form}; write for instance {flag} {form}")
        if name in found:
            raise ConfigError(f"{flag} gives {name} twice ({found[name]} and {text}); keep one")
        found[name] = text
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _score_objects(arguments: argparse.Namespace) -> "tuple[ScoreSettings, OtherPolicies, AskedBeside]":
    """Return what the arguments ask for, as `score_run` takes it.

    Raises:
        ConfigError: if an argument is not of the form that it should have, or belongs to what is not asked for.
    """
    from fedllm_eval.audit.audit_settings import AuditSettings
    from fedllm_eval.running.run_cost import StatedCosts
    from fedllm_eval.score_settings import AskedBeside, OtherPolicies, ScoreSettings

    audit = None
    if arguments.audit:
        audit = AuditSettings(
            nonmembers=arguments.non_members,
            secrets=arguments.secrets,
            max_rows=arguments.audit_rows,
            batch_size=arguments.batch_size,
            max_length=arguments.max_length,
            seed=arguments.seed,
        )
    elif arguments.secrets is not None or arguments.audit_rows is not None:
        raise ConfigError("--secrets and --audit-rows belong to the audit; add --audit")
    settings = ScoreSettings(
        reference=arguments.reference,
        splits=arguments.splits,
        beta=arguments.beta,
        max_clients=arguments.max_clients,
        max_rows_per_client=arguments.max_rows,
        batch_size=arguments.batch_size,
        max_length=arguments.max_length,
        seed=arguments.seed,
        revision=arguments.revision,
        data_revision=arguments.data_revision,
        cache=arguments.cache,
    )
    others = OtherPolicies(
        base=arguments.base_too,
        personal=not arguments.no_personal,
        alone=arguments.alone,
        centralised=arguments.centralised,
        language_runs=_texts(arguments.language_run, "--language-run", "CODE=RUN"),
    )
    beside = AskedBeside(
        suites=suite_plan(arguments),
        kl_prompts=arguments.kl,
        general_data=arguments.general_data,
        audit=audit,
        language=arguments.language,
        costs=StatedCosts(
            watts=arguments.watts,
            download_mbit_per_second=arguments.download_mbit,
            upload_mbit_per_second=arguments.upload_mbit,
        ),
    )
    return settings, others, beside


def _show_dry_run(arguments: argparse.Namespace) -> None:
    policy = arguments.policy or "a served policy"
    reads = [f"{policy}: the policy" if arguments.policy is None else place_to_read(policy, "the policy")]
    if arguments.data is not None:
        reads.append(f"{arguments.data}: the clients' rows")
    others = {"reference": arguments.reference, "alone": arguments.alone, "centralised": arguments.centralised}
    reads += [place_to_read(place, name) for name, place in others.items() if place is not None]
    settings = {
        "splits": ", ".join(arguments.splits or ()) or "test and unseen, as far as they are there",
        "clients": f"{arguments.max_clients} of each split" if arguments.max_clients else "all",
        "rows": f"{arguments.max_rows} of each client" if arguments.max_rows else "all",
        "suites": ", ".join(arguments.suite) or "none",
        "audit": "yes" if arguments.audit else "no",
        "seed": arguments.seed,
    }
    writes = [folder_to_write(arguments.out, "results.json, the tables and results.html")]
    plan = DryRun(does=f"score {policy}", reads=reads, writes=writes, settings=settings)
    print(plan.text(as_json=arguments.json))


def _run(arguments: argparse.Namespace, make_progress: Callable[[], Any], print_table: Callable[[Any], None]) -> None:
    from fedllm_eval.reporting.all_sections import terminal_tables
    from fedllm_eval.reporting.results_text import LEGEND
    from fedllm_eval.reporting.table_section import all_notes

    with rehearsing(when=arguments.dry_run):
        results = _suites_only(arguments, make_progress) if arguments.suites_only else _all(arguments, make_progress)
    if arguments.dry_run:
        _show_dry_run(arguments)
        return
    for sentence in results.changed:
        print(sentence, file=sys.stderr)
    if results.reused:
        print(f"{len(results.reused)} finished parts were there: {', '.join(results.reused)}", file=sys.stderr)
    if results.taken_over:
        print(f"known from an earlier pass: {'; '.join(results.taken_over)}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(results.summary, indent=2, ensure_ascii=False))
        return
    if results.summary["splits"]:
        print_table(results.table())
        print(LEGEND)
    for where, note in all_notes(results.summary):
        print(f"{where}: {note}")
    for table, notes in terminal_tables(results.summary):
        print_table(table)
        for note in notes:
            print(note)
    print(f"results in {arguments.out}; page: {arguments.out / 'results.html'}")


def _all(arguments: argparse.Namespace, make_progress: Callable[[], Any]) -> "Results":
    """Score clients, and whatever else is asked for."""
    from fedllm_eval.run import score_run

    for what, given in (("RUN_OR_MODEL", arguments.policy), ("--data", arguments.data)):
        if given is None:
            raise ConfigError(f"{what} is missing; name it, or run suites alone by --suites-only")
    settings, others, beside = _score_objects(arguments)
    with make_progress() as progress:
        return score_run(
            arguments.policy,
            arguments.data,
            arguments.out,
            settings=settings,
            others=others,
            beside=beside,
            progress=progress,
        )


def _suites_only(arguments: argparse.Namespace, make_progress: Callable[[], Any]) -> "Results":
    """Put suites to a policy and refuse what reads clients' rows."""
    from fedllm_eval.suite_scores import score_suites

    for flag in _OF_CLIENTS:
        if getattr(arguments, flag.removeprefix("--").replace("-", "_")) not in (None, [], 0, False):
            raise ConfigError(f"{flag} reads clients' rows or weights, and --suites-only scores neither; drop one")
    plan = suite_plan(arguments)
    with make_progress() as progress:
        return score_suites(
            plan,
            arguments.out,
            run_or_model=arguments.policy,
            base=arguments.base_too,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
            progress=progress,
        )
