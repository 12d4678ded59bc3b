"""What a client trains for: SFT, DPO with the loss variants of TRL 1.16, or KTO from the same preference rows.

An objective is TRL's config and trainer by name, the rows they take, and what of their settings a federation cannot
honour. KTO (Ethayarajh et al. 2024, arXiv 2402.01306) reads every pair as one desirable and one undesirable row.

KTO's own loss compares with mismatched completions, which TRL makes by rotating the completions inside each batch; it
then takes the rows in order. One order for the whole run would train a client of few steps a visit on the same rows
for ever, so the rows are shuffled by the visit's seed first and rotated after (`rows_of_visit`): a visit equals
`KTOTrainer` on those rows in that order. What the reference says of a mismatched completion therefore cannot be kept
from one visit to the next.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.schema import Task
from fedllm_train.seeds import stream_rng

__all__ = [
    "DPO_LOSSES",
    "KTO_LOSSES",
    "OBJECTIVES",
    "ClientArgs",
    "Objective",
    "check_objective",
    "first_sequence",
    "keeps_reference",
    "objective_of",
    "rows_of_visit",
]

ClientArgs = SFTConfig | DPOConfig | KTOConfig
"""TRL's settings for a client's training."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One way to train."""

    name: str
    """As the command and `config.yaml` call it."""
    title: str
    config: type[ClientArgs]
    trainer: type[SFTTrainer | DPOTrainer | KTOTrainer]
    rows: Task
    """Format of the dataset it trains on."""


OBJECTIVES = {
    "sft": Objective(
        name="sft", title="supervised fine-tuning (SFT)", config=SFTConfig, trainer=SFTTrainer, rows="sft"
    ),
    "dpo": Objective(
        name="dpo", title="preference tuning (DPO)", config=DPOConfig, trainer=DPOTrainer, rows="preference"
    ),
    "kto": Objective(
        name="kto", title="preference tuning (KTO)", config=KTOConfig, trainer=KTOTrainer, rows="preference"
    ),
}
"""Name -> objective."""

DPO_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)
"""Values of `DPOConfig.loss_type` that TRL 1.16 knows; several may be given, with `loss_weights`."""
KTO_LOSSES = ("kto", "apo_zero_unpaired")
"""Values of `KTOConfig.loss_type`; the second needs no mismatched completions."""

_PACKINGS = ("bfd", "bfd_split", "wrapped")
_READ_BY = {
    "label_smoothing": {"exo_pair", "robust", "aot", "aot_unpaired"},
    "discopop_tau": {"discopop"},
}
"""Settings of DPO that only some losses look at; TRL 1.16 passes over them in silence with the others."""
_DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")
_OF_A_DIFFERENCE = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
"""Losses of the difference of two rewards, in which an f-divergence's normaliser cancels."""


def objective_of(args: ClientArgs) -> Objective:
    """Return the objective that TRL settings are for.

    >>> objective_of(SFTConfig(bf16=False)).name
    'sft'
    """
    return next(each for each in OBJECTIVES.values() if isinstance(args, each.config))


def check_objective(args: ClientArgs) -> None:
    """Refuse settings that TRL would pass over, or fail on in the first step.

    Raises:
        ConfigError: naming the setting and what to do.
    """
    if isinstance(args, SFTConfig):
        _check_packing(args)
    elif isinstance(args, DPOConfig):
        _check_dpo(args)
    elif isinstance(args, KTOConfig):
        _check_kto(args)


def first_sequence(rows: Dataset, max_length: int | None) -> list[int]:
    """Return a prompt with its completion as the trainer reads them, of the first row.

    Args:
        rows: encoded preference rows.
        max_length: tokens that are kept.

    >>> first_sequence(Dataset.from_dict({"prompt_ids": [[1, 2]], "chosen_ids": [[3, 4]]}), max_length=3)
    [1, 2, 3]
    """
    row = rows[0]
    completion = row["chosen_ids"] if "chosen_ids" in row else row["completion_ids"]
    return [*row["prompt_ids"], *completion][:max_length]


def keeps_reference(args: ClientArgs) -> bool:
    """Whether what the reference says of a client's rows is the same at every visit, so that it can be kept.

    >>> keeps_reference(KTOConfig(bf16=False)), keeps_reference(KTOConfig(bf16=False, loss_type="apo_zero_unpaired"))
    (False, True)
    """
    return isinstance(args, DPOConfig) or (isinstance(args, KTOConfig) and not _mismatches(args))


def rows_of_visit(rows: Dataset, args: ClientArgs, seed: int) -> Dataset:
    """Return a client's rows as its trainer takes them at a visit.

    Args:
        rows: encoded by `clients/token_cache.py`.
        args: TRL's settings.
        seed: the visit's own seed.

    Returns:
        The rows themselves for SFT and DPO, whose trainers shuffle. For KTO the rows in the order of the visit, with
        `KL_completion_ids`: in each batch the completion of the row before, in the first row that of the last.

    >>> rows = Dataset.from_dict({"prompt_ids": [[1], [2]], "completion_ids": [[3], [4]], "label": [True, False]})
    >>> shuffled = rows_of_visit(rows, KTOConfig(bf16=False, per_device_train_batch_size=2), seed=0)
    >>> sorted(shuffled["prompt_ids"]), shuffled["KL_completion_ids"][1] == shuffled["completion_ids"][0]
    ([[1], [2]], True)
    """
    if not isinstance(args, KTOConfig):
        return rows
    order = stream_rng(seed, "kto_order").permutation(len(rows))
    # A selection of rows keeps the whole table behind an index; what is taken here is one client's.
    table = rows.with_format("arrow")[:].take(pa.array(order))
    if _mismatches(args):
        before = pa.array(_before(args, len(rows)))
        table = table.append_column("KL_completion_ids", table["completion_ids"].take(before))
    return Dataset(table)


