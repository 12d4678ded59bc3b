"""Score against epsilon: what user-level privacy costs methods that train many values, and those that train few.

    python benchmarks/privacy_scores.py --data FED_SYNTH --model BASE --out DIR
    python benchmarks/privacy_scores.py --draw        (the tables again, from the result files alone)

Four methods at each epsilon (`--epsilons`) and without noise or clip, with the same start, rounds and local steps.
Cohorts are Poisson's, so that sampling counts. The clip is set by a rule that looks at no data: an update of s AdamW
steps of rate a over d values is at most a s sqrt(d) long, and its steps do not all go one way, so a share of that
(`--clip-share`). `private_settings` makes the settings of one run from unit, method and epsilon; the benchmark of
trust takes it from here. A finished run is added to the result file at once, and a run that was stopped goes on from
its newest checkpoint. Results: `results/privacy_<name>.json` and `.md`.
"""

import argparse
import json
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.result_tables import machine_line, markdown_table, signed_interval
from benchmarks.scored_runs import RESULTS, add_arguments, make_runs

METHODS = ("fed_sb", "ffa_lora", "fedavg", "fedadam")
EPSILONS = (1.0, 3.0, 8.0, 20.0)
COLUMNS = (
    *("method", ">epsilon", ">values sent", ">clip", ">noise in clips", ">loss, same clients", "less without noise"),
    *(">loss, unseen clients", "less the same", ">seeds"),
)
Runs = Mapping[tuple[str, float], Sequence[Mapping[str, Any]]]


def main() -> None:
    """Train and score what is missing, then write the table."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="only write the tables of all result files again")
    parser.add_argument("--name", default="fed_synth", help="of the result file: results/privacy_NAME.json")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--epsilons", nargs="+", type=float, default=list(EPSILONS))
    parser.add_argument("--unit", default="client", choices=("client", "example"), help="what epsilon protects")
    parser.add_argument("--delta", type=float, default=1e-4)
    parser.add_argument("--clip-share", type=float, default=0.3, help="of the longest update by AdamW's rule")
    add_arguments(parser)
    parser.set_defaults(rounds=20, cohort=40, strategy=None)  # an arm names its own
    given = parser.parse_args()
    if not given.draw:
        if not (given.data and given.model and given.out):
            parser.error("--data, --model and --out are needed, or --draw")
        values = sent_values(given.model, given.rank)
        arms = {
            arm_name(method, epsilon): private_settings(given.unit, method, epsilon, values[method], given)
            for method in given.methods
            for epsilon in (math.inf, *given.epsilons)
        }
        more = {"unit": given.unit, "delta": given.delta, "clip_share": given.clip_share}
        make_runs(
            f"privacy_{given.name}", arms, given, key="arm", first=arm_name(given.methods[0], math.inf), more=more
        )
        compare_within(f"privacy_{given.name}", given)
    for path in sorted(RESULTS.glob("privacy_*.json")):
        draw(path)


def arm_name(method: str, epsilon: float) -> str:
    """Return the name of a method at an epsilon.

    >>> arm_name("fed_sb", 8.0), arm_name("fedavg", math.inf)
    ('fed_sb-8', 'fedavg-none')
    """
    return f"{method}-{'none' if math.isinf(epsilon) else format(epsilon, 'g')}"


def sent_values(model: Path, rank: int) -> dict[str, int]:
    """Return how many values each method sends in a round.

    Args:
        model: folder of the base.
        rank: of LoRA on all linear layers.
    """
    from fedllm_train.models.adapter_shapes import AdapterSettings, adapter_shapes
    from fedllm_train.models.base_tensors import header_shapes, tensors_of_headers
    from fedllm_train.privacy.few_values import values_by_method

    shapes = header_shapes(model)
    assert shapes is not None, "the base lies in safetensors files"
    config = json.loads((model / "config.json").read_text())
    base = tensors_of_headers(shapes, config, where=str(model))
    found = values_by_method(adapter_shapes(base, AdapterSettings(kind="lora", rank=rank, targets="all-linear")))
    return found | {"fedadam": found["fedavg"]}


def private_settings(
    unit: str, method: str, epsilon: float, num_values: int, given: argparse.Namespace
) -> dict[str, Any]:
    """Return the settings of the federation for one method at one epsilon.

    Args:
        unit: client or example.
        method: one of METHODS.
        epsilon: infinite for a run without clip and noise.
        num_values: values that the method sends.
        given: has learning_rate, steps, delta and clip_share.
    """
    settings: dict[str, Any] = {"strategy": method, "cohort_rule": "poisson"}
    if method == "fed_sb":
        settings["core_frame"] = "random"
    if math.isinf(epsilon):
        return settings
    clip = given.clip_share * given.learning_rate * given.steps * math.sqrt(num_values)
    settings |= {"dp_clip": float(f"{clip:.3g}"), "dp_epsilon": epsilon, "dp_delta": given.delta}
    return settings | ({} if unit == "client" else {"dp_unit": unit})


def compare_within(stem: str, given: argparse.Namespace) -> None:
    """Put each method's differences from its own run without noise into a result file."""
    from benchmarks.machine import write_result
    from benchmarks.scored_runs import compared

    path = RESULTS / f"{stem}.json"
    result = json.loads(path.read_text())
    items: list[dict[str, Any]] = []
    for method in given.methods:
        own = [run for run in result["runs"].values() if run["arm"].startswith(f"{method}-")]
        found = compared(own, given.out, key="arm", first=arm_name(method, math.inf))
        items += found.get("differences", [])
    write_result(stem, result | {"differences": items})


