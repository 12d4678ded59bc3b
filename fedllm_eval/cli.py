"""The command `fedllm-eval`: score a policy per client, compare what was scored, score rows, list what is measured."""

import argparse
import sys
from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun, folder_to_write, place_to_read
from fedllm_data.command_line.one_line_parser import OneLineParser, ShowVersion, add_command
from fedllm_data.command_line.shared_commands import add_shared_commands
from fedllm_data.rehearsal import rehearsing
from fedllm_data.reporting.language_flag import add_language
from fedllm_data.terminal import run_command
from fedllm_eval.audit_command import add_audit_commands
from fedllm_eval.cost_flags import add_cost_questions, check_stated, stated_prices
from fedllm_eval.decide_command import add_decide_command
from fedllm_eval.policy.threads import threads_by_size
from fedllm_eval.robustness_command import add_robustness_command
from fedllm_eval.run_command import add_run_command

__all__ = ["main", "make_parser"]


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return the exit code: 0 when the work was done, 1 when a gate stopped, 2 on bad input."""
    arguments = make_parser().parse_args(argv)
    with threads_by_size():
        code = run_command(
            "fedllm-eval", lambda: arguments.command(arguments), when_interrupted="what was finished is kept"
        )
    return code or getattr(arguments, "exit_code", 0)


def make_parser() -> OneLineParser:
    """Return the parser of the command; it imports nothing that a model needs."""
    parser = OneLineParser(prog="fedllm-eval", description=__doc__)
    parser.add_argument("--version", action=ShowVersion)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_run_command(commands, _shown_progress, _print_table)

    compare = add_command(
        commands, "compare", does="compare results folders with a baseline, client by client", writes=True
    )
    compare.add_argument(
        "folders",
        nargs="+",
        metavar="RUN",
        help="folders made by `run`, or NAME=FOLDER; folders of one name, or of runs that differ in their seed alone, "
        "are one method",
    )
    compare.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for comparison.json, .md, .html and the figures"
    )
    compare.add_argument("--baseline", metavar="RUN", help="what the others are set against; the first RUN by default")
    compare.add_argument(
        "--margin",
        action="append",
        default=[],
        metavar="[SCORE=]X",
        help="exit with 1 if a method is worse than the baseline by more than X, in the score's unit, with confidence",
    )
    compare.add_argument("--history", type=Path, metavar="FILE", help="series of comparisons to append to and show")
    compare.add_argument("--seed", type=int, default=0, metavar="N", help="seed of bootstrap and sign flips (0)")
    compare.add_argument("--json", action="store_true", help="print the comparison as JSON")
    add_language(compare)
    add_cost_questions(compare)
    compare.set_defaults(command=_compare)

    add_decide_command(commands)

    quality = add_command(
        commands, "quality", does="score each row by IFD and IRA, for `fedllm-data report --scores`", writes=True
    )
    quality.add_argument("data", metavar="DIR_OR_ID", help="client repo: folder or Hub id")
    quality.add_argument(
        "--model",
        required=True,
        metavar="RUN_OR_MODEL",
        help="what scores; folder or Hub id of a causal LM",
    )
    quality.add_argument("--out", required=True, type=Path, metavar="FILE", help="the scores file (Parquet) to write")
    quality.add_argument("--splits", nargs="+", metavar="SPLIT", help="by default train, test and unseen")
    quality.add_argument("--max-rows", type=int, metavar="N", help="score at most N rows of each client")
    quality.add_argument("--batch-size", type=int, default=8, metavar="N", help="sequences in a batch (8)")
    quality.add_argument(
        "--max-length", type=int, metavar="N", help="tokens a row may have, else no score (1024, or what fits)"
    )
    quality.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the sample of rows (0)")
    quality.add_argument("--revision", help="revision of --model on the Hub")
    quality.add_argument("--data-revision", help="revision of DIR_OR_ID on the Hub")
    quality.add_argument("--json", action="store_true", help="print the summary as JSON")
    quality.set_defaults(command=_quality)

    add_audit_commands(commands, _shown_progress)
    add_robustness_command(commands, _shown_progress)

    listing = add_command(commands, "list", does="what is measured, in which unit, and the evaluate modules")
    listing.add_argument("--json", action="store_true", help="print the list as JSON")
    listing.set_defaults(command=_list)
    add_shared_commands(commands, "fedllm-eval", make_parser, _completions)
    return parser


def _completions() -> dict[str, list[str]]:
    """What arguments can be completed with that their parser does not know."""
    from fedllm_data.schema import SPLITS
    from fedllm_eval.suites import SUITES

    splits = list(SPLITS)
    return {"run suite": list(SUITES), "run splits": splits, "quality splits": splits, "audit nonmembers": splits}


def _quality(arguments: argparse.Namespace) -> None:
    from fedllm_eval.row_quality import RowScoreSettings, score_rows

    _quiet_libraries()
    settings = RowScoreSettings(
        splits=arguments.splits,
        max_rows_per_client=arguments.max_rows,
        batch_size=arguments.batch_size,
        max_length=arguments.max_length,
        seed=arguments.seed,
        revision=arguments.revision,
        data_revision=arguments.data_revision,
    )
    with _Progress() as progress, rehearsing(when=arguments.dry_run):
        summary = score_rows(arguments.data, arguments.model, arguments.out, settings=settings, progress=progress)
    if arguments.dry_run:
        reads = [place_to_read(arguments.model, "the model that scores"), f"{arguments.data}: the rows"]
        split = ", ".join(arguments.splits or ("train", "test", "unseen"))
        plan = DryRun(
            does="score rows by IFD and IRA",
            reads=reads,
            writes=[f"{arguments.out}: a scores file"],
            settings={"splits": split, "seed": arguments.seed},
        )
        print(plan.text(as_json=arguments.json))
        return
    if arguments.json:
        _print_json(summary)
        return
    print(f"{summary['num_scored']:,} of {summary['num_rows']:,} rows scored by {summary['revision']}")
    print(f"IFD {summary['ifd_mean']:.3f} on average, above 1 for {summary['ifd_above_one_fraction']:.1%} of the rows")
    print(f"IRA {summary['ira_mean']:.3f} nats per token on average")
    print(f"scores in {arguments.out}: fedllm-data report {arguments.data} --scores {arguments.out}")


def _quiet_libraries() -> None:
    """Let no library draw a bar or warn; those that are not imported yet read these variables when they are."""
    import os
    import warnings

    # One bar is enough, and it is ours: theirs also draw themselves into logs.
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    loaded: Any = sys.modules
    if "huggingface_hub" in loaded:
        loaded["huggingface_hub"].utils.disable_progress_bars()
    if "datasets" in loaded:
        loaded["datasets"].disable_progress_bars()
    if "transformers" in loaded:
        quiet = loaded["transformers"].utils.logging
        quiet.disable_progress_bar()
        quiet.set_verbosity_error()
    # Libraries telling each other what they will rename: nothing that whoever scores a model could act on.
    warnings.simplefilter("ignore", FutureWarning)


def _compare(arguments: argparse.Namespace) -> None:
    check_stated(arguments)

    from fedllm_eval.compare import compare_results, comparison_table, write_comparison
    from fedllm_eval.comparing.comparison_files import FILES
    from fedllm_eval.comparing.trade_offs import AskedCosts
    from fedllm_eval.running.folders import check_out

    if arguments.out is not None:
        check_out(arguments.out, FILES)
    costs = AskedCosts(prices=stated_prices(arguments), budgets=arguments.budget, targets=arguments.target)
    with rehearsing(when=arguments.dry_run):
        comparison = compare_results(
            arguments.folders,
            baseline=arguments.baseline,
            margins=arguments.margin,
            history=arguments.history,
            costs=costs,
            seed=arguments.seed,
        )
    if arguments.dry_run:
        made = "comparison.json, comparison.md, comparison.html and figures/"
        writes = ["nothing"] if arguments.out is None else [folder_to_write(arguments.out, made)]
        writes += [] if arguments.history is None else [f"{arguments.history}: one comparison more"]
        first = arguments.baseline or arguments.folders[0]
        plan = DryRun(does="compare results", reads=arguments.folders, writes=writes, settings={"baseline": first})
        print(plan.text(as_json=arguments.json))
        return
    if arguments.out is not None:
        write_comparison(comparison, arguments.out, arguments.language)
    if comparison["gate"] is not None and not comparison["gate"]["passed"]:
        arguments.exit_code = 1
    if arguments.json:
        _print_json(comparison)
        return
    _print_table(comparison_table(comparison))
    for item in comparison["comparisons"]:
        print(item["verdict"])
    _print_trade_offs(comparison["trade_offs"])
    for caveat in comparison["caveats"]:
        print(f"note: {caveat}")
    for note in comparison["notes"]:
        print(f"not compared: {note}")
    if comparison["gate"] is not None:
        for check in comparison["gate"]["checks"]:
            print(f"gate: {check['sentence']}")
        print(comparison["gate"]["verdict"])


def _print_trade_offs(trade: dict[str, Any]) -> None:
    from fedllm_eval.comparing.front_words import seeds_sentence
    from fedllm_eval.comparing.trade_off_tables import protocol_sections
    from fedllm_eval.comparing.trade_offs import drawn_fronts
    from fedllm_eval.reporting.all_sections import terminal_table

    for front in trade["fronts"]["items"] if trade["fronts"] is not None else []:
        print(f"front: {' '.join(front['sentences'])}")
    if (drawn_fronts(trade)) and (said := seeds_sentence(trade["fronts"]["covers_seeds"])):
        print(f"front: {said}")
    for section in protocol_sections(trade):
        _print_table(terminal_table(section))
        for note in section.notes:
            print(note)


def _shown_progress() -> "_Progress":
    _quiet_libraries()
    return _Progress()


def _list(arguments: argparse.Namespace) -> None:
    from fedllm_eval.metrics import METRIC_FOLDERS
    from fedllm_eval.scores import SCORES

    suites = _suites()
    if arguments.json:
        _print_json(
            {
                "scores": {
                    name: {
                        "task": score.task,
                        "unit": score.unit,
                        "higher_is_better": score.higher_is_better,
                        "needs_reference": score.needs_reference,
                        "summary": score.summary,
                    }
                    for name, score in SCORES.items()
                },
                "suites": {
                    name: {"summary": suite.summary, "needs": list(suite.needs)} for name, suite in suites.items()
                },
                "evaluate_modules": {name: str(folder) for name, folder in METRIC_FOLDERS.items()},
            }
        )
        return
    from rich.table import Table

    table = Table(title="scores of `fedllm-eval run`, for each client and over clients")
    for header in ("score", "data", "unit", "better", "what it is"):
        table.add_column(header)
    for name, score in SCORES.items():
        better = "higher" if score.higher_is_better else "lower"
        table.add_row(name, score.task, score.unit, better, score.summary)
    _print_table(table)
    table = Table(title="suites of `fedllm-eval run --suite`")
    for header in ("suite", "needs", "what it is"):
        table.add_column(header)
    for name, suite in suites.items():
        table.add_row(name, ", ".join(suite.needs) or "nothing", suite.summary)
    _print_table(table)
    print("modules for evaluate.load(path):")
    for name, folder in METRIC_FOLDERS.items():
        print(f"  {name}  {folder}")


def _suites() -> dict[str, Any]:
    from importlib import import_module

    from fedllm_eval.suites import SUITES

    places = {name: place.partition(":") for name, place in SUITES.items()}
    return {name: getattr(import_module(module), cls)() for name, (module, _, cls) in places.items()}


def _print_json(content: Any) -> None:
    import json

    print(json.dumps(content, indent=2, ensure_ascii=False))


def _print_table(table: Any) -> None:
    from rich.console import Console

    console = Console()
    # In a pipe or a log a table is not wrapped to 80 columns: its numbers must stay whole.
    console = console if console.is_terminal else Console(width=200)
    console.print(table)


class _Progress:
    """A bar per scored split on a terminal, one line per quarter of the way otherwise; on stderr."""

    def __enter__(self) -> "_Progress":
        from rich.console import Console
        from rich.progress import Progress, TimeRemainingColumn

        console = Console(stderr=True)
        self.bars = Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=console)
        self.on_terminal = console.is_terminal
        self.tasks: dict[str, Any] = {}
        self.quarters: dict[str, int] = {}
        if self.on_terminal:
            self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.on_terminal:
            self.bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self.on_terminal:
            if what not in self.tasks:
                self.tasks[what] = self.bars.add_task(what, total=total)
            self.bars.update(self.tasks[what], completed=done)
            return
        quarter = 4 * done // max(1, total)
        if quarter > self.quarters.get(what, 0):
            self.quarters[what] = quarter
            print(f"{what}: {done} of {total}{_unit(what)}", file=sys.stderr)


def _unit(what: str) -> str:
    """What is counted: the passes over a split count sequences, everything else names itself."""
    return " sequences" if what.endswith(("policy", "reference")) else ""


if __name__ == "__main__":
    sys.exit(main())
