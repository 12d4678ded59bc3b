"""The capability record of every method: what is exact, what is hidden, what travels, what it costs.

`fedllm-train methods` shows it, `methods --json` gives it to programs, and `python -m fedllm_train.methods` writes
`docs/methods.md`, which a test keeps current.
"""

import inspect
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from fedllm_train.flag_names import flag_of, in_flags
from fedllm_train.strategies import STRATEGIES, settings_class, strategy_class

__all__ = ["METHODS_PAGE", "method_lines", "method_records", "methods_page", "methods_table", "print_methods"]

METHODS_PAGE = "docs/methods.md"
"""Below the repository's root."""

_YES, _NO = "yes", "–"
_WIDTH = 20
_HIDES = {"secure sums": ("mean", "sum"), "differential privacy": ("mean",)}
"""What may stand between the clients and the server -> the traits `sees` for which it can."""
_ABLE = {
    "exact aggregation": "exact_aggregation",
    "mixed ranks": "mixed_ranks",
    "personal adapters": "personal",
}


def method_records() -> list[dict[str, Any]]:
    """Return one JSON-ready record a method: its name, a summary, its traits and its own settings.

    >>> next(each for each in method_records() if each["name"] == "fedavg")["sees"]
    'mean'
    """
    return [
        {
            "name": name,
            "summary": (strategy.__doc__ or "").splitlines()[0],
            **asdict(strategy.traits),
            "settings": [each.name for each in fields(strategy.Settings)],
        }
        for name, strategy in STRATEGIES.items()
    ]


def print_methods() -> None:
    """Print every method on standard output: what it does, then what it can do and what it costs."""
    console = Console(highlight=False)
    for each in method_records():
        able = [word for word, key in _ABLE.items() if each[key]]
        able += [word for word, enough in _HIDES.items() if each["sees"] in enough]
        keeps = [] if each["memory"] == "none" else [f"clients keep: {each['memory']}"]
        server = [f"server: {each['server_cost']}"]
        counts = [] if each["weights"] == "none" else [f"weights: {each['weights']}"]
        ways = [f"down: {each['down']}", f"up: {each['up']}"]
        console.print(f"[bold]{each['name']:<{_WIDTH}}[/bold]{each['summary']}", soft_wrap=True)
        if each["choose_when"]:
            console.print(f"{' ' * _WIDTH}choose it when {each['choose_when']}", soft_wrap=True)
        console.print(
            " " * _WIDTH + "; ".join([", ".join(able) or "no secure sums", *counts, *ways, *keeps, *server]),
            soft_wrap=True,
        )
    console.print(
        "\nexact aggregation: the global product B A is the weighted mean of the clients' products. secure sums: the "
        "server needs sums over clients only. differential privacy: the server needs their mean alone, which may be "
        "clipped and noisy. `fedllm-train methods NAME` tells all of one; --json has the sources too."
    )


def method_lines(name: str) -> list[str]:
    """Return all there is to know of one method: both rules in words, when to choose it, settings, what it can.

    Args:
        name: of the method.

    Raises:
        ConfigError: if there is no such method.

    >>> method_lines("fedprox")[0]
    'fedprox: FedProx. FedAvg with a proximal term in the local loss.'
    """
    strategy, settings = strategy_class(name), settings_class(name)
    traits = strategy.traits
    rules = inspect.cleandoc(sys.modules[strategy.__module__].__doc__ or "")
    lines = [f"{name}: {traits.title}. {(strategy.__doc__ or '').splitlines()[0]}"]
    if traits.choose_when:
        lines += ["", f"Choose it when {traits.choose_when}."]
    lines += ["", *rules.splitlines(), "", "Settings of its own:"]
    for each in fields(settings):
        default = "decided by the method" if each.default is None else each.default
        lines.append(f"  {flag_of(each.name)} ({default}): {in_flags(each.metadata['help'], {each.name})}")
    if lines[-1].endswith("own:"):
        lines[-1] = "It has no settings of its own."
    able = [word for word, key in _ABLE.items() if getattr(traits, key)]
    able += [word for word, enough in _HIDES.items() if traits.sees in enough]
    unable = [word for word in (*_ABLE, *_HIDES) if word not in able]
    needs = "LoRA factors" if traits.needs_lora else "any adapter, or all weights with --full-finetuning"
    facts = {
        "can": ", ".join(able) or "none of what is listed under cannot",
        "cannot": ", ".join(unable) or "nothing of what methods differ in",
        "needs": needs + (", and the clients' languages" if traits.needs_languages else ""),
        "weights": traits.weights,
        "down": traits.down,
        "up": traits.up,
        "clients keep": traits.memory,
        "server": traits.server_cost,
        "bytes": "the length of each message; a float32 takes 4 before --wire packs it; rounds.jsonl counts"
        if traits.travels
        else "none: nothing travels",
        "source": traits.source,
    }
    return [*lines, "", *(f"{word:<14}{text}" for word, text in facts.items())]