def _before(args: KTOConfig, num_rows: int) -> np.ndarray:
    """Position of the row before in the same batch; of the batch's last row for its first."""
    size = args.per_device_train_batch_size
    position = np.arange(num_rows)
    first = position - position % size
    last = np.minimum(first + size, num_rows) - 1
    return np.where(position == first, last, position - 1)


def _mismatches(args: KTOConfig) -> bool:
    return args.loss_type != "apo_zero_unpaired"


def _check_packing(args: SFTConfig) -> None:
    if not args.packing:
        return
    if args.max_length is None:
        raise ConfigError("packing fills sequences of max_length tokens, and max_length is None; give a length")
    if args.packing_strategy not in _PACKINGS:
        raise ConfigError(f"packing_strategy {args.packing_strategy!r} is unknown; choose from {', '.join(_PACKINGS)}")
    if args.truncation_mode != "keep_start" and args.packing_strategy != "bfd":
        raise ConfigError(
            f"truncation_mode={args.truncation_mode!r} is given, and packing_strategy {args.packing_strategy} cuts "
            "nothing off; leave one of the two out"
        )


def _check_dpo(args: DPOConfig) -> None:
    losses = list(args.loss_type)
    if odd := [name for name in losses if name not in DPO_LOSSES]:
        hint = did_you_mean(odd[0], DPO_LOSSES)
        raise ConfigError(f"loss_type {odd[0]!r} is none of DPO's; {hint}choose from {', '.join(DPO_LOSSES)}")
    defaults = type(args).__dataclass_fields__
    for name, readers in _READ_BY.items():
        if getattr(args, name) != defaults[name].default and not readers & set(losses):
            raise ConfigError(
                f"{name}={getattr(args, name)} is given, and TRL's loss_type {' '.join(losses)} does not look at it; "
                f"use {' or '.join(sorted(readers))}, or leave it out"
            )
    smooth = args.label_smoothing
    if "exo_pair" in losses and not 0 < smooth < 1:
        raise ConfigError(f"loss_type exo_pair needs 0 < label_smoothing < 1 and it is {smooth}; its paper takes 1e-3")
    if "robust" in losses and not 0 <= smooth < 0.5:
        raise ConfigError(f"loss_type robust needs 0 <= label_smoothing < 0.5 and it is {smooth}; lower it")
    if args.f_divergence_type not in _DIVERGENCES:
        raise ConfigError(f"f_divergence_type {args.f_divergence_type!r} is none of {', '.join(_DIVERGENCES)}")
    if args.f_divergence_type != "reverse_kl" and (odd := sorted(set(losses) - _OF_A_DIFFERENCE)):
        raise ConfigError(
            f"f_divergence_type={args.f_divergence_type} has no meaning for loss_type {odd[0]}, which is no function "
            "of the difference of two rewards; leave one of the two out"
        )
    if args.f_alpha_divergence_coef != defaults["f_alpha_divergence_coef"].default and (
        args.f_divergence_type != "alpha_divergence"
    ):
        raise ConfigError(
            f"f_alpha_divergence_coef={args.f_alpha_divergence_coef} is given, and f_divergence_type "
            f"{args.f_divergence_type} does not look at it; use f_divergence_type alpha_divergence, or leave it out"
        )
    if args.use_weighting and (odd := sorted({"aot", "aot_unpaired"} & set(losses))):
        raise ConfigError(
            f"use_weighting weighs pairs, and loss_type {odd[0]} sorts their sides apart; leave one of the two out"
        )
    if args.ld_alpha is not None and not 0 <= args.ld_alpha <= 1:
        raise ConfigError(f"ld_alpha is {args.ld_alpha}; it is a share, from 0 to 1")
    if args.padding_free:
        raise ConfigError("padding_free is switched off for DPO in TRL 1.16; leave it out")


def _check_kto(args: KTOConfig) -> None:
    if args.loss_type not in KTO_LOSSES:
        hint = did_you_mean(str(args.loss_type), KTO_LOSSES)
        raise ConfigError(f"loss_type {args.loss_type!r} is none of KTO's; {hint}choose from {', '.join(KTO_LOSSES)}")
    if args.train_sampling_strategy != "sequential":
        raise ConfigError(
            f"train_sampling_strategy={args.train_sampling_strategy!r} would part rows from their mismatched "
            "completions; leave it out: the rows are shuffled at every visit"
        )
    if _mismatches(args) and args.per_device_train_batch_size < 2:
        raise ConfigError(
            "per_device_train_batch_size is 1, and loss_type kto compares each row with another of its batch; use at "
            "least 2, or loss_type apo_zero_unpaired"
        )
