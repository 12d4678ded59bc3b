"""What a heterogeneity report costs: a million rows and a tenth of them, of 20,000 clients.

    python benchmarks/report_scale.py                     (about an hour; writes results/report_scale.json)
    python benchmarks/report_scale.py --rows 20000 --clients 400 --result ""          (a small run, printed only)

Every step is a process of its own, in CPU seconds and peak memory, for both numbers of rows:

- `load`: Parquet to the memory-mapped table of `datasets` (once a corpus);
- `profile`: from rows to profiles, the seconds in the encoder and in the shipped scorers apart from ours;
- `profile_files`: profiles to a folder of files, and back;
- every axis from the profiles: figures, null, bootstrap and the clients' columns;
- `page`: the whole document, the page and its size.

Memory: `peak_bytes` is what was resident at most, mapped pages of the Arrow file among it, which the system takes back
at will; `peak_anonymous_bytes` (looked at twenty times a second) leaves them out, and is what the ratio of both sizes
is of. Then the plain script `report_pandas.py` on the same rows: figures side by side, seconds with and without null.
"""

import argparse
import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from build_scale import answer, folder_bytes, run_child
from generated import Corpus
from machine import watched, write_result

HERE = Path(__file__).parent
AXES = ("quantity", "language", "length", "quality", "instruction", "embedding")
PLAIN_AXES = ("quantity", "language", "length")
NUM_DRAWS = 5


def main() -> None:
    """Run every step for both sizes and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="conversations of the large corpus")
    parser.add_argument("--clients", type=int, default=20_000, help="clients of both corpora")
    parser.add_argument("--small-rows", type=int, help="conversations of the small corpus (a tenth)")
    parser.add_argument("--page", type=Path, help="folder to keep the report of the large corpus in")
    parser.add_argument("--result", default="report_scale", help='name of the result file; "" writes none')
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        answer(STEPS[arguments.step](arguments) if arguments.step in STEPS else measure_axis(arguments))
        return
    sizes = [arguments.small_rows or arguments.rows // 10, arguments.rows]
    document: dict[str, Any] = {"cases": [], "rows_ratio": sizes[1] / sizes[0]}
    for num_rows in sizes:
        with tempfile.TemporaryDirectory(prefix="report-scale-") as place:
            document["cases"].append(run_case(arguments, num_rows, Path(place)))
        if len(document["cases"]) == 2:
            small, large = (case["steps"] for case in document["cases"])
            document["peak_anonymous_ratio"] = {
                step: round(large[step]["peak_anonymous_bytes"] / spent["peak_anonymous_bytes"], 3)
                for step, spent in small.items()
            }
            print(json.dumps(document["peak_anonymous_ratio"], indent=2))
        if arguments.result:  # after every size: the second takes long
            print(f"written: {write_result(arguments.result, document)}", flush=True)


def run_case(arguments: argparse.Namespace, num_rows: int, place: Path) -> dict[str, Any]:
    """Generate a corpus and run all steps on it."""
    environment = {**os.environ, "HF_HOME": str(place / "home"), "OMP_NUM_THREADS": "1", "FEDLLM_CACHE": "off"}

    def step(name: str) -> dict[str, Any]:
        command = [sys.executable, __file__, "--step", name, "--place", str(place)]
        command += ["--rows", str(num_rows), "--clients", str(arguments.clients)]
        if arguments.page and num_rows == arguments.rows:
            command += ["--page", str(arguments.page.resolve())]
        spent, _ = run_child(command, environment)
        print(
            f"{num_rows:,} rows, {name}: {json.dumps({k: v for k, v in spent.items() if k != 'values'})}", flush=True
        )
        return spent

    facts = step("generate")
    steps = {name: step(name) for name in ("load", "profile", "profile_files", *AXES, "page")}
    ours = step("plain")
    theirs, _ = run_child([sys.executable, str(HERE / "report_pandas.py"), str(place / "repo")], environment)
    versus = compared(ours, theirs)
    print(f"{num_rows:,} rows, versus pandas: {json.dumps(versus, indent=2)}", flush=True)
    return {
        "num_rows": num_rows,
        "num_clients": arguments.clients,
        "num_text_bytes": facts["num_text_bytes"],
        "steps": steps,
        "versus_pandas": versus,
    }


def compared(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds of both, and how far the figures lie apart."""
    axes = {}
    for name in PLAIN_AXES:
        own, other = ours["axes"][name], theirs["axes"][name]
        both = {
            figure: (own["values"][figure], value)
            for figure, value in other["values"].items()
            if figure in own["values"]
        }
        axes[name] = {
            "figures": {figure: value for figure, (value, _) in both.items()},
            "largest_difference": max(abs(one - two) for one, two in both.values()),
            "value_cpu_seconds": [round(own["value_cpu_seconds"], 4), round(other["value_cpu_seconds"], 4)],
        }
        if "draw_cpu_seconds" in other:
            axes[name]["draw_cpu_seconds"] = [round(own["draw_cpu_seconds"], 5), round(other["draw_cpu_seconds"], 4)]
            axes[name]["draw_ratio"] = round(other["draw_cpu_seconds"] / own["draw_cpu_seconds"], 1)
        if name == "length":
            axes[name]["icc_without_bins"] = other["values"]["response_icc_without_bins"]
    totals = [
        spent["read_cpu_seconds"] + sum(axis["value_cpu_seconds"] for axis in spent["axes"].values())
        for spent in (ours, theirs)
    ]
    return {
        "order": ["fedllm-data", "pandas and SciPy"],
        "read_cpu_seconds": [round(ours["read_cpu_seconds"], 2), round(theirs["read_cpu_seconds"], 2)],
        "read_and_values_cpu_seconds": [round(total, 2) for total in totals],
        "read_and_values_ratio": round(totals[1] / totals[0], 2),
        "axes": axes,
    }


