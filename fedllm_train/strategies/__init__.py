"""The federated algorithms: one file each, client rule and server rule side by side.

A strategy is chosen by name from `STRATEGIES`; adding one is a file with a class of the shape in `strategy.py`, a line
below, and a test file. CONTRIBUTING shows it.
"""

import sys
from dataclasses import fields
from importlib import import_module

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_train.adapters.ranks import client_ranks
from fedllm_train.config import FederatedConfig
from fedllm_train.given import given_of
from fedllm_train.participation.cohort_rules import eligible_clients
from fedllm_train.strategies.centralized import Centralized
from fedllm_train.strategies.ditto import Ditto
from fedllm_train.strategies.fed_sb import FedSB
from fedllm_train.strategies.fedadagrad import FedAdagrad
from fedllm_train.strategies.fedadam import FedAdam
from fedllm_train.strategies.fedavg import FedAvg
from fedllm_train.strategies.fedavg_ft import FedAvgFT
from fedllm_train.strategies.fedavgm import FedAvgM
from fedllm_train.strategies.feddpa import FedDPA
from fedllm_train.strategies.fedex_lora import FedExLoRA
from fedllm_train.strategies.fedprox import FedProx
from fedllm_train.strategies.fedsa_lora import FedSALoRA
from fedllm_train.strategies.fedyogi import FedYogi
from fedllm_train.strategies.ffa_lora import FFALoRA
from fedllm_train.strategies.flexlora import FlexLoRA
from fedllm_train.strategies.flora import FLoRA
from fedllm_train.strategies.hetlora import HetLoRA
from fedllm_train.strategies.language_clusters import LanguageClusters
from fedllm_train.strategies.local import Local
from fedllm_train.strategies.lora_fair import LoRAFair
from fedllm_train.strategies.rolora import RoLoRA
from fedllm_train.strategies.scaffold import Scaffold
from fedllm_train.strategy import Federation, Strategy

__all__ = ["STRATEGIES", "Strategy", "make_strategy", "strategy_class", "strategy_name"]

STRATEGIES: dict[str, type[Strategy]] = {
    "local": Local,
    "centralized": Centralized,
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedyogi": FedYogi,
    "fedadam": FedAdam,
    "ffa_lora": FFALoRA,
    "rolora": RoLoRA,
    "fedsa_lora": FedSALoRA,
    "fedex_lora": FedExLoRA,
    "flora": FLoRA,
    "flexlora": FlexLoRA,
    "hetlora": HetLoRA,
    "lora_fair": LoRAFair,
    "fed_sb": FedSB,
    "fedavg_ft": FedAvgFT,
    "ditto": Ditto,
    "feddpa": FedDPA,
    "language_clusters": LanguageClusters,
}
"""Name -> method, baselines first."""


def make_strategy(config: FederatedConfig, clients: ClientDataset) -> tuple[Strategy, Federation]:
    """Return the strategy that a config names, for the clients of a run, and what it knows of them.

    Args:
        config: the settings of the federation.
        clients: the training clients.

    Raises:
        ConfigError: if there is no such strategy, or a setting was given that it would not look at.
    """
    chosen = strategy_class(config.strategy)
    if config.uniform_weights is not None and chosen.traits.weights == "none":
        raise ConfigError(
            f"uniform_weights is given but strategy {config.strategy!r} averages no clients; leave it out"
        )
    of_some = {name for each in STRATEGIES.values() for name in each.traits.settings}
    for each in fields(config):
        if each.name in given_of(config) and each.name in of_some - set(chosen.traits.settings):
            users = [name for name, other in STRATEGIES.items() if each.name in other.traits.settings]
            raise ConfigError(
                f"{each.name} is given but strategy {config.strategy!r} does not use it; "
                f"use strategy {' or '.join(users)}, or leave it out"
            )
    if config.full_finetuning and chosen.traits.needs_lora:
        others = [name for name, other in STRATEGIES.items() if not other.traits.needs_lora]
        raise ConfigError(
            f"strategy {config.strategy!r} works on LoRA factors, and with full_finetuning there are none; leave it "
            f"out, or use {', '.join(others)}"
        )
    sizes = dict(clients.sizes)
    # Ranks are dealt out among those who can take part.
    eligible = eligible_clients(config, list(clients))
    taking_part = {client_id: sizes[client_id] for client_id in eligible}
    federation = Federation(
        config=config,
        num_clients=len(sizes),
        eligible=eligible,
        sizes=sizes,
        ranks={}
        if config.client_ranks is None
        else client_ranks(config.client_ranks, taking_part or sizes, clients.table, seed=config.seed),
        languages=_main_languages(clients),
    )
    return chosen(federation), federation


def strategy_class(name: str) -> type[Strategy]:
    """Return the method of a name: one of `STRATEGIES`, or a class of the user's own as `module:Class`.

    Raises:
        ConfigError: if there is no such method.

    >>> strategy_class("fedllm_train.strategies.fedprox:FedProx").traits.title
    'FedProx'
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    module, _, path = name.partition(":")
    try:
        # A module that runs as a script, or that a notebook is, cannot be imported again.
        found = sys.modules[module] if module in sys.modules else import_module(module) if path else None
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        found = None
    if path and isinstance(found, type) and hasattr(found, "traits"):
        return found
    raise ConfigError(
        f"strategy {name!r} is unknown; choose from {', '.join(STRATEGIES)}, or give a class of your own as "
        "module:Class"
    )


def strategy_name(chosen: type) -> str:
    """Return the name under which `strategy_class` finds a class again, in every process.

    Raises:
        ConfigError: if it is no method, or cannot be found by a name.

    >>> strategy_name(FedProx)
    'fedprox'
    """
    known = [name for name, strategy in STRATEGIES.items() if strategy is chosen]
    if known:
        return known[0]
    name = f"{chosen.__module__}:{chosen.__qualname__}"
    if not hasattr(chosen, "traits"):
        raise ConfigError(
            f"strategy is the class {chosen.__qualname__}, which has no traits and so is no method; give a name "
            "(fedllm-train methods lists them) or a class of the shape in fedllm_train/strategy.py"
        )
    if "<locals>" in name:
        raise ConfigError(
            f"strategy is the class {chosen.__qualname__}, made inside a function, where no process finds it again; "
            "define it at the top of a module"
        )
    return name


def _main_languages(clients: ClientDataset) -> dict[str, str]:
    """The language of most of a client's rows; ties go to the first in the alphabet."""
    table = clients.rows.with_format("arrow")[:].select(["client_id", "language"])
    counts = table.group_by(["client_id", "language"]).aggregate([([], "count_all")])
    ordered = counts.sort_by([("count_all", "ascending"), ("language", "descending")])
    return dict(zip(ordered["client_id"].to_pylist(), ordered["language"].to_pylist(), strict=True))