def methods_table() -> str:
    """Return the table as Markdown.

    >>> methods_table().splitlines()[0]
    '| method | what it does | weights | exact | server sees | ranks | down | up | client keeps | server |'
    """
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in _cells()]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def methods_page() -> str:
    """Return the page of all methods: what to read of the table, the table, when to choose which, the sources."""
    sources = "".join(f"- `{each['name']}`: {each['source']}\n" for each in method_records())
    chosen = "".join(f"- `{each['name']}`: when {each['choose_when']}.\n" for each in method_records())
    return f"{_INTRODUCTION}\n{methods_table()}\n## Choose when\n\n{chosen}\n## Sources\n\n{sources}"


def _cells() -> list[list[str]]:
    head = ["method", "what it does", "weights", "exact", "server sees", "ranks"]
    return [
        [*head, "down", "up", "client keeps", "server"],
        *(
            [
                each["name"],
                each["summary"].rstrip("."),
                _NO if each["weights"] == "none" else each["weights"],
                _YES if each["exact_aggregation"] else _NO,
                each["sees"],
                _YES if each["mixed_ranks"] else _NO,
                each["down"],
                each["up"],
                _NO if each["memory"] == "none" else each["memory"],
                each["server_cost"],
            ]
            for each in method_records()
        ),
    ]


_INTRODUCTION = """# Methods

Made by `python -m fedllm_train.methods` from the methods' own records; `fedllm-train methods --json` has the same.

- **weights**: how clients count in the server's mean, by the method's source: by their rows, alike (uniform), or by
  the norm of what they learned. `--uniform-weights True` or `False` overrides it. With differential privacy clients
  always count alike.
- **exact**: the global product B A is the weighted mean of the clients' products. Methods that average A and B apart
  are not; every round's record in `rounds.jsonl` says by how much (`aggregation_error`).
- **server sees**: the least of the clients' updates that the server's rule needs. *mean*: the mean of their adapters,
  so a clipped and noisy mean may stand for it: user-level differential privacy (`--dp-clip`,
  `fedllm_train/aggregation/private.py`; fed_sb with `--core-frame random`). *mean* and *sum*: sums over clients, so
  secure aggregation can hide each client's update (as long as updates travel unpacked: each client packs to its own
  places and scales). *each*: every update by itself. *nothing*: nothing travels. What clients keep for themselves does
  not travel and is not covered by any of this.
- **ranks**: clients may have LoRA adapters of different ranks (`--client-ranks`).
- **down**, **up**: what travels in a round. The ledger counts the bytes of exactly that. `--wire` drive, int4
  and others pack the adapter's change on the way up, with every method but the baselines, of which nothing travels,
  and fedkseed, which sends no adapter (`fedllm_train/messages/wire_names.py`).
- **client keeps**: what stays on a client's disk between rounds. Methods whose clients end with adapters of their own
  write them to `personal/` of the run folder: of those who took part in a round, or as `--personal-clients` says.

`--strategy NAME` chooses one. A setting that belongs to another method is refused, as is a method that cannot do what
is asked (different ranks with FedAvg, a shift of the base weights under an adapter that is no plain LoRA).
`benchmarks/results/methods.md` shows them on two corpora, client by client.
"""


if __name__ == "__main__":
    (Path(__file__).parents[1] / METHODS_PAGE).write_text(methods_page())
