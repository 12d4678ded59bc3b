"""The subcommand `decide` of `fedllm-eval`: from scores to a page for the person who must decide."""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun, folder_to_write
from fedllm_data.command_line.one_line_parser import add_command
from fedllm_data.errors import ConfigError
from fedllm_data.rehearsal import end_of_checks, rehearsing
from fedllm_data.reporting.language_flag import add_language
from fedllm_eval.cost_flags import add_stated_prices, check_stated, stated_prices

__all__ = ["add_decide_command"]

DEFAULTS = {
    "min_gain": 0.0,
    "max_harmed": 0.25,
    "min_clients": 6,
    "min_seeds": 1,
    "max_forgetting": 0.05,
    "max_leak": 0.6,
    "max_epsilon": None,
}
"""Those of `deciding_rules.Thresholds`, which a test compares: the parser imports no numbers."""
_RULES = (
    ("min_gain", float, "the mean gain must lie above X, in the unit of the score"),
    ("max_harmed", float, "share of the partners that may be worse off"),
    ("min_clients", int, "partners that must have been scored"),
    ("min_seeds", int, "training runs behind a candidate"),
    ("max_forgetting", float, "nats per token by which general text may be predicted worse"),
    ("max_leak", float, "AUC that a membership attack may reach"),
    ("max_epsilon", float, "privacy that may be spent; by default no guarantee is asked for"),
)


def add_decide_command(commands: Any) -> None:
    """Add `decide` to the subcommands."""
    decide = add_command(
        commands,
        "decide",
        does="make one page for who must decide: gain, cost, losers, and a recommendation with its doubts",
        writes=True,
        shown=(
            (
                "From the scores of a run and of its start",
                "fedllm-eval decide scores/sft --before scores/base --out decision",
            ),
            (
                "With the partners' lines and the price of sending",
                "fedllm-eval decide scores/sft --before scores/base --out decision --download-mbit 50 "
                "--upload-mbit 10 --price-per-gb 0.05 --currency EUR",
            ),
        ),
    )
    decide.add_argument(
        "places",
        nargs="+",
        metavar="RESULTS_OR_RUN",
        help="results folders of `run`, or run folders with their scores/, or NAME=FOLDER; several are candidates",
    )
    decide.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder for the pages and decision.json"
    )
    decide.add_argument("--before", metavar="FOLDER", help="results of the start; by default the base in the results")
    decide.add_argument("--alone", metavar="FOLDER", help="results of a run of --strategy local, or with --alone RUN")
    decide.add_argument("--score", metavar="NAME", help="score to decide by; by default the first that all have")
    decide.add_argument("--partner", action="append", default=[], metavar="ID", help="partners with a page; all")
    decide.add_argument("--unnamed", action="store_true", help="name nobody, so that the page may be shown to anybody")
    decide.add_argument("--seed", type=int, default=0, help="seed of bootstrap and sign flips (0)")
    decide.add_argument("--json", action="store_true", help="print decision.json as well")
    add_language(decide)

    rules = decide.add_argument_group("where the rules draw their lines")
    for name, kind, text in _RULES:
        default = "" if DEFAULTS[name] is None else f" ({DEFAULTS[name]})"
        flag = f"--{name.replace('_', '-')}"
        rules.add_argument(flag, type=kind, default=DEFAULTS[name], metavar="X", help=text + default)
    rules.add_argument(
        "--margin",
        action="append",
        default=[],
        metavar="[SCORE=]X",
        help="as in `compare`: how much worse a score may be",
    )

    costs = decide.add_argument_group("what no run knows: lines, devices and prices")
    add_stated_prices(costs)
    costs.add_argument(
        "--also-cost",
        action="append",
        default=[],
        type=Path,
        metavar="RUN",
        help="a run that a candidate started from, or its own, if that lies elsewhere now",
    )
    decide.set_defaults(command=_decide)


def _decide(arguments: argparse.Namespace) -> None:
    _check_numbers(arguments)
    if arguments.dry_run:
        reads = [*arguments.places, *(place for place in (arguments.before, arguments.alone) if place is not None)]
        writes = [folder_to_write(arguments.out, "decision.html, a page for each partner and decision.json")]
        with rehearsing():
            _decided(arguments)
        plan = DryRun(
            does="weigh results for a decision",
            reads=reads,
            writes=writes,
            settings={name: getattr(arguments, name) for name in DEFAULTS},
        )
        print(plan.text(as_json=arguments.json))
        return
    _decided(arguments)


def _decided(arguments: argparse.Namespace) -> None:
    from fedllm_eval.deciding.deciding_rules import Thresholds
    from fedllm_eval.deciding.decision import Asked, decide
    from fedllm_eval.deciding.decision_files import FILES, write_decision
    from fedllm_eval.deciding.rule_words import VERDICTS, reasons
    from fedllm_eval.deciding.stated_lines import parse_lines, read_line_table
    from fedllm_eval.running.folders import check_out

    check_out(arguments.out, FILES)
    table = {} if arguments.lines is None else read_line_table(arguments.lines)
    typed = parse_lines(arguments.line)
    prices = stated_prices(arguments)
    decision = decide(
        arguments.places,
        asked=Asked(
            before=arguments.before,
            alone=arguments.alone,
            score=arguments.score,
            also_cost=arguments.also_cost,
            margins=arguments.margin,
            seed=arguments.seed,
        ),
        thresholds=Thresholds(**{name: getattr(arguments, name) for name in DEFAULTS}),
        prices=prices,
    )
    unused = _check_partners(typed, table, arguments.lines, decision.known_partners)
    end_of_checks()
    write_decision(
        decision,
        arguments.out,
        named=not arguments.unnamed,
        partners=arguments.partner,
        language=arguments.language,
    )
    if arguments.json:
        import json

        print(json.dumps(decision.as_record(), indent=2, ensure_ascii=False))
        return
    print(f"{decision.chosen.label}: {VERDICTS[decision.recommendation]}.")
    for sentence in reasons(decision.chosen.rules, "fails", "open", "holds"):
        print(f"  {sentence}")
    for sentence in reasons(decision.chosen.rules, "doubt", "unknown"):
        print(f"  doubt: {sentence}")
    if unused:
        print(
            f"  note: {unused} of {len(table)} lines of {arguments.lines} are of partners that are not in these runs"
        )
    print(f"page: {arguments.out / 'decision.html'}")


def _check_partners(typed: Collection[str], table: Collection[str], path: Path | None, known: Collection[str]) -> int:
    """Refuse lines of nobody; returns how many of the table are of partners that these runs do not know."""
    from fedllm_data.did_you_mean import did_you_mean

    if unknown := sorted(set(typed) - set(known)):
        raise ConfigError(
            f"--line {unknown[0]}: no such partner in these runs; {did_you_mean(unknown[0], sorted(known))}"
            f"partners are called like {min(known)}"
        )
    unused = len(set(table) - set(known))
    if table and unused == len(table):
        raise ConfigError(f"{path} names no partner of these runs; partners are called like {min(known)}")
    return unused


def _check_numbers(arguments: argparse.Namespace) -> None:
    """Refuse lines, prices and thresholds that make no sense, before anything is read."""
    import math

    check_stated(arguments)
    for name in ("min_gain", "max_forgetting"):
        if not math.isfinite(getattr(arguments, name)):
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; give a number")
    if arguments.seed < 0:
        raise ConfigError(f"--seed is {arguments.seed}; give 0 or more")
