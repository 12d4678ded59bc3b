"""What a heterogeneity report of the quickstart's two corpora costs, at two commits, and whether the figures agree.

    python benchmarks/report_steps.py BEFORE AFTER [--repeats 3] [--result report_steps]

BEFORE and AFTER are anything that git knows; `.` is the working tree. Both get the same client repos and profiles'
rows (built once, by AFTER) and take turns. CPU seconds, the least of the repeats, with one thread:

- `command`: `fedllm-data report` as a process, nothing cached, imports included; and `again`: the same command in the
  folder of a build that has its report, which AFTER may take from there;
- `steps`: imports, opening the splits, codebook, profiles, axes, page;
- `axes`: each axis with null, bootstrap and the clients' columns.

Then the largest relative difference of any number in both heterogeneity.json, and how many numbers differ at all.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import write_result

ROOT = Path(__file__).parent.parent
CORPORA = ("fed-synth", "fed-synth-pa")
COMMAND = "import sys; from fedllm_data.cli import main; sys.exit(main(sys.argv[1:]))"


def main() -> None:
    """Measure both commits and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="*", metavar="COMMIT", help="BEFORE and AFTER")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--result", default="report_steps", help='name of the result file; "" writes none')
    parser.add_argument("--steps-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps_of:
        print(json.dumps(steps_of(arguments.steps_of)))
        return
    if len(arguments.commits) != 2:
        parser.error("name two commits")
    document: dict[str, Any] = {"commits": arguments.commits, "corpora": {}}
    with tempfile.TemporaryDirectory(prefix="report-steps-") as place:
        packages = dict(zip(("before", "after"), (taken_out(c, Path(place)) for c in arguments.commits), strict=True))
        for corpus in CORPORA:
            document["corpora"][corpus] = measured(corpus, packages, Path(place), arguments.repeats)
            print(corpus, json.dumps(document["corpora"][corpus], indent=2), flush=True)
    if arguments.result:
        print(f"written: {write_result(arguments.result, document)}")


def taken_out(commit: str, place: Path) -> Path:
    """A folder with the packages of a commit."""
    if commit == ".":
        return ROOT
    folder = place / commit
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit, "fedllm_data"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def measured(corpus: str, packages: dict[str, Path], place: Path, repeats: int) -> dict[str, Any]:
    """One corpus at both commits."""
    bare, reported = place / "bare" / corpus, place / "reported" / corpus
    command(packages["after"], "build", corpus, "--out", bare, "--no-report")
    command(packages["after"], "build", corpus, "--out", reported)
    spent: dict[str, list[dict[str, Any]]] = {"before": [], "after": []}
    for _ in range(repeats):
        for which, folder in packages.items():
            out = place / f"{corpus}-{which}"
            fresh = command(folder, "report", bare, "--out", place / "fresh" / f"{corpus}-{which}-{time.time_ns()}")
            again = command(folder, "report", reported, "--out", out)
            inside = subprocess.run(
                [sys.executable, __file__, "--steps-of", bare],
                env=environment(folder),
                check=True,
                capture_output=True,
                text=True,
            )
            spent[which].append({"command": fresh, "again": again} | json.loads(inside.stdout.splitlines()[-1]))
    documents = [json.loads((place / f"{corpus}-{which}" / "heterogeneity.json").read_text()) for which in packages]
    return {which: least(rounds) for which, rounds in spent.items()} | {"figures": compared(*documents)}


def environment(packages: Path) -> dict[str, str]:
    """One thread, no cache of features, and these packages before those installed."""
    given = {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1", "FEDLLM_CACHE": "off"}
    return {**os.environ, **given, "HF_HUB_OFFLINE": "1"}


def command(packages: Path, *words: Any) -> float:
    """CPU seconds of a `fedllm-data` command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-c", COMMAND, *map(str, words)]
    # Not here: `-c` puts the current folder before PYTHONPATH.
    subprocess.run(line, env=environment(packages), cwd=packages, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2)


def steps_of(repo: Path) -> dict[str, Any]:
    """CPU seconds of the steps of a report, in this process."""
    steps, last = {}, 0.0

    def step(name: str) -> None:
        nonlocal last
        now = time.process_time()
        steps[name], last = round(now - last, 2), now

    from fedllm_data.codebook.making import make_codebook
    from fedllm_data.features.judges import NO_JUDGES, find_judges
    from fedllm_data.heterogeneity.axes import axes_of, measure_axes
    from fedllm_data.profiles import codebook_sample, open_splits, profile_datasets
    from fedllm_data.report import report_from_profiles
    from fedllm_data.reporting.write_page import write_page

    step("imports")
    datasets, _ = open_splits(repo)
    step("open")
    codebook = make_codebook(codebook_sample(repo, datasets))
    step("codebook")
    found = profile_datasets(datasets, codebook, judges=find_judges(codebook, NO_JUDGES))
    step("profiles")
    report = report_from_profiles(found, codebook, name=repo.name)
    step("axes")
    with tempfile.TemporaryDirectory() as out:
        write_page(report.to_json(), report.profiles, Path(out))
    step("page")
    axes = {}
    for name, axis in axes_of(found.task, codebook.scorers).items():
        start = time.process_time()
        measure_axes(found.profiles, axes={name: axis})
        axes[name] = round(time.process_time() - start, 3)
    return {"steps": steps, "axes": axes}


def least(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The least of every number over the repeats."""
    first = rounds[0]
    return {
        name: least([part[name] for part in rounds]) if isinstance(value, dict) else min(part[name] for part in rounds)
        for name, value in first.items()
    }


def compared(one: Any, two: Any) -> dict[str, Any]:
    """How far the numbers of two documents lie apart; texts, and where there is no number, must agree."""
    differing, largest, others = 0, 0.0, []

    def walk(first: Any, second: Any, where: str) -> None:
        nonlocal differing, largest
        if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
            for name in first:
                walk(first[name], second[name], f"{where}/{name}")
        elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
            for index, pair in enumerate(zip(first, second, strict=True)):
                walk(*pair, f"{where}/{index}")
        elif isinstance(first, float) and isinstance(second, float):
            differing += first != second
            # Below 1e-12 a number is rounding of 0.
            if abs(first - second) > 1e-12:
                largest = max(largest, abs(first - second) / max(abs(first), abs(second)))
        elif first != second:
            others.append(where)

    walk(one, two, "")
    return {"numbers_that_differ": differing, "largest_relative_difference": largest, "other_differences": others}


if __name__ == "__main__":
    main()
