"""What an audit leaves: `audit.json`, or `audits.json` of several runs, the same in words, and one page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, PackageLoader

from fedllm_data.reporting.page_frame import Body, whole_page
from fedllm_data.reporting.templates import page_environment
from fedllm_data.wording.catalogue import plural_words, words
from fedllm_data.wording.forms import sentences
from fedllm_eval.reporting.audit_lines import audit_lines, shouts
from fedllm_eval.reporting.audit_table import audit_rows, verdict_of
from fedllm_eval.running.folders import replace_folder
from fedllm_eval.texts import json_text, whole

__all__ = ["FILES", "audits_text", "render_audits", "write_audits"]

FILES = ("audit.json", "audit.md", "audit.html", "audits.json", "audits.md")
"""What the folder of an audit may hold."""
_COLUMNS = (
    *("run", "protected by", "epsilon claimed", "epsilon found", "verdict", "membership, AUC"),
    *("canaries stand out, bits", "extracted"),
)


def write_audits(audits: Mapping[str, Any], out: Path, *, language: str | None = None) -> None:
    """Write one audit, or several runs', into a folder, which is replaced.

    Args:
        audits: what `audit_run` or `audit_runs` returns.
        out: the folder.
        language: of the page; by default it speaks all, and the browser chooses.

    Raises:
        ConfigError: if the folder holds something else.
    """
    page = render_audits(audits, language=language)
    stem = "audits" if "runs" in audits else "audit"

    def fill(folder: Path) -> None:
        text = json_text(dict(audits), indent=2, allow_nan=False)
        (folder / f"{stem}.json").write_text(text + "\n", encoding="utf-8")
        (folder / f"{stem}.md").write_text(whole(audits_text(audits)) + "\n", encoding="utf-8")
        (folder / "audit.html").write_text(page, encoding="utf-8")

    replace_folder(out, fill, FILES)


def audits_text(audits: Mapping[str, Any]) -> str:
    """Return the findings as Markdown: the table where there are several runs, then a list for each."""
    runs = _runs(audits)
    blocks = []
    if len(runs) > 1:
        cells = [
            (
                *(one.name, one.protected, one.claimed, one.empirical, one.verdict_words),
                *(one.membership, one.exposure, one.extraction),
            )
            for one in audit_rows(runs)
        ]
        lines = [_COLUMNS, ["---"] * len(_COLUMNS), *cells]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        blocks = ["# What these runs give away", table]
    for name, audit in runs.items():
        head = f"## {name}" if len(runs) > 1 else f"# What {audit['policy']['name']} gives away"
        blocks += [head, "\n".join(f"- {line}" for line in audit_lines(audit))]
    return "\n\n".join(blocks)


def render_audits(audits: Mapping[str, Any], *, language: str | None = None) -> str:
    """Return the page.

    Args:
        audits: what `audit_run` or `audit_runs` returns.
        language: of the page; by default all.
    """
    runs = _runs(audits)
    environment = page_environment()
    environment.loader = ChoiceLoader([PackageLoader("fedllm_eval", "reporting"), environment.loader])  # type: ignore[list-item]
    template = environment.get_template("audit_page.html.jinja")
    dataset = Path(str(next(iter(runs.values()))["dataset"]["name"])).name

    def body() -> Body:
        html = template.render(
            rows=audit_rows(runs),
            loud=[f"{name}: {said}" for name, audit in runs.items() for said in shouts(audit)[:1] if _is_above(audit)],
            summary=sentences(_summary(runs)),
            dataset=dataset,
            details=[(name, audit_lines(audit)) for name, audit in runs.items()],
        )
        return Body(words("What do these runs give away?"), html)

    return whole_page(body, language=language, style=environment.get_template("audit_page.css.jinja").render())


def _runs(audits: Mapping[str, Any]) -> Mapping[str, Any]:
    return audits["runs"] if "runs" in audits else {Path(str(audits["policy"]["name"])).name: audits}


def _is_above(audit: Mapping[str, Any]) -> bool:
    return verdict_of(audit) == "above"


def _summary(runs: Mapping[str, Any]) -> list[str]:
    verdicts = [verdict_of(audit) for audit in runs.values()]
    above, within = verdicts.count("above"), verdicts.count("within")
    said = [plural_words("{num} run was attacked.", "{num} runs were attacked.", len(runs))]
    if above:
        said.append(
            plural_words(
                "Of {num} run more was found than it claims to give away.",
                "Of {num} runs more was found than they claim to give away.",
                above,
            )
        )
    if within:
        said.append(
            plural_words(
                "What was found of {num} run lies within its claim.",
                "What was found of {num} runs lies within their claims.",
                within,
            )
        )
    if not above and not within:
        said.append(words("No claim could be tested: plant canaries with coins in what a run is trained on."))
    return said
