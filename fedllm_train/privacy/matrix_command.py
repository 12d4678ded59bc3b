"""The subcommand `privacy-matrix` of `fedllm-train`: write a file for `--dp-matrix`, and say what it buys.

The parser imports the standard library alone, the command no torch.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun
from fedllm_data.command_line.one_line_parser import add_command

__all__ = ["add_matrix_command"]


def add_matrix_command(commands: Any) -> None:
    """Add `privacy-matrix` to the subcommands of `fedllm-train`."""
    command = add_command(
        commands,
        "privacy-matrix",
        does="write the coefficients of a matrix mechanism for --dp-matrix: related noise, for private runs whose "
        "cohorts are no random sample",
        writes=True,
        shown=(
            (
                "For 200 rounds in which a client comes every 20th round at most",
                "fedllm-train privacy-matrix --bands 20 --num-rounds 200 --min-separation 20 --out matrix.json",
            ),
        ),
    )
    command.add_argument("--bands", required=True, type=int, metavar="N", help="coefficients kept; 1 relates nothing")
    command.add_argument("--num-rounds", required=True, type=int, metavar="N", help="rounds of the run")
    command.add_argument(
        "--min-separation", type=int, default=1, metavar="N", help="rounds from a client's update to its next (1)"
    )
    command.add_argument(
        "--max-participations", type=int, metavar="N", help="updates of a client in the run (as many as fit)"
    )
    command.add_argument("--out", required=True, type=Path, metavar="FILE", help="the JSON file")
    command.add_argument("--json", action="store_true", help="print JSON instead of lines")
    command.set_defaults(command=_write)


def _write(arguments: argparse.Namespace) -> None:
    from fedllm_data.errors import ConfigError
    from fedllm_data.in_place import write_file
    from fedllm_train.privacy.matrix_file import MOST_BANDS, matrix_text, square_root_coefficients

    for name in ("bands", "num_rounds", "min_separation", "max_participations"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    if arguments.bands > min(MOST_BANDS, arguments.num_rounds):
        raise ConfigError(
            f"--bands is {arguments.bands}; use at most {MOST_BANDS}, and no more than there are rounds "
            f"({arguments.num_rounds})"
        )
    if arguments.out.exists():
        raise ConfigError(f"{arguments.out} is there already; name another file")
    if not arguments.out.resolve().parent.is_dir():
        raise ConfigError(f"{arguments.out.parent} is no folder; make it first")
    if arguments.dry_run:
        does = f"write the first {arguments.bands} coefficients of the square root of the matrix of ones"
        print(DryRun(does=does, reads=["nothing"], writes=[str(arguments.out)]).text(as_json=arguments.json))
        return
    coefficients = square_root_coefficients(arguments.bands)
    source = "square root of the matrix of ones, banded (Kalinin and Lampert 2024, arXiv 2405.13763)"
    write_file(arguments.out, matrix_text(coefficients, source))
    record = _worth(arguments, coefficients)
    if arguments.json:
        print(json.dumps(record, indent=2))
        return
    print(
        f"{arguments.out}: {arguments.bands} coefficients. A client moves what is protected by "
        f"{record['sensitivity']:.4g} clips at most. At one guarantee, the noise on the sum of all "
        f"{arguments.num_rounds} rounds is {record['noise_against_independent']:.3g} times that of independent noise."
    )


def _worth(arguments: argparse.Namespace, coefficients: Any) -> dict[str, Any]:
    """What the coefficients buy, against independent noise of the same privacy."""
    from fedllm_train.privacy.noise_forms import Toeplitz

    turns = (arguments.min_separation, arguments.max_participations or arguments.num_rounds)
    cost, sensitivity = [], 0.0
    for form in (Toeplitz(coefficients=(1.0,)), Toeplitz(coefficients=tuple(coefficients.tolist()))):
        sensitivity = form.sensitivity(arguments.num_rounds, *turns)
        cost.append(sensitivity * float(form.sum_deviations(arguments.num_rounds)[-1]))
    return {
        "file": str(arguments.out),
        "bands": arguments.bands,
        "sensitivity": sensitivity,
        "noise_against_independent": cost[1] / cost[0],
    }
