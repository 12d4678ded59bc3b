"""Write the page and its figures into a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedllm_data.heterogeneity.axes import AXES
from fedllm_data.heterogeneity.profile import ClientProfile
from fedllm_data.in_place import write_file
from fedllm_data.reporting.draw_figures import draw_figures
from fedllm_data.reporting.report_page import render_page
from fedllm_data.reporting.similarity import similarity_map

__all__ = ["write_page"]


def write_page(
    document: dict[str, Any], profiles: Sequence[ClientProfile], out: Path, language: str | None = None
) -> None:
    """Write `report.html` and `figures/*.svg` and `*.png` of a report; a figure that has no data any more goes.

    Args:
        document: the content of `heterogeneity.json`.
        profiles: the profiles that the report was computed from, one per client.
        out: folder for the files.
        language: of the page; by default it speaks all.
    """
    similar = similarity_map(document)
    figures = draw_figures(document, similar, profiles)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(("overview", *document["axes"], *AXES, "similarity")):
        if name in figures:
            write_file(out / "figures" / f"{name}.svg", figures[name].svg)
            write_file(out / "figures" / f"{name}.png", figures[name].png)
        else:
            for kind in ("svg", "png"):
                (out / "figures" / f"{name}.{kind}").unlink(missing_ok=True)
    drawn = {name: figure.svg for name, figure in figures.items()}
    write_file(out / "report.html", render_page(document, drawn, similar, language))
