"""The page of a federation: who was there, what each party could see, what travelled, and what came of it."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jinja2 import ChoiceLoader, PackageLoader

from fedllm_data.in_place import write_file
from fedllm_data.reporting.page_frame import Body, whole_page
from fedllm_data.reporting.templates import page_environment
from fedllm_eval.policy.run_folder import whole_lines
from fedllm_eval.results import read_results
from fedllm_eval.texts import whole

__all__ = ["write_page"]

PAGE = "federation.html"
_STYLE = "pre{white-space:pre-wrap;overflow-wrap:anywhere}td,th{vertical-align:top}.sha{overflow-wrap:anywhere}"
_TITLE = "Three organisations, one adapter"


def write_page(out: Path, line: str, begun: float, facts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Write the page and print where it is.

    Args:
        out: the folder of the federation, whose runs are finished.
        line: what carried it.
        begun: when it began, on `time.monotonic`'s clock.
        facts: by task, the adapter's digest and whether it is that of one machine.

    Returns:
        The facts, as they were given.
    """
    runs = {task: _run_of(out / "runs" / task, facts[task]) for task in facts}
    environment = page_environment()
    environment.loader = ChoiceLoader([environment.loader, PackageLoader("fedllm_train", "federation")])
    known: dict[str, Any] = {
        "title": _TITLE,
        "line": line,
        "sites": json.loads((out / "runs" / "sft" / "sites.json").read_text(encoding="utf-8")),
        "runs": runs,
        "minutes": (time.monotonic() - begun) / 60,
        "is_same": all(each["is_same"] for each in facts.values()),
        "has_report": (out / "report" / "report.html").is_file(),
    }
    body = environment.get_template("federation.html.jinja").render(**known)
    page = whole_page(lambda: Body(_TITLE, body), language="en", style=_STYLE)
    write_file(out / PAGE, whole(page).encode())
    print(f"\nDone in {known['minutes']:.1f} minutes. Open {out / PAGE}", flush=True)
    return facts


def _run_of(run: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of one run."""
    records = list(whole_lines(run / "rounds.jsonl"))
    last = records[-1]["ledger"]
    key = next(iter(run.glob("checkpoints/round-*/state.json")), None)
    number = json.loads(key.read_text(encoding="utf-8"))["run_key"] if key is not None else ""
    return {
        "rounds": records,
        "down": last["download_bytes"],
        "up": last["upload_bytes"],
        "line": facts["bytes"].get(number, {"in": 0, "out": 0}),
        "sha256": facts["sha256"],
        "is_same": facts["is_same"],
        "seconds": sum(record["seconds"] for record in records),
        "scores": _scores(run),
        "sites": _by_site(run),
    }


def _scores(run: Path) -> list[dict[str, Any]]:
    """Every score before and after, with intervals, as the sites sent them."""
    rows = []
    before, after = read_results(run / "start_scores").summary, read_results(run / "scores").summary
    for split, told in after["splits"].items():
        for name, score in told["scores"].items():
            # Rewards are measured against the start, which has none itself.
            first = None if name.startswith("implicit_") else before["splits"][split]["scores"].get(name)
            if first is not None or name.startswith("implicit_"):
                rows.append({"split": split, "name": name, "before": first, "after": score, "notes": told["notes"]})
    return rows


def _by_site(run: Path) -> list[dict[str, Any]]:
    """The main score at each site: mean over its clients, before and after, and how many they are."""
    owner = {
        client_id: site
        for site, told in json.loads((run / "sites.json").read_text(encoding="utf-8")).items()
        for client_id in told["clients"]
    }
    tables = [pq.read_table(run / name / "per_client.parquet").to_pylist() for name in ("start_scores", "scores")]
    score = "heldout_loss" if "heldout_loss" in tables[0][0] else "ranking_accuracy"
    rows = []
    for site in sorted(set(owner.values())):
        values = [
            [row[score] for row in table if row["split"] == "test" and owner.get(row["client_id"]) == site]
            for table in tables
        ]
        values = [[each for each in some if each is not None] for some in values]
        if values[0] and values[1]:
            means = [sum(some) / len(some) for some in values]
            rows.append(
                {"site": site, "score": score, "before": means[0], "after": means[1], "clients": len(values[1])}
            )
    return rows
