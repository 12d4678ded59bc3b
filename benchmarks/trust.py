"""What protection costs in score, and what it keeps back: privacy against leaks, robust sums against attackers.

    python benchmarks/trust.py leak --data FED_SYNTH --model TINY --out DIR
    python benchmarks/trust.py attacks --data FED_SYNTH --model TINY --out DIR
    python benchmarks/trust.py leak --name fed_oasst_smollm2 --data FED_OASST --model SMOLLM2 --out DIR \
        --epsilons none 8 --seeds 0 --honest 6 --canaries 16 --rounds 2 --batch 2 --learning-rate 1e-3
    python benchmarks/trust.py --draw        (docs/trust.md and the README again, from the result files alone)

`leak` trains four methods at several epsilons, with a client and with an example as what is protected, on a client
repo in which coins planted canaries of that unit, and scores and audits every run. `attacks` trains one method with
each robust sum under each attack, and without any. A cell is one run; a finished one is added to the result file at
once and not made again, so the script may be stopped at any time, and several processes may work on one file. Results:
`results/trust_leak_<name>.json` and `results/trust_attacks_<name>.json`; the tables stand in `docs/trust.md`.
"""

import argparse
import sys
import warnings
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import write_readme
from benchmarks.trust_attacks import ATTACKS, DEFENCES, attack_cells
from benchmarks.trust_leak import EPSILONS, METHODS, UNITS, leak_cells

__all__ = ["main"]


def main() -> None:
    """Make the cells that are missing, then the pages."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="only write the pages again")
    commands = parser.add_subparsers(metavar="WHAT")
    leak = commands.add_parser("leak", help="score and leak against epsilon")
    leak.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    leak.add_argument("--units", nargs="+", default=list(UNITS), choices=list(UNITS))
    leak.add_argument("--epsilons", nargs="+", default=list(EPSILONS), help="numbers, or none")
    leak.add_argument("--canaries", type=int, default=40, help="coins that are thrown")
    leak.add_argument("--delta", type=float, default=1e-3)
    _add_shared(leak, honest=24, rounds=3, rank=4)
    leak.set_defaults(make=leak_cells)
    attacks = commands.add_parser("attacks", help="score and attack success for each robust sum")
    attacks.add_argument("--defences", nargs="+", default=list(DEFENCES), choices=list(DEFENCES))
    attacks.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=list(ATTACKS))
    attacks.add_argument("--method", default="fedavg")
    attacks.add_argument("--share", type=float, default=0.2, help="share of the clients that attack")
    _add_shared(attacks, honest=15, rounds=6, rank=4)
    attacks.set_defaults(make=attack_cells)
    given = parser.parse_args()
    if not given.draw:
        if "make" not in given:
            parser.error("say what is measured, leak or attacks, or --draw")
        import torch
        from datasets import disable_progress_bars

        torch.set_num_threads(1)
        disable_progress_bars()
        given.make(given)
    write_readme.main()


def _add_shared(parser: argparse.ArgumentParser, *, honest: int, rounds: int, rank: int) -> None:
    """Add what both measurements ask."""
    parser.add_argument("--data", type=Path, required=True, help="client repo")
    parser.add_argument("--model", type=Path, required=True, help="base model")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; each is removed when measured")
    parser.add_argument("--name", default="fed_synth", help="of the result file")
    parser.add_argument("--only", nargs="+", metavar="CELL", help="only cells whose name has one of these in it")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--honest", type=int, default=honest, help="clients of the corpus")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--steps", type=int, default=1, help="local steps a visit")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--rank", type=int, default=rank)
    parser.add_argument("--rows", type=int, default=4, help="held-out rows of a client that are scored")


if __name__ == "__main__":
    main()
