"""Score and simulated time against lost clients: wait for all, wait for the first few, or never wait.

    python benchmarks/drop_out.py --data FED_SYNTH --model BASE --out DIR
    python benchmarks/drop_out.py --draw              (tables and figures again, from the result files alone)

One method on clients with machines (`--machines`, a client table), a share of which is lost in every round. Three
rules of participation with the same start, server steps and local steps: `synchronous` waits for its whole cohort and
goes on with those who were not lost; `deadline` asks more clients than it needs, by the drop-out rate, and ends a
round with the first `--cohort` updates or after `--deadline-seconds`; `buffered` keeps twice as many clients under way
and makes a step every `--cohort` updates, old ones with less weight. Nothing sleeps: times are those of the simulated
clock. A finished run is added to the result file at once, and a run that was stopped goes on from its newest
checkpoint. Results: `results/drop_out_<name>.json`, `.md`, and the figures `_loss.svg` and `_time.svg`.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.lines_figure import Axis, Line, lines_figure
from benchmarks.result_tables import machine_line, markdown_table, signed_interval
from benchmarks.scored_runs import RESULTS, add_arguments, make_runs
from benchmarks.wire_tables import SHARE_OF_GAIN

RULES = ("synchronous", "deadline", "buffered")
SHARES = (0.0, 0.1, 0.3, 0.5)
MACHINES = "profiles:phone-4g~0.6=0.7,laptop-home~0.6=0.3"
COLUMNS = (
    *("rule", ">lost in a visit", ">loss, same clients", "less synchronous without losses", ">loss, unseen clients"),
    *("less the same", ">seconds", f">seconds to {SHARE_OF_GAIN:.0%} of the gain", ">updates a step"),
    *(">visits in vain", ">MB up", ">seeds"),
)
Runs = Mapping[tuple[str, float], Sequence[Mapping[str, Any]]]


def main() -> None:
    """Train and score what is missing, then write the table and the figures."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="only write tables and figures of all result files again")
    parser.add_argument("--name", default="fed_synth", help="of the result file: results/drop_out_NAME.json")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES), help="of clients lost in a visit")
    parser.add_argument("--machines", default=MACHINES, help="the setting client_table")
    parser.add_argument("--deadline-seconds", type=float, default=4.0, help="simulated seconds")
    add_arguments(parser)
    given = parser.parse_args()
    if not given.draw:
        if not (given.data and given.model and given.out):
            parser.error("--data, --model and --out are needed, or --draw")
        arms = {
            f"{rule}-{share:g}": arm_settings(rule, share, given) for share in given.shares for rule in given.rules
        }
        more = {"machines": given.machines, "deadline_seconds": given.deadline_seconds}
        make_runs(f"drop_out_{given.name}", arms, given, key="arm", first="synchronous-0", more=more)
    for path in sorted(RESULTS.glob("drop_out_*.json")):
        draw(path)


