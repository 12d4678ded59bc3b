"""The results page of the site: what was measured, as tables and figures with their intervals, from the result files.

    python -m docs.making.results_page           (prints the page; the site makes it at build time)

Every figure is read from `benchmarks/results/*.json`. Tables that the benchmarks' own scripts write (methods,
heterogeneity, calibration of the nulls) are pages of their own, linked here.
"""

from typing import Any

from benchmarks.result_tables import (
    RESULTS,
    machine_line,
    markdown_table,
    method_rows,
    quickstart_rows,
    read_result,
    real_run_rows,
    signed_interval,
)
from docs.making.interval_figure import Interval, interval_figure

__all__ = ["results_page"]

CORPORA = {
    "methods_fed_synth": "`fed-synth`: generated people whose differences are known",
    "methods_fed_synth_newer": "`fed-synth`, today's base: newer methods beside some of the above",
    "methods_fed_oasst": "`fed-oasst`: prompters of OpenAssistant, a small model",
    "methods_fed_oasst_smollm2": "`fed-oasst`: the same people, SmolLM2-135M",
}
_WORDS = {"test": "same clients", "unseen": "unseen clients"}


def results_page() -> str:
    """Return the page as Markdown.

    >>> results_page().splitlines()[0]
    '# Results'
    """
    return "\n\n".join([HEAD, _in_short(), _real_run(), _quickstart(), _methods(), _heterogeneity(), REST]) + "\n"


HEAD = """# Results

What federated tuning gained in our own runs, for how many clients, and how sure that is. Every figure is a mean over
clients with its 95 % interval; a grey bar includes zero, so the data at hand cannot tell. The page is made from the
files in `benchmarks/results/` when the site is built, so it cannot differ from them. Speed and memory are on the page
[Measured](measured.md), together with the machine and the commands."""

HETEROGENEITY = """## How different the clients are

Each cell: the headline figure of an axis, its 95 % interval over clients, and what clients of these sizes would show
by chance; bold where the figure exceeds chance after correction over the axes. [What the figures are, and the same
rows dealt to artificial clients as controls](results/heterogeneity.md); [whether IID partitions lie inside the
nulls](results/null_calibration.md), that is, whether *more than chance* is said too often."""

REST = """## What these results do not show

They hold for these corpora, models and settings. The small model has 1.1 million weights; the runs with SmolLM2-135M
are short, because they were made on two CPU cores. No run with a model of several billion weights has been made here.
[What the methods' tables say and do not say](results/methods.md#what-this-says-and-what-it-does-not) goes through them
one by one."""


def _in_short() -> str:
    """What the tables below come to, in sentences whose figures are read like theirs."""
    synth, real = read_result("methods_fed_synth"), read_result("methods_fed_oasst_smollm2")
    together, alone = _item(synth, "personal", "fedavg"), _item(synth, "personal_against_fedavg", "local")
    own, new = _item(real, "personal", "fedavg"), _item(real, "global", "fedavg", "unseen")
    seeds = read_result("quickstart_seeds")["results"]
    better = sum(item["outcome"] == "better" for item in seeds)
    return f"""## In short

- **Generated people, a small model.** With FedAvg {_share(together)} are better off than with the base. Whoever trains
  alone ends {signed_interval(alone, 2)} nats a token behind FedAvg.
- **Real people, a pretrained model.** A few short rounds of FedAvg move the loss on a client's own held-out rows by
  {signed_interval(own)} nats a token ({_share(own)} better off{_doubt(own)}), and that of people nobody trained
  on by {signed_interval(new)} ({_share(new)}{_doubt(new)}). That is little: the model knew the language
  before, and the runs are short.
- **The quickstart.** {better} of {len(seeds)} differences, over its seeds and steps, are better with confidence.
- **Preferences of real people.** So few clients cannot tell what DPO did, and the intervals below say so."""


def _item(result: dict[str, Any], comparison: str, method: str, split: str = "test") -> dict[str, Any]:
    items = result[comparison]["items"]
    return next(item for item in items if (item["other"], item["split"]) == (method, split))


