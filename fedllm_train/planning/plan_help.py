"""The help of `fedllm-train plan`: few flags first, and examples that run. Imports the standard library only."""

from pathlib import Path
from typing import Any

__all__ = ["PLAN_EXAMPLES", "TASKS", "add_plan_flags"]

TASKS = ("sft", "dpo", "kto")
PLAN_EXAMPLES = (
    (
        "Three wires side by side, for clients on phones",
        "fedllm-train plan --model base --data fed-synth --client-table profile:phone-4g --wire none,int4,drive",
    ),
    (
        "Methods, and clients a round, as a page whose numbers a reader changes",
        "fedllm-train plan --model base --sizes 200:40 --strategy fedavg,ffa_lora --cohort-size 5,20 --out costs",
    ),
    (
        "The noise that an epsilon needs, and how it compares with an update",
        "fedllm-train plan --model base --sizes 1000:20 --cohort-rule poisson --dp-clip 0.5 --dp-epsilon 8 "
        "--dp-delta 1e-4",
    ),
)
"""What for, and a command that runs beside the corpora and the model that `fedllm-train tiny` makes of one."""


def add_plan_flags(parser: Any) -> None:
    """Add the flags that only a plan has, and those whose meaning differs there."""
    many = "several, joined by commas or spaces, or each with its flag"
    needed = parser.add_argument_group("needed")
    needed.add_argument(
        "--model", metavar="DIR_OR_ID", help="base model: a folder, a Hub id, or a config.json; no weights are loaded"
    )
    needed.add_argument("--data", metavar="DIR_OR_ID", help="client repo, whose sizes of clients are read; or --sizes")
    needed.add_argument(
        "--sizes",
        metavar="N:ROWS|FILE",
        help="instead of --data: N clients of ROWS rows, or a table with the columns client_id and num_rows",
    )
    compared = parser.add_argument_group("what is compared", many)
    compared.add_argument("--strategy", metavar="METHOD", action="append", nargs="+", help="methods (default: fedavg)")
    compared.add_argument(
        "--wire", metavar="WIRE", action="append", nargs="+", help="packings of uploads (default: none)"
    )
    compared.add_argument(
        "--download-wire", metavar="WIRE", action="append", nargs="+", help="packings of downloads (default: none)"
    )
    compared.add_argument(
        "--cohort-size", metavar="N", action="append", nargs="+", help="clients a round (default: 10)"
    )
    around = parser.add_argument_group(
        "the run", "and every other flag of fedllm-train sft, dpo and kto (--help-all lists them)"
    )
    around.add_argument(
        "--client-table",
        metavar="TABLE",
        help="lines and devices of the clients: profile:NAME, profiles:A=0.7,B=0.3, a file, or columns; gives hours, "
        "energy and who cannot hold the model",
    )
    around.add_argument("--task", choices=TASKS, help="what is trained (default: what the data are for, else sft)")
    around.add_argument("--num-rounds", metavar="N", help="server steps (default: 100)")
    around.add_argument("--local-steps", metavar="N", help="optimizer steps of a client in a round (default: 10)")
    around.add_argument("--lora-r", metavar="N", help="rank of the adapter (default: 16)")
    shown = parser.add_argument_group("what is shown")
    shown.add_argument("--out", type=Path, metavar="DIR", help="also write a page whose numbers a reader can change")
    shown.add_argument("--json", action="store_true", help="print JSON instead of a table")