def generate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the client repo."""
    from scale_repo import write_repo

    return dict(write_repo(Corpus(num_rows=arguments.rows, num_clients=arguments.clients), arguments.place / "repo"))


def load(arguments: argparse.Namespace) -> dict[str, Any]:
    """Open the repo for the first time."""
    from fedllm_data.profiles import open_splits

    with watched() as spent:
        datasets, _ = open_splits(arguments.place / "repo")
    return spent | {"num_clients": len(datasets[0])}


def profile(arguments: argparse.Namespace) -> dict[str, Any]:
    """From rows to profiles, with a codebook made from them."""
    import fedllm_data.features.rows as rows_module
    from fedllm_data.codebook.making import make_codebook
    from fedllm_data.features.judges import NO_JUDGES, Judges, find_judges
    from fedllm_data.profiles import open_splits, profile_datasets

    apart = {"encoder": 0.0, "scorers": 0.0}
    load_encoder, from_functions = rows_module.load_encoder, Judges.from_functions

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*given: Any) -> Any:
            start = time.process_time()
            try:
                return call(*given)
            finally:
                apart[name] += time.process_time() - start

        return timing

    def timed_encoder(name: str) -> Any:
        encoder = load_encoder(name)
        return replace(encoder, encode=timed("encoder", encoder.encode))

    datasets, _ = open_splits(arguments.place / "repo")
    with watched() as codebook_spent:
        codebook = make_codebook(datasets)
    rows_module.load_encoder = timed_encoder
    Judges.from_functions = timed("scorers", from_functions)  # type: ignore[method-assign]
    with watched() as spent:
        profiles = profile_datasets(datasets, codebook, judges=find_judges(codebook, NO_JUDGES))
    (arguments.place / "profiles.pickle").write_bytes(pickle.dumps((profiles, codebook)))
    ours = spent["cpu_seconds"] - sum(apart.values())
    return spent | {
        "codebook_cpu_seconds": codebook_spent["cpu_seconds"],
        "encoder_cpu_seconds": round(apart["encoder"], 2),
        "scorers_cpu_seconds": round(apart["scorers"], 2),
        "our_cpu_seconds": round(ours, 2),
        "encoder_and_scorers_fraction": round(sum(apart.values()) / spent["cpu_seconds"], 3),
    }


def profile_files(arguments: argparse.Namespace) -> dict[str, Any]:
    """Profiles to files and back."""
    from fedllm_data.profile_files import read_profiles, write_profiles

    profiles, _ = profiles_of(arguments)
    folder = arguments.place / "profiles"
    with watched() as writing:
        write_profiles(profiles, folder)
    with watched() as spent:
        found = read_profiles(folder)
    assert len(found.profiles) == len(profiles.profiles)
    return spent | {"write_cpu_seconds": writing["cpu_seconds"], "num_bytes": folder_bytes(folder)}


def measure_axis(arguments: argparse.Namespace) -> dict[str, Any]:
    """One axis, as a report measures it."""
    from fedllm_data.heterogeneity.axes import axes_of, measure_axes

    profiles, codebook = profiles_of(arguments)
    axes = {arguments.step: axes_of("sft", codebook.scorers)[arguments.step]}
    with watched() as spent:
        result = measure_axes(profiles.profiles, axes=axes)[arguments.step]
    return spent | {
        "num_clients": len(result.client_ids),
        "num_null": result.num_null,
        "num_bootstrap": result.num_bootstrap,
        "verdict": result.verdict,
    }


def page(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole report from profiles: all axes, then document and page."""
    from fedllm_data.in_place import write_file
    from fedllm_data.report import report_from_profiles
    from fedllm_data.reporting.document import dump_json
    from fedllm_data.reporting.write_page import write_page

    profiles, codebook = profiles_of(arguments)
    out = arguments.page or arguments.place / "report"
    with watched() as measuring:
        report = report_from_profiles(profiles, codebook, name="generated")
    with watched() as spent:
        document = report.to_json()
        write_page(document, report.profiles, out)
        write_file(out / "heterogeneity.json", dump_json(document))
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir()) if path.is_file()}
    return spent | {"measure_cpu_seconds": measuring["cpu_seconds"], "file_bytes": sizes}


