"""What the quickstart does, as the commands a user would type. The page shows them, `steps.py` runs them."""

import shlex
from pathlib import Path

from fedllm_data.wording.catalogue import marked, words
from fedllm_train.models.shipped_base import BASE_SEED

__all__ = ["steps"]

CLIENT = "--learning-rate {rate} --per-device-train-batch-size 8 --max-length 128 --activation-checkpointing False"
LORA = "--lora-r 16 --lora-alpha 32 --lora-dropout 0"
SFT = f"--num-rounds 8 --cohort-size 10 --local-steps 5 {CLIENT.format(rate='3e-3')} {LORA} --sft-kernel auto"
NUM_ALONE = 8
"""Clients that train alone; six are the fewest that can show a difference."""
SCORE = "--batch-size 64 --max-length 128"
DPO_LOSS = "--beta 0.1 --preference-kernel auto"
DPO = f"--num-rounds 6 --cohort-size 10 --local-steps 5 {CLIENT.format(rate='5e-4')} {DPO_LOSS}"


SCORING = {
    "loss": marked("Score {name} on every client: loss"),
    "preference": marked("Score {name} on every client: preference"),
}


def steps(out: Path, *, seed: int = 0) -> list[tuple[str, str]]:
    """Return what the quickstart does, in order: what for, and the command.

    >>> steps(Path("quickstart"))[0]
    ('Build a corpus of people who differ', 'fedllm-data build fed-synth --seed 0 --out quickstart/fed-synth')
    """
    q = shlex.quote(str(out))
    policies = (("base", f"{q}/base"), ("sft", f"{q}/runs/sft"), ("dpo", f"{q}/runs/dpo"))
    datasets = (("loss", "fed-synth"), ("preference", "fed-synth-pa"))
    return [
        (
            marked("Build a corpus of people who differ"),
            f"fedllm-data build fed-synth --seed {seed} --out {q}/fed-synth",
        ),
        (marked("Build their preferences"), f"fedllm-data build fed-synth-pa --seed {seed} --out {q}/fed-synth-pa"),
        (marked("Measure how different they are"), f"fedllm-data report {q}/fed-synth --out {q}/report"),
        _base(q, seed),
        (
            marked("Tune it on all clients, federated: SFT"),
            f"fedllm-train sft --data {q}/fed-synth --model {q}/base --out {q}/runs/sft --seed {seed} {SFT}",
        ),
        (
            marked("Align it with their preferences, federated: DPO from the SFT adapter"),
            f"fedllm-train dpo --data {q}/fed-synth-pa --model {q}/base --adapter {q}/runs/sft "
            f"--out {q}/runs/dpo --seed {seed} {DPO}",
        ),
        (
            marked("Let eight clients train alone for as many steps, to see what joining is worth"),
            f"fedllm-train sft --data {q}/fed-synth --model {q}/base --out {q}/runs/alone --seed {seed} {_alone()}",
        ),
        *(
            (
                words(SCORING[kind], name=name),
                f"fedllm-eval run {policy} --data {q}/{dataset} --out {q}/scores/{kind}/{name} {SCORE}"
                + f" --alone {q}/runs/alone" * (name == "sft"),
            )
            for kind, dataset in datasets
            for name, policy in policies
        ),
        (
            marked("Compare, client by client: loss"),
            f"fedllm-eval compare {q}/scores/loss/base {q}/scores/loss/sft --out {q}/compare/loss",
        ),
        (
            marked("Compare, client by client: preferences"),
            f"fedllm-eval compare {q}/scores/preference/sft {q}/scores/preference/dpo --out {q}/compare/preference",
        ),
        (
            marked("Decide: what was gained, for whom, at what cost, and what to do"),
            f"fedllm-eval decide {q}/scores/preference/sft {q}/scores/preference/dpo "
            f"--before {q}/scores/preference/base --out {q}/decision",
        ),
    ]


def _base(q: str, seed: int) -> tuple[str, str]:
    """The step that brings the base model: a copy of the one that comes along, for the corpus it was trained on."""
    train = f"fedllm-train tiny --data {q}/fed-synth --out {q}/base --seed {seed}"
    if seed == BASE_SEED:
        return (
            words(
                "Take the small base model that comes along; it was trained beforehand on the public split, by"
                " {command}",
                command=train,
            ),
            f"fedllm-train tiny --shipped --out {q}/base",
        )
    # What the model that comes along has read may be held out here.
    return marked("Train a small base model on the public split of this seed's corpus"), train


def _alone() -> str:
    """The flags of SFT for clients that train alone: one visit with the steps of all rounds together.

    >>> _alone().split(" --learning-rate")[0]
    '--strategy local --num-rounds 1 --cohort-size 8 --local-steps 40'
    """
    given = shlex.split(SFT)
    place = {word: position + 1 for position, word in enumerate(given)}
    num_steps = int(given[place["--num-rounds"]]) * int(given[place["--local-steps"]])
    for flag, value in (("--num-rounds", 1), ("--cohort-size", NUM_ALONE), ("--local-steps", num_steps)):
        given[place[flag]] = str(value)
    return shlex.join(["--strategy", "local", *given])