def _share(item: dict[str, Any]) -> str:
    return f"{round(item['better_fraction'] * item['num_clients'])} of {item['num_clients']} clients"


def _doubt(item: dict[str, Any]) -> str:
    """What stands behind a difference that is not shown once all that was compared is corrected for."""
    return "" if item["outcome"] in ("better", "worse") else "; corrected for all comparisons, the data cannot tell"


def _real_run() -> str:
    run = read_result("real_run")
    head = ["score, mean over clients [95 %]", ">clients", "base", "SFT", "DPO"]
    said = "\n".join(f"- {verdict}" for verdict in run["verdicts"])
    return f"""## A real model on real people

SmolLM2-135M-Instruct, prompters of OpenAssistant's English validation split, five rounds of four clients.

{markdown_table(head, real_run_rows(run))}

What `fedllm-eval compare` says of it, client by client:

{said}

*{machine_line(run)}*"""


def _quickstart() -> str:
    seeds = read_result("quickstart_seeds")
    head = [
        ">seed",
        "loss, SFT - base: same clients",
        "unseen clients",
        "ranking, DPO - SFT: same clients",
        "unseen clients",
    ]
    loss, ranking = (
        [item for item in seeds["results"] if item["score"] == score] for score in ("heldout_loss", "ranking_accuracy")
    )
    figures = [
        interval_figure("Held-out loss, SFT less base", "nats a token; left of the line is better", _of_seeds(loss)),
        interval_figure(
            "Ranking accuracy, DPO less SFT", "fraction of pairs; right of the line is better", _of_seeds(ranking)
        ),
    ]
    return f"""## The quickstart over three seeds

Every seed makes its own corpus, base model and runs. First held-out loss, SFT less base; then the share of pairs that
are ranked as people did, DPO less SFT.

{figures[0]}

{figures[1]}

{markdown_table(head, quickstart_rows(seeds))}

*{machine_line(seeds)}*"""


def _of_seeds(items: list[dict[str, Any]]) -> list[Interval]:
    ordered = sorted(items, key=lambda item: (item["split"], item["seed"]))
    return [_interval(f"seed {item['seed']}, {_WORDS[item['split']]}", item) for item in ordered]


def _interval(words: str, item: dict[str, Any]) -> Interval:
    return Interval(words=words, mean=item["difference"], low=item["ci_low"], high=item["ci_high"])


def _methods() -> str:
    parts = [
        "## Methods, client by client\n\nDifference of held-out loss from the base model, in nats a token, mean over "
        "clients and three seeds; left of the line is better. *Own rows* are each client's held-out rows under the "
        "adapter it ends with; *new people* are clients whom nobody trained on. The full tables, with bytes, seconds "
        "and the share of clients that are better off, are on [a page of their own](results/methods.md)."
    ]
    for name, words in CORPORA.items():
        result = read_result(name)
        rows = method_rows(result)
        clients = f"{result['clients']} clients, {len(result['seeds'])} seeds"
        digits = 3 if "smollm2" in name else 2
        for key, who in (("own", "own rows"), ("unseen", "new people")):
            drawn = [_interval(row["method"], row[key]) for row in rows]
            title = f"{words.replace('`', '')}, {who}"
            figure = interval_figure(title, "nats a token; left of the line is better", drawn, digits=digits)
            parts.append(f"### {words}: {who}\n\n{clients}.\n\n{figure}")
        parts.append(f"*{machine_line(result)}*")
    return "\n\n".join(parts)


def _heterogeneity() -> str:
    """The rows of natural clients; those of the controls stay on the page of their own."""
    lines = (RESULTS / "heterogeneity.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("| ")]
    natural = [line for line in table if not line.startswith(("| IID", "| Dirichlet"))]
    return "\n\n".join([HETEROGENEITY, "\n".join(natural)])


if __name__ == "__main__":
    print(results_page(), end="")