def arm_settings(rule: str, share: float, given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the federation for a rule of participation and a share of lost clients."""
    settings = {"participation": rule, "client_table": given.machines, "drop_out": share}
    return settings | ({"deadline_seconds": given.deadline_seconds} if rule == "deadline" else {})


def runs_by_arm(result: Mapping[str, Any]) -> dict[tuple[str, float], list[Mapping[str, Any]]]:
    """Return the runs of every rule and share, in the order of the table."""
    arms: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for run in sorted(result["runs"].values(), key=lambda run: run["seed"]):
        rule, _, share = run["arm"].partition("-")
        arms.setdefault((rule, float(share)), []).append(run)
    return dict(sorted(arms.items(), key=lambda item: (item[0][1], RULES.index(item[0][0]))))


def seconds_to_level(result: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the mean of the clock when a run's held-out loss is first where `synchronous-0` has most of its gain."""
    found = []
    for run in runs:
        whole = result["runs"].get(f"synchronous-0-{run['seed']}")
        if whole is None:
            return "–"
        before = result["base"]["test"]["mean"]
        level = before - SHARE_OF_GAIN * (before - whole["scores"]["test"]["mean"])
        found.append(next((point["seconds"] for point in run["curve"] if point["loss"] <= level), None))
    missing = found.count(None)
    if missing:
        return f"not reached with {missing} of {len(found)} seeds"
    return f"{mean(seconds for seconds in found if seconds is not None):.1f}"


def drop_out_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return a row a rule and share: losses with their differences, simulated seconds, and what was done in vain."""
    differences = {(item["other"], item["split"]): item for item in result.get("differences", [])}
    rows = []
    for (rule, share), runs in runs_by_arm(result).items():
        row = [rule, f"{share:.0%}"]
        for split in ("test", "unseen"):
            item = differences.get((f"{rule}-{share:g}", split))
            row.append(f"{mean(run['scores'][split]['mean'] for run in runs):.4f}")
            row.append(signed_interval(item, 4) if item else "–")
        row.append(f"{mean(run['clock_seconds'] for run in runs):.1f}")
        row.append(seconds_to_level(result, runs))
        row.append(f"{mean(run['num_visits'] / max(1, run['num_server_steps']) for run in runs):.2f}")
        vain = mean(run["num_left_out"] / (run["num_left_out"] + run["num_visits"]) for run in runs)
        rows.append([*row, f"{vain:.0%}", f"{mean(run['upload_bytes'] for run in runs) / 1e6:.1f}", str(len(runs))])
    return rows


def drop_out_figure(result: Mapping[str, Any], what: str) -> str:
    """Return the held-out loss ("loss") or the simulated seconds ("time") against the lost clients, as SVG."""
    value = _loss if what == "loss" else _seconds
    arms = runs_by_arm(result)
    lines = []
    for rule in dict.fromkeys(rule for rule, _ in arms):
        found = {share: [value(run) for run in runs] for (name, share), runs in arms.items() if name == rule}
        points = [(100 * share, mean(values)) for share, values in found.items()]
        bars = [(min(values), max(values)) for values in found.values()]
        lines.append(Line(name=rule, points=points, bars=bars, note="bars: lowest to highest seed"))
    corpus = result["settings"]["corpus"]
    if what == "loss":
        title, up = f"Held-out loss against lost clients: {corpus}", "held-out loss of the same clients, nats a token"
    else:
        title, up = f"Simulated time against lost clients: {corpus}", "simulated seconds of the whole run"
    return lines_figure(title, lines, Axis(words="clients lost in a visit, %"), Axis(words=up, is_log=what == "time"))


def _loss(run: Mapping[str, Any]) -> float:
    return run["scores"]["test"]["mean"]


def _seconds(run: Mapping[str, Any]) -> float:
    return run["clock_seconds"]


def drop_out_page(result: Mapping[str, Any], name: str) -> str:
    """Return the page of a result file as Markdown."""
    settings, base = result["settings"], result["base"]
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items() if value is not None)
    return f"""# Score and time against lost clients: {settings["corpus"]}

Made by `python benchmarks/drop_out.py` (`--draw` makes table and figures again). {told}.

![Held-out loss against lost clients]({name}_loss.svg)

![Simulated time against lost clients]({name}_time.svg)

Means over seeds. Losses are in nats a token, means over the clients that were scored; the base has
{base["test"]["mean"]:.4f} on the same clients and {base["unseen"]["mean"]:.4f} on unseen ones. Differences from
`synchronous` without losses are paired by client over all seeds, with 95 % intervals; below zero is better. Seconds
are those of the simulated clock, whose machines are drawn from the profiles above. A visit in vain is one whose update
was lost, late or given up. The held-out loss is known every {settings["every"]} server steps.

{markdown_table(COLUMNS, drop_out_rows(result))}

<sub>[`{name}.json`]({name}.json): {machine_line(result)}.</sub>
"""


def draw(path: Path) -> None:
    """Write the table and the figures of a result file beside it."""
    result = json.loads(path.read_text())
    if not result.get("runs"):
        return
    for what in ("loss", "time"):
        path.with_name(f"{path.stem}_{what}.svg").write_text(drop_out_figure(result, what))
    path.with_suffix(".md").write_text(drop_out_page(result, path.stem))
    print(path.with_suffix(".md"))


if __name__ == "__main__":
    main()