def plain(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `report_pandas.py` does: rows to figures on three axes, and draws of their nulls."""
    import numpy as np

    from fedllm_data.heterogeneity.axes import AXES as DEFINITIONS
    from fedllm_data.heterogeneity.profile import stack_profiles
    from fedllm_data.profiles import client_profiles, open_splits

    datasets, _ = open_splits(arguments.place / "repo")
    with watched() as spent:
        profiles = client_profiles(datasets)
    axes = {}
    for name in PLAIN_AXES:
        axis = DEFINITIONS[name]
        with watched() as valuing:
            stack = axis.prepare(stack_profiles(profiles, axis.tables, axis.min_rows, axis.vectors))
            values = axis.measure(stack)
        with watched() as drawing:
            draw, rng = axis.null_sampler(stack), np.random.default_rng(0)
            for _ in range(NUM_DRAWS):
                axis.measure(draw(rng))
        axes[name] = {
            "values": values,
            "value_cpu_seconds": valuing["cpu_seconds"],
            "draw_cpu_seconds": drawing["cpu_seconds"] / NUM_DRAWS,
        }
    return {"read_cpu_seconds": spent["cpu_seconds"], "axes": axes}


STEPS = {
    "generate": generate,
    "load": load,
    "profile": profile,
    "profile_files": profile_files,
    "page": page,
    "plain": plain,
}


def profiles_of(arguments: argparse.Namespace) -> Any:
    """What the step `profile` left: pickled by this script in a folder of its own."""
    return pickle.loads((arguments.place / "profiles.pickle").read_bytes())


if __name__ == "__main__":
    main()
