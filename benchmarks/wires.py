"""Score against bytes: one method, one corpus, the same clients and steps, and a different wire each time.

    python benchmarks/wires.py --data FED_SYNTH --model BASE --out DIR
    python benchmarks/wires.py --name fed_oasst_smollm2 --data FED_OASST --model SMOLLM2 --out DIR \
        --wires none bf16 int8 int4 drive --rounds 25 --cohort 2 --steps 3 --batch 2 --learning-rate 1e-3 \
        --clients 24 --rows 2 --every 5
    python benchmarks/wires.py --draw                 (tables and figures again, from the result files alone)

Every wire trains FedAvg once a seed: the same cohorts, the same start, the same rounds, cohort size and local steps.
The global adapter is scored every few rounds on held-out rows of the same clients, and at the end also on clients
nobody trained on; differences from `none` are paired by client over all seeds (`fedllm-eval compare`). A wire may have
a second name after a slash, which packs the downloads: `drive/int4`. A finished run is added to the result file at
once, a run that was stopped goes on from its newest checkpoint, and several processes may work on one result file, so
the script may be stopped at any time. Results: `results/wires_<name>.json`, `.md` and `.svg`.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.scored_runs import RESULTS, add_arguments, make_runs
from benchmarks.wire_tables import wires_figure, wires_page

WIRES = ("none", "bf16", "int8", "int4", "int3", "sign", "drive", "topk", "topk-int8", "topk-int4")


def main() -> None:
    """Train and score what is missing, then write the tables and the figure."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="only write tables and figures of all result files again")
    parser.add_argument("--name", default="fed_synth", help="of the result file: results/wires_NAME.json")
    parser.add_argument("--wires", nargs="+", default=list(WIRES), help="a preset, stages, or UP/DOWN")
    add_arguments(parser)
    given = parser.parse_args()
    if not given.draw:
        if not (given.data and given.model and given.out):
            parser.error("--data, --model and --out are needed, or --draw")
        arms = {wire: wire_settings(wire) for wire in given.wires}
        make_runs(f"wires_{given.name}", arms, given, key="wire", first="none")
    for path in sorted(RESULTS.glob("wires_*.json")):
        draw(path)


def wire_settings(wire: str) -> dict[str, Any]:
    """Return the settings of the federation that pack as a wire's name says.

    >>> wire_settings("drive/int4")
    {'wire': 'drive', 'download_wire': 'int4'}
    """
    up, _, down = wire.partition("/")
    return {"wire": up, **({"download_wire": down} if down else {})}


def draw(path: Path) -> None:
    """Write the tables and the figure of a result file beside it."""
    result = json.loads(path.read_text())
    if not result.get("runs"):
        return
    path.with_suffix(".svg").write_text(wires_figure(result))
    path.with_suffix(".md").write_text(wires_page(result, path.stem))
    print(path.with_suffix(".md"))


if __name__ == "__main__":
    main()
