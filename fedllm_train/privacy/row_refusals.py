"""What private steps on rows cannot be combined with, and why: refused before a model is loaded. Imports no torch.

The bound on a row holds where all that a client learns of its rows comes from `fit`, where each row's loss is its own,
and where what is trained are LoRA factors on linear layers.
"""

from collections.abc import Mapping
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = ["ROW_METHODS", "check_row_adapter", "check_row_adapter_kind", "check_row_privacy", "check_row_task"]

_BY_FIT = None
ROW_METHODS: Mapping[str, str | None] = {
    "centralized": "trains on the rows of all clients in one place, which no client has alone",
    "ditto": _BY_FIT,  # both fits of a visit count
    "fed_sb": _BY_FIT,  # with core_frame random; the other frame is made of gradients
    "fedadagrad": _BY_FIT,
    "fedadam": _BY_FIT,
    "fedavg": _BY_FIT,
    "fedavg_ft": _BY_FIT,  # the steps after the last round count
    "fedavgm": _BY_FIT,
    "feddpa": _BY_FIT,  # both fits of a visit count
    "fedbiscuit": "sends losses of its rows, which no clip of gradients bounds",
    "fedex_lora": _BY_FIT,
    "fedkseed": "sends differences of losses of its rows, which no clip of gradients bounds",
    "fedmomentum": _BY_FIT,
    "fednova": _BY_FIT,
    "fedprox": _BY_FIT,  # its pull depends on the adapters alone
    "fedrot_lora": _BY_FIT,
    "fedsa_lora": _BY_FIT,
    "fedsvd": _BY_FIT,
    "fedyogi": _BY_FIT,
    "ffa_lora": _BY_FIT,
    "flexlora": _BY_FIT,
    "flora": _BY_FIT,
    "hetlora": _BY_FIT,  # its penalty, and what it prunes, depend on the adapter alone
    "language_clusters": _BY_FIT,  # a client's language is read from the clients table, not from rows
    "local": _BY_FIT,
    "lora_fair": _BY_FIT,
    "ravan": "trains scales of its heads, whose rows have no gradient of their own here",
    "rolora": _BY_FIT,
    "scaffold": _BY_FIT,  # control variates are means of gradients that have noise
}
"""Method -> why its clients learn of rows by more than private steps; None where they do not."""

_MIXING = {
    "aot": "sorts the pairs of a batch against one another",
    "aot_unpaired": "sorts the answers of a batch against one another",
    "sft": "is a mean over all tokens of a batch, so each pair counts by the others' tokens",
}
"""DPO losses in which the rows of a batch are not apart -> why."""
_FUSED_STEPS = ("lomo", "layerwise")
"""Parts of the names of optimizers that step inside the backward pass."""
_PLAIN = {
    "packing": (False, "joins rows into one sequence"),
    "padding_free": (False, "joins rows into one sequence"),
    "use_liger_kernel": (False, "computes losses and gradients of a whole batch at once"),
    "neftune_noise_alpha": (None, "scales its noise by the longest row of a batch"),
    "label_smoothing_factor": (0.0, "takes a mean over all tokens of a batch"),
    "fp16": (False, "scales losses by a factor that follows from earlier overflows of rows"),
    "train_sampling_strategy": ("random", "chooses which rows are in a step together; each has a coin of its own"),
    "group_by_length": (False, "chooses which rows are in a step together; each has a coin of its own"),
}
"""TRL's setting -> the only value that goes, and what others do."""


def check_row_privacy(strategy: str, config: Any, client: Any) -> None:
    """Refuse what would break the guarantee of rows.

    Args:
        strategy: the method's name.
        config: settings of the federation.
        client: TRL's settings for a visit, or what a plan reads of them.

    Raises:
        ConfigError: naming the setting and the reason.
    """
    reason = ROW_METHODS.get(strategy, "is none of those of which it is known that clients learn of rows by fit alone")
    if reason is not None:
        raise ConfigError(f"dp_unit is example, and strategy {strategy!r} {reason}; use fedavg or another method")
    if config.full_finetuning:
        raise ConfigError(
            "dp_unit is example, and full_finetuning trains weights whose rows have no gradient of their own here; "
            "train a LoRA adapter, or use dp_unit client"
        )
    if config.round_rows != "all":
        raise ConfigError(
            f"dp_unit is example and round_rows {config.round_rows!r}, which draws a visit's rows by its round, so "
            "that no coin of a row is its own; leave round_rows out"
        )
    check_row_task({"KTOConfig": "kto"}.get(type(client).__name__, ""))
    for name, (plain, what) in _PLAIN.items():
        value = getattr(client, name, plain)
        if getattr(value, "value", value) != plain and value is not None:
            raise ConfigError(f"{name} is {value!r}, which {what}; with dp_unit example leave it out")
    _check_loss(client)
    optim = str(getattr(getattr(client, "optim", ""), "value", getattr(client, "optim", "")))
    if any(part in optim for part in _FUSED_STEPS):
        raise ConfigError(
            f"optim is {optim!r}, which makes its steps inside the backward pass, before gradients are clipped; with "
            "dp_unit example use adamw_torch or another"
        )


def _check_loss(client: Any) -> None:
    kind, loss = type(client).__name__, getattr(client, "loss_type", None)
    if kind == "SFTConfig" and loss not in (None, "nll"):
        raise ConfigError(f"loss_type is {loss!r}; with dp_unit example SFT's is nll, each row's own mean")
    names = [loss] if isinstance(loss, str) else list(loss or ())
    if mixing := [name for name in names if name in _MIXING]:
        raise ConfigError(
            f"loss_type {mixing[0]!r} {_MIXING[mixing[0]]}; with dp_unit example use sigmoid or another loss of "
            "single pairs"
        )


def check_row_task(task: str) -> None:
    """Refuse KTO.

    Args:
        task: `sft`, `dpo` or `kto`, as the command names it.

    Raises:
        ConfigError: naming what to use instead.

    >>> check_row_task("dpo")
    """
    if task == "kto":
        raise ConfigError(
            "KTO reads a pair as two rows and compares rows of a batch, so no row is one example; with dp_unit "
            "example use DPO"
        )


def check_row_adapter_kind(peft_type: str) -> None:
    """Refuse a kind of adapter whose rows have no exact gradient here.

    Args:
        peft_type: as the command names it.

    Raises:
        ConfigError: naming the kinds that go.
    """
    if peft_type not in ("lora", "rslora"):
        raise ConfigError(f"peft_type is {peft_type!r}; with dp_unit example it must be lora or rslora")


def check_row_adapter(peft_config: Any) -> None:
    """Refuse PEFT's settings of an adapter that is more than LoRA factors on linear layers.

    Args:
        peft_config: PEFT's settings; None passes, as its default is plain LoRA.

    Raises:
        ConfigError: naming the setting.
    """
    if peft_config is None:
        return
    kind = str(getattr(peft_config.peft_type, "value", peft_config.peft_type)).lower()
    if kind != "lora":
        check_row_adapter_kind(kind)
    for name, plain in (
        *(("use_dora", False), ("lora_bias", False), ("bias", "none"), ("use_qalora", False)),
        *(("modules_to_save", None), ("trainable_token_indices", None), ("target_parameters", None)),
        *(("alora_invocation_tokens", None), ("arrow_config", None), ("use_bdlora", None), ("kasa_config", None)),
    ):
        value = getattr(peft_config, name, plain)
        if value != plain and value:
            raise ConfigError(
                f"{name} is {value!r} and dp_unit example, which clips gradients of plain LoRA factors alone; leave "
                "it out, or use dp_unit client"
            )
