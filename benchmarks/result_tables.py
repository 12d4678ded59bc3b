"""Markdown tables of the result files, for `benchmarks/README.md` and the results page of the documentation.

Every function reads one parsed file of `results/` and returns the lines of a table; no figure is written down here.
Standard library only.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "RESULTS",
    "build_rows",
    "corpora_rows",
    "detection_rows",
    "engine_rows",
    "machine_line",
    "markdown_table",
    "method_rows",
    "pair_rows",
    "plain_interval",
    "quickstart_rows",
    "read_result",
    "real_run_rows",
    "report_step_rows",
    "signed_interval",
    "visit_rows",
]

RESULTS = Path(__file__).parent / "results"
Result = Mapping[str, Any]
Rows = list[list[str]]


def read_result(name: str) -> dict[str, Any]:
    """Return the parsed `results/<name>.json`.

    >>> read_result("sft_kernel")["num_threads"]
    1
    """
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Return a table; a heading that begins with `>` aligns its column to the right.

    >>> print(markdown_table(["name", ">rows"], [["a|b", "3"]]))
    | name | rows |
    | --- | ---: |
    | a\|b | 3 |
    """
    lines = [[cell.removeprefix(">") for cell in head], ["---:" if cell.startswith(">") else "---" for cell in head]]
    lines += [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain_interval(item: Result, digits: int = 3) -> str:
    """Return the mean of a score with its interval.

    >>> plain_interval({"mean": 2.1934, "ci_low": 1.7886, "ci_high": 2.5981})
    '2.193 [1.789, 2.598]'
    """
    return f"{item['mean']:.{digits}f} [{item['ci_low']:.{digits}f}, {item['ci_high']:.{digits}f}]"


def signed_interval(item: Result, digits: int = 3) -> str:
    """Return a difference with its interval and its signs.

    >>> signed_interval({"difference": -2.5361, "ci_low": -2.7082, "ci_high": -2.364}, 2)
    '-2.54 [-2.71, -2.36]'
    """
    return f"{item['difference']:+.{digits}f} [{item['ci_low']:+.{digits}f}, {item['ci_high']:+.{digits}f}]"


def machine_line(result: Result) -> str:
    """Return on what a result was measured, in one line.

    >>> machine_line({"machine": {"processor": "P", "num_cores": 2, "python": "3.11.7", "versions": {"torch": "2"}}})
    'P, 2 cores; Python 3.11.7, torch 2'
    """
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['processor']}, {machine['num_cores']} cores; Python {machine['python']}, {versions}"


def real_run_rows(result: Result) -> Rows:
    """Return score, clients and the policies base, SFT and DPO of `real_run`."""
    wanted = (
        ("held-out loss, same clients", "fed-oasst", "test", "heldout_loss"),
        ("held-out loss, unseen clients", "fed-oasst", "unseen", "heldout_loss"),
        ("implicit reward accuracy, unseen clients", "fed-oasst-pa", "unseen", "implicit_reward_accuracy"),
        ("ranking accuracy per token, unseen clients", "fed-oasst-pa", "unseen", "ranking_accuracy_per_token"),
    )
    rows = []
    for words, corpus, split, score in wanted:
        found = {
            policy: result["scores"].get(f"{corpus}/{policy}", {}).get(split, {}).get("scores", {}).get(score)
            for policy in ("base", "sft", "dpo")
        }
        clients = {each["num_clients"] for each in found.values() if each is not None}
        cells = [plain_interval(each) if each is not None else "" for each in found.values()]
        rows.append([words, ", ".join(map(str, sorted(clients))), *cells])
    return rows


def corpora_rows(result: Result) -> Rows:
    """Return each corpus of `real_corpora`: clients, rows and what the preset leaves out."""
    rows = []
    for name, corpus in result["corpora"].items():
        preset, unfiltered = (
            f"{corpus[kind]['num_clients']:,}, {corpus[kind]['num_rows']:,}" for kind in ("preset", "unfiltered")
        )
        rows.append([f"`{name}`", preset, unfiltered, "; ".join(_left_out(corpus))])
    return rows


def _left_out(corpus: Result) -> list[str]:
    """Return why the preset leaves out what a build without filters keeps, most rows first, with their numbers."""
    preset, unfiltered = corpus["preset"], corpus["unfiltered"]
    counts = preset["counts"]
    removed = [count for name, count in counts.items() if "duplicates" in name and not name.endswith("_kept")]
    reasons = {
        reason: count - unfiltered["rejected_reasons"].get(reason, 0)
        for reason, count in preset["rejected_reasons"].items()
    }
    reasons["clients with too few rows"] = counts["num_rows_of_small_clients"]
    reasons["duplicates within a client or across clients"] = sum(removed)
    reasons["pairs of equal answers"] = counts["num_same_text_pairs"]
    reasons["prompts of unseen clients"] = counts["num_kept"] - preset["num_rows"]
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    return [f"{reason} ({count:,})" for reason, count in ordered if count > 0]


