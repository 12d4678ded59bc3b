"""The decision folder: `decision.json`, `decision.html`, and `partners.html` where partners may be named."""

from collections.abc import Sequence
from pathlib import Path

from fedllm_data.errors import ConfigError
from fedllm_eval.deciding.decision import Decision
from fedllm_eval.deciding.decision_page import losing_partners, render_decision, render_partners
from fedllm_eval.running.folders import replace_folder
from fedllm_eval.texts import json_text, whole

__all__ = ["FILES", "MAX_PARTNERS", "write_decision"]

FILES = ("decision.json", "decision.html", "partners.html")
MAX_PARTNERS = 500
"""Sections of the partners' page, the largest partners and the ten that lose most; with more, browsers are slow."""


def write_decision(
    decision: Decision,
    out: Path,
    *,
    named: bool = True,
    partners: Sequence[str] = (),
    language: str | None = None,
) -> None:
    """Write the decision into a folder, replacing an earlier one in one step.

    Args:
        decision: from `decide`.
        out: the folder to appear.
        named: whether partners may be named; without, there is no page for them.
        partners: who gets a section on the partners' page; by default the largest 500.
        language: of the pages; by default all.

    Raises:
        ConfigError: if `out` holds anything but an earlier decision, or a partner was not scored.
    """
    known = {one.client_id for one in decision.partners}
    if unknown := [name for name in partners if name not in known]:
        raise ConfigError(f"--partner {unknown[0]} was not scored; partners are called like {min(known)}")
    chosen = [one for one in decision.partners if not partners or one.client_id in partners]
    losing = losing_partners(decision)
    listed = [one for at, one in enumerate(chosen) if partners or at < MAX_PARTNERS or one in losing]
    linked = {one.client_id for one in listed}

    def fill(folder: Path) -> None:
        text = json_text(decision.as_record(), indent=2, allow_nan=False)
        (folder / "decision.json").write_text(text + "\n", encoding="utf-8")
        page = render_decision(decision, Path(out), named=named, linked=linked, language=language)
        (folder / "decision.html").write_text(whole(page), encoding="utf-8")
        if named:
            page = render_partners(decision, listed, left_out=len(chosen) - len(listed), language=language)
            (folder / "partners.html").write_text(whole(page), encoding="utf-8")

    replace_folder(Path(out), fill, FILES)
