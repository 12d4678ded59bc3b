"""The federated algorithms: one file each, client rule and server rule side by side.

A strategy is chosen by name from `STRATEGIES`; adding one is a file with a class of the shape in `strategy.py`, a line
below, and a test file. CONTRIBUTING shows it.
"""

import sys
from dataclasses import fields
from importlib import import_module

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_train.settings import NoSettings, Settings
from fedllm_train.strategies.centralized import Centralized
from fedllm_train.strategies.ditto import Ditto
from fedllm_train.strategies.fed_sb import FedSB
from fedllm_train.strategies.fedadagrad import FedAdagrad
from fedllm_train.strategies.fedadam import FedAdam
from fedllm_train.strategies.fedavg import FedAvg
from fedllm_train.strategies.fedavg_ft import FedAvgFT
from fedllm_train.strategies.fedavgm import FedAvgM
from fedllm_train.strategies.fedbiscuit import FedBiscuit
from fedllm_train.strategies.feddpa import FedDPA
from fedllm_train.strategies.fedex_lora import FedExLoRA
from fedllm_train.strategies.fedkseed import FedKSeed
from fedllm_train.strategies.fedmomentum import FedMomentum
from fedllm_train.strategies.fednova import FedNova
from fedllm_train.strategies.fedprox import FedProx
from fedllm_train.strategies.fedrot_lora import FedRotLoRA
from fedllm_train.strategies.fedsa_lora import FedSALoRA
from fedllm_train.strategies.fedsvd import FedSVD
from fedllm_train.strategies.fedyogi import FedYogi
from fedllm_train.strategies.ffa_lora import FFALoRA
from fedllm_train.strategies.flexlora import FlexLoRA
from fedllm_train.strategies.flora import FLoRA
from fedllm_train.strategies.hetlora import HetLoRA
from fedllm_train.strategies.language_clusters import LanguageClusters
from fedllm_train.strategies.local import Local
from fedllm_train.strategies.lora_fair import LoRAFair
from fedllm_train.strategies.ravan import Ravan
from fedllm_train.strategies.rolora import RoLoRA
from fedllm_train.strategies.scaffold import Scaffold
from fedllm_train.strategy import Strategy

__all__ = ["STRATEGIES", "Strategy", "settings_class", "strategy_class", "strategy_name", "users_of"]

STRATEGIES: dict[str, type[Strategy]] = {
    "local": Local,
    "centralized": Centralized,
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "fednova": FedNova,
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
    "fedmomentum": FedMomentum,
    "fed_sb": FedSB,
    "ravan": Ravan,
    "fedsvd": FedSVD,
    "fedrot_lora": FedRotLoRA,
    "fedkseed": FedKSeed,
    "fedavg_ft": FedAvgFT,
    "ditto": Ditto,
    "feddpa": FedDPA,
    "language_clusters": LanguageClusters,
    "fedbiscuit": FedBiscuit,
}
"""Name -> method, baselines first."""


def settings_class(name: str) -> type[Settings]:
    """Return the settings class of a method, by the method's name.

    Raises:
        ConfigError: if there is no such method.

    >>> [each.name for each in fields(settings_class("fedprox"))]
    ['uniform_weights', 'client_layers', 'prox_mu']
    """
    return getattr(strategy_class(name), "Settings", NoSettings)


def users_of(setting: str) -> list[str]:
    """Return the methods that own a setting, by name.

    >>> users_of("prox_mu"), users_of("num_rounds")
    (['fedprox'], [])
    """
    return [name for name in STRATEGIES if setting in {each.name for each in fields(settings_class(name))}]


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
    hint = did_you_mean(name, STRATEGIES)
    raise ConfigError(
        f"strategy {name!r} is unknown; {hint}choose from {', '.join(STRATEGIES)}, or give a class of your own as "
        "module:Class"
    )


def strategy_name(chosen: type) -> str:
    """Return the name under which `strategy_class` finds a class again, in every process.

    Raises:
        ConfigError: if it is no method, or no name leads to it.

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
