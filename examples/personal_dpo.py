"""DPO with a method that gives every client an adapter of its own, and for whom that is worth it.

    python examples/personal_dpo.py
    python examples/personal_dpo.py --strategy feddpa --model HuggingFaceTB/SmolLM2-135M-Instruct --learning-rate 5e-5

The preferences are those of the generated corpus, whose clients are known to want different things, so that one
adapter for all cannot please everybody; with real ones, name a client repo by --data. Needs no network with the small
base model that comes with the package. The steps: build the preference corpus, train Ditto (a global adapter, and for
each client one that stays near it), score the global and the own adapter on every client's held-out pairs.
"""

import argparse
from pathlib import Path

from peft import LoraConfig
from trl import DPOConfig

from fedllm_data import load_clients
from fedllm_data.build import build
from fedllm_data.sources import SOURCES
from fedllm_eval import OtherPolicies, ScoreSettings
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.models.shipped_base import SHIPPED_BASE


def main() -> None:
    """Run the whole way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None, help="a preference repo: folder or Hub id (by default, generated)")
    parser.add_argument("--model", default=str(SHIPPED_BASE), help="folder or Hub id (the small base of this package)")
    parser.add_argument("--strategy", default="ditto", help="ditto, feddpa, fedavg_ft, fedsa_lora or local")
    parser.add_argument("--out", type=Path, default=Path("personal_dpo"), help="a folder for everything that is made")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="1e-3 suits the small base; 5e-5 a real one")
    given = parser.parse_args()

    # 1. Rows with a prompt, a chosen and a rejected answer; the client is the person who chose.
    data = given.data
    if data is None:
        data = given.out / "clients"
        build(SOURCES["fed-synth-pa"], data, options={"num_clients": "40"}, overwrite=True)

    # 2. DPO's reference is the policy the run starts from, in every round and for every client's own adapter.
    trainer = FederatedTrainer(
        given.model,
        FederatedConfig(
            output_dir=str(given.out / "run"),
            strategy=given.strategy,
            num_rounds=given.rounds,
            cohort_size=8,
            local_steps=4,
        ),
        load_clients(data, "train"),
        DPOConfig(learning_rate=given.learning_rate, per_device_train_batch_size=4, max_length=256, bf16=False),
        LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()

    # 3. `personal` is each client under its own adapter, `policy` under the global one, on pairs neither has seen.
    results = trainer.evaluate(
        settings=ScoreSettings(splits=["test"], max_rows_per_client=20), others=OtherPolicies(base=True, personal=True)
    )
    print(results.markdown())
    print(f"The clients' adapters lie in {given.out / 'run' / 'personal'}; who has which, in clients.json there.")
    print(f"Talk to one: fedllm-train chat {given.out / 'run'} --client ID")


if __name__ == "__main__":
    main()
