"""Write `benchmarks/README.md` and `docs/trust.md` from their templates and the result files.

    python -m benchmarks.write_readme            (run it after a script has written its result file)

No printed figure is typed by hand. The words are in `README.md.jinja` and `trust.md.jinja`; tables come from
`result_tables.py` and `trust_tables.py`. A name that a result file does not hold stops the script.
"""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks import result_tables, trust_tables
from benchmarks.codec_tables import aggregation_rows, throughput_rows
from benchmarks.drop_out import COLUMNS as DROP_OUT_COLUMNS
from benchmarks.drop_out import drop_out_rows
from benchmarks.privacy_scores import COLUMNS as PRIVACY_COLUMNS
from benchmarks.privacy_scores import privacy_rows
from benchmarks.remote_rounds import remote_rows
from benchmarks.secure_sum import secure_sum_rows
from benchmarks.wire_tables import level_rows

__all__ = ["readme_text", "trust_text"]

FOLDER = Path(__file__).parent
TRUST = FOLDER.parent / "docs" / "trust.md"


def readme_text() -> str:
    """Return the text of `benchmarks/README.md` as the result files have it.

    >>> readme_text().splitlines()[0]
    '# What is measured'
    """
    environment = _environment()
    tables = {name: getattr(result_tables, name) for name in result_tables.__all__ if name.endswith("_rows")}
    return environment.get_template("README.md.jinja").render(
        read=result_tables.read_result,
        result_names=result_names,
        level_rows=level_rows,
        drop_out_columns=DROP_OUT_COLUMNS,
        drop_out_rows=drop_out_rows,
        privacy_columns=PRIVACY_COLUMNS,
        privacy_rows=privacy_rows,
        million_columns=million_columns,
        million_rows=million_rows,
        table=result_tables.markdown_table,
        machine_line=result_tables.machine_line,
        clients_between=clients_between,
        aggregation_rows=aggregation_rows,
        remote_rows=remote_rows,
        secure_sum_rows=secure_sum_rows,
        throughput_rows=throughput_rows,
        coverage_rows=coverage_rows,
        report_rows=report_rows,
        largest_difference=largest_difference,
        largest_move=largest_move,
        **tables,
    )


def trust_text() -> str:
    """Return the text of `docs/trust.md` as the result files have it.

    >>> trust_text().splitlines()[0]
    '# Trust: what protection costs, and what it keeps back'
    """
    environment = _environment()
    environment.trim_blocks = environment.lstrip_blocks = True
    text = environment.get_template("trust.md.jinja").render(
        read=result_tables.read_result,
        result_names=result_names,
        table=result_tables.markdown_table,
        on=_made_on,
        **{name: getattr(trust_tables, name) for name in trust_tables.__all__},
    )
    # Sections that are left out leave blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", text)


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )


def _made_on(name: str) -> str:
    """Where a result stands and on what it was measured, for a page in `docs/`."""
    file = f"results/{name}.json"
    return (
        f"<sub>[`{file}`](../benchmarks/{file}): {result_tables.machine_line(result_tables.read_result(name))}.</sub>"
    )


def result_names(beginning: str) -> list[str]:
    """Return the names of the result files that begin so, in order.

    >>> result_names("sft_")
    ['sft_kernel']
    """
    return sorted(path.stem for path in result_tables.RESULTS.glob(f"{beginning}*.json"))


def million_columns(result: dict[str, Any]) -> list[str]:
    """Return the headings of what `million_clients.py` measured: CPU seconds and memory by size."""
    sizes = [f"{run['num_clients']:,} clients" for run in result["runs"]]
    return [
        "step",
        f">CPU s, {sizes[-1]}",
        *(f">MB, {size}" for size in sizes),
        ">bytes a further client",
        ">of them at most",
    ]


def million_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the steps of `million_clients.py` with their CPU seconds, memory, and bytes of one more client."""
    rows = []
    for name, each in result["bytes_per_further_client"].items():
        steps = [run["steps"][name] for run in result["runs"]]
        memory = [f"{step['anonymous_bytes'] / 1e6:.1f}" for step in steps]
        further = [f"{each[what]:.1f}" for what in ("anonymous_bytes", "peak_anonymous_bytes")]
        rows.append([name, f"{steps[-1]['cpu_seconds']:.2f}", *memory, *further])
    return rows


def clients_between(result: dict[str, Any], split: str) -> str:
    """Return the lowest and highest number of clients of a split over the seeds.

    >>> clients_between({"results": [{"split": "test", "num_clients": n} for n in (3, 5)]}, "test")
    '3 to 5'
    """
    found = [item["num_clients"] for item in result["results"] if item["split"] == split]
    return f"{min(found)} to {max(found)}"


def coverage_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return each kind of interval with its lowest and highest coverage over the numbers of clients.

    >>> coverage_rows({"coverage": {"mean": {"20": {"coverage": 0.94}, "50": {"coverage": 0.95}}}})
    [['mean', '94.0 %', '95.0 %']]
    """
    rows = []
    for name, of_sizes in result["coverage"].items():
        found = [cell["coverage"] for cell in of_sizes.values() if cell["coverage"] is not None]
        rows.append([name, f"{100 * min(found):.1f} %", f"{100 * max(found):.1f} %"])
    return rows


def report_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the steps of a report after the profiles: seconds and memory, and how memory grows."""
    steps = result["cases"][1]["steps"]
    return [
        [
            name,
            f"{steps[name]['cpu_seconds']:.1f}",
            f"{steps[name]['peak_anonymous_bytes'] / 2**20:.0f} MiB",
            f"{result['peak_anonymous_ratio'][name]:.2f}",
        ]
        for name in steps
        if name not in ("load", "profile", "profile_files")
    ]


def largest_difference(versus: dict[str, Any]) -> float:
    """Return by how much any figure of the plain script differs.

    >>> largest_difference({"axes": {"a": {"largest_difference": 0.0}, "b": {"largest_difference": 5e-14}}})
    5e-14
    """
    return max(axis["largest_difference"] for axis in versus["axes"].values())


def largest_move(steps: dict[str, Any]) -> float:
    """Return by how much, of its size, any figure of a report moved between two commits.

    >>> largest_move({"corpora": {"a": {"figures": {"largest_relative_difference": 2e-12}}}})
    2e-12
    """
    return max(corpus["figures"]["largest_relative_difference"] for corpus in steps["corpora"].values())


def main() -> None:
    """Write the pages."""
    for path, text in ((FOLDER / "README.md", readme_text()), (TRUST, trust_text())):
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
