"""Whether IID partitions lie inside the nulls of the report: `results/null_calibration.md`.

    python benchmarks/null_calibration.py DIR ... [--axes NAME ...] [--seeds 100] [--slow-seeds 40] [--num-null 99]

Each DIR is a client repo. All its rows are dealt to clients of the same sizes at random, once a seed, and measured; a
null that holds has p > 0.05 in 95 % of seeds. Axes embedding and preference take `--slow-seeds`. What the result file
says of other corpora and other axes stays.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from machine import describe
from scipy.stats import binom

from fedllm_data.calibration import corpus_features, iid_p_values
from fedllm_data.codebook.making import make_codebook
from fedllm_data.features.cache import default_cache
from fedllm_data.heterogeneity.axes import axes_of
from fedllm_data.profiles import codebook_sample, open_splits, task_of

RESULTS = Path(__file__).parent / "results"
SLOW = ("embedding", "preference")


def calibrate(repo: Path, chosen: list[str] | None, num_seeds: int, num_slow: int, num_null: int) -> dict:
    """Return shares of partitions inside the null, for every measure of the chosen axes of one corpus."""
    datasets, _ = open_splits(repo)
    cache = default_cache()
    codebook = make_codebook(codebook_sample(repo, datasets), cache=cache)
    columns = corpus_features(datasets, codebook, cache)
    axes = axes_of(task_of(datasets), codebook.scorers)
    axes = {name: axis for name, axis in axes.items() if chosen is None or name in chosen}
    fast = {name: axis for name, axis in axes.items() if name not in SLOW}
    slow = {name: axis for name, axis in axes.items() if name in SLOW}
    start = time.process_time()
    p_values = iid_p_values(columns, fast, codebook.digest, seeds=range(num_seeds), num_null=num_null)
    p_values |= iid_p_values(columns, slow, codebook.digest, seeds=range(num_slow), num_null=num_null)
    measured: dict[str, dict[str, object]] = {name: {} for name in axes}
    for (axis, measure), values in p_values.items():
        num_inside = int((np.array(values) > 0.05).sum())
        measured.setdefault(axis, {})[measure] = {
            "num_seeds": len(values),
            "inside_fraction": num_inside / len(values),
            "p_of_so_few": float(binom.cdf(num_inside, len(values), 0.95)),
            "is_headline": measure == axes[axis].headline,
        }
    num_rows = len(columns["client_id"])
    num_clients = len(np.unique(columns["client_id"]))
    print(f"{repo.name}: {num_rows} rows, {time.process_time() - start:.0f} CPU s", flush=True)
    return {"name": repo.name, "num_rows": num_rows, "num_clients": num_clients, "axes": measured}


def table(corpora: list[dict], num_null: int) -> str:
    """Return the page."""
    axes = list(dict.fromkeys(axis for corpus in corpora for axis in corpus["axes"]))
    lines = [
        "# Do IID partitions lie inside the nulls?",
        "",
        "Made by `python benchmarks/null_calibration.py DIR ...` with as many `--seeds` as the cells say: all rows of",
        "a corpus dealt at random to clients of the natural sizes (for quantity: each row to a client drawn at",
        f"random), once a seed, measured with {num_null} draws of the null. Each cell: the share of seeds in which",
        "the axis's headline has an uncorrected p above 0.05, and the number of seeds. A null that holds gives 0.95;",
        "in brackets, how likely it would then be to see so few inside. –: without a value there, or not measured.",
        "",
        "| corpus | clients | rows | " + " | ".join(axes) + " |",
        "| --- | ---: | ---: |" + " --- |" * len(axes),
    ]
    every = []
    for corpus in corpora:
        cells = []
        for axis in axes:
            entries = corpus["axes"].get(axis, {})
            every += [(entry, corpus["name"], axis, measure) for measure, entry in entries.items()]
            headline = [entry for entry in entries.values() if entry["is_headline"]]
            cells.append(
                f"{e['inside_fraction']:.3f} of {e['num_seeds']} ({e['p_of_so_few']:.2g})"
                if (e := next(iter(headline), None))
                else "–"
            )
        lines.append(
            f"| {corpus['name']} | {corpus['num_clients']:,} | {corpus['num_rows']:,} | {' | '.join(cells)} |"
        )
    every.sort(key=lambda item: item[0]["p_of_so_few"])
    lines += [
        "",
        f"Of all {len(every)} measures (not the headlines alone), these were inside least often; of so many, one",
        f"would have a probability below {1 / len(every):.2g} by chance:",
        "",
        "| corpus | axis | measure | inside | probability of so few |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {axis} | {measure} | {e['inside_fraction']:.3f} of {e['num_seeds']} | {e['p_of_so_few']:.2g} |"
        for e, name, axis, measure in every[:8]
    ]
    versions = ", ".join(f"{name} {number}" for name, number in describe()["versions"].items())
    return "\n".join([*lines, "", f"Versions: {versions}.", ""])


def main() -> None:
    """Calibrate the corpora one after another and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repos", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--axes", nargs="+", metavar="NAME", help="measure these alone")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--slow-seeds", type=int, default=40)
    parser.add_argument("--num-null", type=int, default=99)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result = arguments.out / "null_calibration.json"
    found = {corpus["name"]: corpus for corpus in json.loads(result.read_text())} if result.exists() else {}
    for repo in arguments.repos:
        corpus = calibrate(repo, arguments.axes, arguments.seeds, arguments.slow_seeds, arguments.num_null)
        found[repo.name] = corpus | {"axes": found.get(repo.name, corpus)["axes"] | corpus["axes"]}
        corpora = list(found.values())
        result.write_text(json.dumps(corpora, indent=1) + "\n")
        (arguments.out / "null_calibration.md").write_text(table(corpora, arguments.num_null))
    print(table(corpora, arguments.num_null))


if __name__ == "__main__":
    main()