def quickstart_rows(result: Result) -> Rows:
    """Return each seed of `quickstart_seeds`: both claims on both splits, with their intervals."""
    rows = []
    for seed in sorted({item["seed"] for item in result["results"]}):
        of_seed = [item for item in result["results"] if item["seed"] == seed]
        cells = []
        for score, digits in (("heldout_loss", 2), ("ranking_accuracy", 3)):
            for split in ("test", "unseen"):
                found = next(item for item in of_seed if (item["score"], item["split"]) == (score, split))
                cells.append(signed_interval(found, digits))
        rows.append([str(seed), *cells])
    return rows


def visit_rows(result: Result) -> Rows:
    """Return the ways of a client's visit of `client_round_overhead`, in CPU seconds."""
    words = {
        "resident": "resident trainer",
        "new_trainer": "a new TRL trainer every visit",
        "bare_loop": "bare loop without a trainer",
    }
    return [
        [f"{task.upper()}, {words[way]}", *(_seconds(result[task][way].get(key)) for key in _VISIT_COLUMNS)]
        for task in ("sft", "dpo")
        for way in words
        if way in result[task]
    ]


_VISIT_COLUMNS = ("visit", "beyond_optimizer_steps", "beyond_training_steps")


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def engine_rows(result: Result) -> Rows:
    """Return the engines of `engine_rounds`: CPU seconds of a visit, distance from the bare loop."""
    words = {"ours": "ours", "bare": "bare loop", "pfl": "pfl-research", "flower": "Flower's simulation"}
    kernels = {"sft_kernel_trl": "TRL's kernel", "sft_kernel_plain": "plain kernel"}
    return [
        [
            f"{words[name]}, {kernels[kernel]}" if name == "ours" else words[name],
            f"{engine['client_round']:.3f}",
            f"{engine['above_own_steps']:.3f}",
            f"{engine['largest_difference_from_bare']:.1e}" if engine["largest_difference_from_bare"] else "0",
        ]
        for kernel in kernels
        for name, engine in result[kernel]["engines"].items()
        if kernel == "sft_kernel_trl" or name == "ours"
    ]


def build_rows(result: Result) -> Rows:
    """Return the builds of `build_scale`: rows, CPU seconds, rows a CPU second and peak memory."""
    words = {"plain": "plain (exact duplicates)", "curated": "with language detection and near-duplicates"}
    return [
        [
            words[build["variant"]],
            f"{build['num_rows']:,}",
            f"{build['cpu_seconds']:.0f}",
            f"{build['num_rows'] / build['cpu_seconds']:,.0f}",
            f"{build['peak_bytes'] / 2**20:.0f} MiB",
        ]
        for build in sorted(
            result["builds"], key=lambda build: (list(words).index(build["variant"]), build["num_rows"])
        )
    ]


def method_rows(result: Result) -> list[dict[str, Any]]:
    """Return the methods of a `methods_*` file against the base: own rows, and people nobody trained on.

    Returns:
        One dict a method with `method`, `own` and `unseen` (items of a comparison: difference, interval, share better
        off), in the order of the file.
    """
    own = {item["other"]: item for item in result["personal"]["items"]}
    unseen = {item["other"]: item for item in result["global"]["items"] if item["split"] == "unseen"}
    return [{"method": name, "own": own[name], "unseen": unseen[name]} for name in own]


def pair_rows(result: Result) -> Rows:
    """Return the ways to score pairs of `pair_scoring`: CPU seconds, speed-up, distance from the plain loop."""
    words = {
        "plain": "plain loop, LoRA beside the weights",
        "apart": "policy and reference apart",
        "ours": "prompts shared, adapter merged",
        "known": "the same, the reference known from an earlier evaluation",
    }
    return [
        [
            words[way],
            f"{min(seconds):.2f}",
            f"{min(result['cpu_seconds']['apart']) / min(seconds):.2f}",
            f"{result['largest_difference_of_margins_to_plain'][way]:.1e}",
        ]
        for way, seconds in result["cpu_seconds"].items()
    ]


def detection_rows(result: Result) -> Rows:
    """Return the sets of `language_detection`: how often the builds' detector answers and is right, and its cost."""
    ours, *others = result["detectors"]
    rows = []
    for name, of_set in result["sets"].items():
        measured = of_set["detectors"]
        rows.append(
            [
                name,
                f"{of_set['num_texts']:,}",
                str(of_set["median_chars"]),
                f"{100 * measured[ours]['answered_fraction']:.1f} %",
                f"{100 * measured[ours]['right_of_answered_fraction']:.1f} %",
                *(f"{measured[detector]['cpu_seconds_per_1000']:.3f}" for detector in (ours, *others[:1])),
            ]
        )
    return rows


def report_step_rows(result: Result) -> Rows:
    """Return the corpora of `report_steps`: CPU seconds of a report before and after, with those of its main steps."""
    rows = []
    for name, corpus in result["corpora"].items():
        sides = (corpus["before"], corpus["after"])
        cells = [side[part] for part in ("command", "again") for side in sides]
        cells += [side["steps"][step] for step in ("axes", "page") for side in sides]
        rows.append([f"`{name}`", *(f"{seconds:.1f}" for seconds in cells)])
    return rows
