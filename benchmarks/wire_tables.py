"""Tables and figure of `wires.py`, from a result file alone: score against bytes, and bytes to the same loss.

Symbols: a run is one wire with one seed. Every number of a wire is the mean over its seeds. Standard library only.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.lines_figure import Axis, Line, lines_figure
from benchmarks.result_tables import machine_line, markdown_table, signed_interval

__all__ = ["bytes_to_loss", "level_of", "level_rows", "score_rows", "wires_figure", "wires_page"]

Result = Mapping[str, Any]
Run = Mapping[str, Any]
SHARE_OF_GAIN = 0.8
SHORT = ("none", "int4", "drive")


def runs_by_wire(result: Result) -> dict[str, list[Run]]:
    """Return the runs of every wire, `none` first, then by what they send up."""
    wires: dict[str, list[Run]] = {}
    for run in sorted(result["runs"].values(), key=lambda run: run["seed"]):
        wires.setdefault(run["wire"], []).append(run)
    return dict(sorted(wires.items(), key=lambda item: (item[0] != "none", -mean_of(item[1], "upload_bytes"))))


def mean_of(runs: Sequence[Run], key: str) -> float:
    """Return the mean of a number over runs; NaN where one of them does not have it.

    >>> mean_of([{"a": 1}, {"a": 2}], "a")
    1.5
    """
    found = [run[key] for run in runs]
    return float("nan") if None in found else mean(found)


def level_of(result: Result, seed: int) -> float | None:
    """Return the held-out loss at which `none` has most of its gain over the base; None without such a run.

    >>> result = {"base": {"test": {"mean": 3.0}}, "runs": {"none-0": {"scores": {"test": {"mean": 1.0}}}}}
    >>> round(level_of(result, 0), 6)
    1.4
    """
    run = result["runs"].get(f"none-{seed}")
    if run is None:
        return None
    before = result["base"]["test"]["mean"]
    return before - SHARE_OF_GAIN * (before - run["scores"]["test"]["mean"])


def bytes_to_loss(run: Run, level: float) -> Mapping[str, Any] | None:
    """Return the first scored round of a run whose held-out loss is at a level or below; None if none is.

    >>> curve = [{"round": 2, "upload_bytes": 10, "loss": 2.0}, {"round": 4, "upload_bytes": 20, "loss": 1.0}]
    >>> bytes_to_loss({"curve": curve}, 1.5)["upload_bytes"]
    20
    """
    return next((point for point in run["curve"] if point["loss"] <= level), None)


def score_rows(result: Result) -> list[list[str]]:
    """Return a row a wire: bytes, bits, error, losses and the difference from `none`."""
    differences = {(item["other"], item["split"]): item for item in result.get("differences", [])}
    rows = []
    for wire, runs in runs_by_wire(result).items():
        row = [
            f"`{wire}`",
            f"{mean_of(runs, 'upload_bytes') / 1e6:.2f}",
            f"{mean_of(runs, 'download_bytes') / 1e6:.2f}",
        ]
        row.append(f"{mean_of(runs, 'message_bits_per_value'):.2f}")
        row.append(_or_dash(mean_of(runs, "relative_error"), 3))
        for split in ("test", "unseen"):
            row.append(f"{mean(run['scores'][split]['mean'] for run in runs):.4f}")
            item = differences.get((wire, split))
            row.append(signed_interval(item, 4) if item else "–")
        rows.append([*row, str(len(runs)), _or_dash(mean_of(runs, "cpu_seconds"), 0)])
    return rows


def level_rows(result: Result, wires: Sequence[str] | None = None) -> list[list[str]]:
    """Return a row a wire: rounds and bytes until the loss of `none` at 80 % of its gain, and how many times fewer.

    Args:
        result: a result file.
        wires: those wanted; all if not given.
    """
    table = runs_by_wire(result)
    up_of_none: dict[int, float] = {}
    rows = []
    for wire, runs in table.items():
        levels = [level_of(result, run["seed"]) for run in runs]
        found = [None if level is None else bytes_to_loss(run, level) for run, level in zip(runs, levels, strict=True)]
        reached = [point for point in found if point is not None]
        if len(reached) < len(runs):
            row = [f"`{wire}`", f"not reached with {len(runs) - len(reached)} of {len(runs)} seeds", "–", "–", "–"]
        else:
            up, down = (mean(point[f"{way}_bytes"] for point in reached) for way in ("upload", "download"))
            if wire == "none":
                up_of_none = {run["seed"]: point["upload_bytes"] for run, point in zip(runs, reached, strict=True)}
            same = [up_of_none[run["seed"]] for run in runs if run["seed"] in up_of_none]
            times = f"{mean(same) / up:.1f}" if len(same) == len(runs) else "–"  # the seeds that both have
            row = [
                f"`{wire}`",
                f"{mean(point['round'] for point in reached):.1f}",
                f"{up / 1e6:.2f}",
                f"{down / 1e6:.2f}",
            ]
            row.append(times)
        if wires is None or wire in wires:
            rows.append(row)
    return rows


def _or_dash(value: float, digits: int) -> str:
    return "–" if value != value else f"{value:.{digits}f}"


COLUMNS = (
    *("wire", ">MB up", ">MB down", ">bits a value", ">relative error", ">loss, same clients", "less `none`"),
    *(">loss, unseen clients", "less `none`", ">seeds", ">CPU s a run"),
)
LEVEL_COLUMNS = ("wire", ">rounds", ">MB up", ">MB down", ">times fewer bytes up")


def wires_figure(result: Result) -> str:
    """Return held-out loss against the bytes sent up so far, one line a wire, as SVG."""
    lines = []
    for wire, runs in runs_by_wire(result).items():
        by_round = zip(*(run["curve"] for run in runs), strict=False)
        points = [(mean(p["upload_bytes"] for p in of) / 1e6, mean(p["loss"] for p in of)) for of in by_round]
        note = f"{mean_of(runs, 'message_bits_per_value'):.2f} bits a value, {len(runs)} seeds"
        lines.append(Line(name=wire, points=points, note=note))
    settings = result["settings"]
    title = f"Held-out loss against bytes sent up: {settings['corpus']}, {settings['rounds']} rounds"
    across = Axis(words="MB sent up by all clients so far (logarithmic)", is_log=True)
    return lines_figure(title, lines, across, Axis(words="held-out loss of the same clients, nats a token"))


def wires_page(result: Result, name: str) -> str:
    """Return the page of a result file as Markdown."""
    settings, base = result["settings"], result["base"]
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items() if value is not None)
    return f"""# Score against bytes: {settings["corpus"]}

Made by `python benchmarks/wires.py` (`--draw` makes tables and figure again). {told}.

![Held-out loss against bytes sent up]({name}.svg)

Means over seeds. Losses are in nats a token, means over the clients that were scored; the base has
{base["test"]["mean"]:.4f} on the same clients and {base["unseen"]["mean"]:.4f} on unseen ones. Differences from `none`
are paired by client over all seeds, with 95 % intervals; below zero is better. Bits a value are those of whole
messages, headers included. The relative error is that of the decoded change of a visit, in the Euclidean norm.

{markdown_table(COLUMNS, score_rows(result))}

## Bytes to the same loss

Bytes of all clients together until the held-out loss is first at the level where `none` has
{SHARE_OF_GAIN:.0%} of its gain over the base, seed by seed; it is scored every {settings["every"]} rounds, so a number
of rounds is known to {settings["every"]} of them.

{markdown_table(LEVEL_COLUMNS, level_rows(result))}

<sub>[`{name}.json`]({name}.json): {machine_line(result)}.</sub>
"""
