"""Published set-ups by name, as the released training scripts have them.

Five are FedLLM-Bench's (Ye et al. 2024, arXiv 2406.04845), two OpenFedLLM's (arXiv 2402.06954). A preset gives
defaults to the flags of `fedllm-train sft` and `dpo`; flags and `--config` files override it, and `config.yaml` names
it (from Python, `preset_defaults` gives the settings and `FederatedConfig.preset` only names them). What a preset
cannot give is listed with it: the base model, its 8-bit weights where there is no GPU, the benchmark's own prompt
templates. Learning rates fall from `learning_rate` to `min_learning_rate` in a cosine over rounds; AdamW starts afresh
at every visit, as it does there. Imports no torch.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError

__all__ = ["DECISIVE", "PRESETS", "Preset", "preset_defaults", "preset_records"]

_BENCH = {
    "seed": 2023,
    "cohort_rule": "fedllm-bench",
    "round_rows": "fedllm-bench",
    "gradient_checkpointing": True,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "v_proj"],
}
_BENCH_SFT = _BENCH | {
    "learning_rate": 2e-5,
    "min_learning_rate": 1e-6,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "max_length": 1024,
    "lora_r": 16,
    "lora_alpha": 32,
}
_BENCH_METHODS: dict[str, dict[str, Any]] = {
    "fedprox": {"prox_mu": 0.01},
    "scaffold": {"uniform_weights": False},
    "fedavgm": {"server_momentum": 0.5, "server_learning_rate": 1.0, "benchmark_rules": True},
    "fedadagrad": {"server_learning_rate": 1e-3, "server_tau": 1e-3, "benchmark_rules": True},
    "fedyogi": {
        **{"server_learning_rate": 1e-3, "server_tau": 1e-3, "server_momentum": 0.5, "server_beta2": 0.99},
        "benchmark_rules": True,
    },
    "fedadam": {
        **{"server_learning_rate": 1e-3, "server_tau": 1e-3, "server_momentum": 0.5, "server_beta2": 0.99},
        "benchmark_rules": True,
    },
}
"""What the methods are set to there; for a preset's run with another strategy than FedAvg."""
_OPEN_METHODS = _BENCH_METHODS | {
    name: _BENCH_METHODS[name] | {"server_momentum": 0.9} for name in ("fedavgm", "fedyogi", "fedadam")
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One published set-up."""

    task: Literal["sft", "dpo"]
    source: str
    base_model: str
    num_clients: int
    """Clients of the original data."""
    settings: dict[str, Any]
    """Flag -> value."""
    of_method: dict[str, dict[str, Any]] = field(default_factory=lambda: _BENCH_METHODS)
    """Strategy -> flags that it adds."""
    int8: bool = True
    """Whether the base is loaded in 8 bit."""


PRESETS: dict[str, Preset] = {
    "fedllm-bench/fed-aya": Preset(
        task="sft",
        source="arXiv 2406.04845, Fed-Aya",
        base_model="Llama2-7B",
        num_clients=38,
        settings=_BENCH_SFT | {"num_rounds": 200, "cohort_size": 4, "local_steps": 10},
    ),
    "fedllm-bench/fed-chatbotit": Preset(
        task="sft",
        source="arXiv 2406.04845, Fed-ChatbotIT",
        base_model="Llama2-7B",
        num_clients=237,
        settings=_BENCH_SFT | {"num_rounds": 100, "cohort_size": 10, "local_steps": 5},
    ),
    "fedllm-bench/fed-wildchat-single": Preset(
        task="sft",
        source="arXiv 2406.04845, Fed-WildChat, single-turn",
        base_model="Llama2-7B",
        num_clients=100,
        settings=_BENCH_SFT | {"num_rounds": 100, "cohort_size": 5, "local_steps": 10},
    ),
    # The multi-turn script packs all rows of a client and draws none for the round.
    "fedllm-bench/fed-wildchat-multi": Preset(
        task="sft",
        source="arXiv 2406.04845, Fed-WildChat, multi-turn",
        base_model="Llama2-7B",
        num_clients=50,
        settings=_BENCH_SFT
        | {"num_rounds": 100, "cohort_size": 3, "local_steps": 10}
        | {"max_length": 2048, "packing": True, "packing_strategy": "wrapped", "round_rows": "all"},
    ),
    "fedllm-bench/fed-chatbotpa": Preset(
        task="dpo",
        source="arXiv 2406.04845, Fed-ChatbotPA",
        base_model="Alpaca-7B",
        num_clients=747,
        settings=_BENCH
        | {"num_rounds": 200, "cohort_size": 10, "expected_epochs": 3.0}
        | {"learning_rate": 1e-4, "min_learning_rate": 1e-5, "beta": 0.1, "max_length": 512}
        | {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "lora_r": 8, "lora_alpha": 16},
    ),
    "openfedllm/sft": Preset(
        task="sft",
        source="arXiv 2402.06954, instruction tuning (FedIT)",
        base_model="Llama2-7B",
        num_clients=20,
        settings=_BENCH
        | {"num_rounds": 200, "cohort_size": 2, "local_steps": 10}
        | {"learning_rate": 5e-5, "min_learning_rate": 1e-6, "max_length": 512}
        | {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "lora_r": 32, "lora_alpha": 64},
        of_method=_OPEN_METHODS,
    ),
    "openfedllm/dpo": Preset(
        task="dpo",
        source="arXiv 2402.06954, value alignment (FedVA)",
        base_model="Wizard-Vicuna-7B-Uncensored",
        num_clients=5,
        settings=_BENCH
        | {"num_rounds": 200, "cohort_size": 2, "local_steps": 10}
        | {"learning_rate": 5e-4, "min_learning_rate": 1e-5, "beta": 0.1, "max_length": 512}
        | {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "lora_r": 8, "lora_alpha": 16},
        of_method=_OPEN_METHODS,
    ),
}
"""Name -> set-up."""

_ONE_OF = ("local_steps", "local_epochs", "expected_epochs")
DECISIVE = ("strategy", "cohort_rule", *_ONE_OF)
"""Flags that decide which of a preset's settings apply."""


def preset_defaults(name: str, task: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that a preset sets, less what the user's own choices replace.

    Args:
        name: a name in `PRESETS`.
        task: "sft" or "dpo".
        given: what the user set by flags or a file; values of `strategy` and `cohort_rule` are looked at.

    Raises:
        ConfigError: if there is no such preset, or it is for the other task.

    >>> preset_defaults("fedllm-bench/fed-aya", "sft", {"local_epochs": 1})["num_rounds"]
    200
    """
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown; {did_you_mean(name, PRESETS)}choose from {', '.join(PRESETS)}")
    preset = PRESETS[name]
    if preset.task != task:
        raise ConfigError(f"preset {name!r} is for fedllm-train {preset.task}; use that command")
    defaults = preset.settings | preset.of_method.get(given.get("strategy", "fedavg"), {}) | {"preset": name}
    replaced = set()
    if any(flag in given for flag in _ONE_OF):
        replaced |= set(_ONE_OF)
    if given.get("cohort_rule") in ("fixed", "all"):
        replaced.add("cohort_size")
    if given.get("strategy") == "centralized":
        replaced.add("round_rows")  # of one client, and there is none
    return {flag: value for flag, value in defaults.items() if flag not in replaced}


def preset_records() -> list[dict[str, Any]]:
    """Return one JSON-ready record a preset.

    >>> preset_records()[0]["name"], preset_records()[0]["settings"]["lora_r"]
    ('fedllm-bench/fed-aya', 16)
    """
    return [
        {
            "name": name,
            "task": preset.task,
            "source": preset.source,
            "base_model": preset.base_model,
            "num_clients": preset.num_clients,
            "int8_base": preset.int8,
            "settings": preset.settings,
            "settings_of_methods": preset.of_method,
        }
        for name, preset in PRESETS.items()
    ]