def runs_by_arm(result: Mapping[str, Any]) -> dict[tuple[str, float], list[Mapping[str, Any]]]:
    """Return the runs of every method and epsilon, the least protected first."""
    arms: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for run in sorted(result["runs"].values(), key=lambda run: run["seed"]):
        method, _, epsilon = run["arm"].rpartition("-")
        arms.setdefault((method, math.inf if epsilon == "none" else float(epsilon)), []).append(run)
    return dict(sorted(arms.items(), key=lambda item: (METHODS.index(item[0][0]), -item[0][1])))


def privacy_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return a row a method and epsilon: what is sent, how large the noise is, losses with their differences."""
    differences = {(item["other"], item["split"]): item for item in result.get("differences", [])}
    rows = []
    for (method, epsilon), runs in runs_by_arm(result).items():
        told = runs[0].get("privacy")
        row = [method, "none" if math.isinf(epsilon) else f"{epsilon:g}"]
        row.append(f"{told['num_values']:,}" if told else "–")
        row += [f"{told['clip']:g}", f"{told['noise_in_clips']:.3g}"] if told else ["–", "–"]
        for split in ("test", "unseen"):
            item = differences.get((arm_name(method, epsilon), split))
            row.append(f"{mean(run['scores'][split]['mean'] for run in runs):.4f}")
            row.append(signed_interval(item, 4) if item else "–")
        rows.append([*row, str(len(runs))])
    return rows


def privacy_page(result: Mapping[str, Any], name: str) -> str:
    """Return the page of a result file as Markdown."""
    settings, base = result["settings"], result["base"]
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items() if value is not None)
    return f"""# Score against epsilon: {settings["corpus"]}

Made by `python benchmarks/privacy_scores.py` (`--draw` makes the table again). {told}.

Means over seeds. Losses are in nats a token, means over the clients that were scored; the base has
{base["test"]["mean"]:.4f} on the same clients and {base["unseen"]["mean"]:.4f} on unseen ones. Differences are from
the same method without clip and noise, paired by client over all seeds, with 95 % intervals; below zero is better.
Noise in clips is the norm of a round's noise on the mean, over the clip that bounds an update: above 1 a round adds
more noise than a client can say.

{markdown_table(COLUMNS, privacy_rows(result))}

<sub>[`{name}.json`]({name}.json): {machine_line(result)}.</sub>
"""


def draw(path: Path) -> None:
    """Write the table of a result file beside it."""
    result = json.loads(path.read_text())
    if not result.get("runs"):
        return
    path.with_suffix(".md").write_text(privacy_page(result, path.stem))
    print(path.with_suffix(".md"))


if __name__ == "__main__":
    main()
