"""What the quickstart does, as the commands a user would type. The page shows them, `steps.py` runs them."""

import shlex
from pathlib import Path

from fedllm_data.wording.catalogue import marked, words

__all__ = ["steps"]

CLIENT = "--learning_rate {rate} --per_device_train_batch_size 8 --max_length 128 --activation_checkpointing False"
LORA = "--lora_r 16 --lora_alpha 32"
SFT = f"--num_rounds 12 --cohort_size 10 --local_steps 5 {CLIENT.format(rate='3e-3')} {LORA}"
SCORE = "--batch-size 64 --max-length 128"
DPO = f"--num_rounds 10 --cohort_size 10 --local_steps 5 {CLIENT.format(rate='5e-4')} --beta 0.1"


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
        (
            marked("Train a small base model on the public split"),
            f"fedllm-train tiny --data {q}/fed-synth --out {q}/base --seed {seed}",
        ),
        (
            marked("Tune it on all clients, federated: SFT"),
            f"fedllm-train sft --data {q}/fed-synth --model {q}/base --output_dir {q}/runs/sft --seed {seed} {SFT}",
        ),
        (
            marked("Align it with their preferences, federated: DPO from the SFT adapter"),
            f"fedllm-train dpo --data {q}/fed-synth-pa --model {q}/base --adapter {q}/runs/sft "
            f"--output_dir {q}/runs/dpo --seed {seed} {DPO}",
        ),
        *(
            (
                words(SCORING[kind], name=name),
                f"fedllm-eval run {policy} --data {q}/{dataset} --out {q}/scores/{kind}/{name} {SCORE}",
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
    ]
