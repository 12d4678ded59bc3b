"""From a CSV file of your own to an adapter, scored on every client.

    python examples/own_csv_to_adapter.py
    python examples/own_csv_to_adapter.py --csv mine.csv --client agent --columns instruction=asked,response=reply \
        --model HuggingFaceTB/SmolLM2-135M-Instruct --learning-rate 2e-4

Without flags it takes `tickets.csv` beside it (made-up tickets; a client is the agent who answered) and the small base
model that comes with the package, and needs no network. The steps: read the file into a client repo, look at what was
left out, train by FedAvg, score what the training started from and what came of it on held-out rows of every client.
"""

import argparse
from pathlib import Path

from peft import LoraConfig
from trl import SFTConfig

from fedllm_data import load_clients
from fedllm_data.check import check_repo
from fedllm_data.importer import import_files
from fedllm_eval import OtherPolicies
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.models.shipped_base import SHIPPED_BASE

HERE = Path(__file__).parent


def main() -> None:
    """Run the whole way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=HERE / "tickets.csv")
    parser.add_argument("--client", default="agent", help="the column that tells whose row it is (agent)")
    parser.add_argument("--columns", default="instruction=question,response=answer", help="what the columns hold")
    parser.add_argument("--model", default=str(SHIPPED_BASE), help="folder or Hub id (the small base of this package)")
    parser.add_argument("--out", type=Path, default=Path("own_csv"), help="a folder for everything that is made")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="3e-3 suits the small base; 2e-4 a real one")
    given = parser.parse_args()

    # 1. One client for every value of one column. Rows that cannot be used are named in rejected.jsonl, with reasons.
    columns = dict(pair.split("=", 1) for pair in given.columns.split(","))
    built = import_files([given.csv], given.out / "clients", task="sft", client_column=given.client, columns=columns)
    print(f"rows: {built.num_rows}; rejected: {built.facts['counts']['num_rejected']}")
    for problem in check_repo(given.out / "clients"):
        print(problem)

    # 2. Rounds: a few clients are drawn, each trains the adapter on its own rows, the server averages what they send.
    clients = load_clients(given.out / "clients", "train")
    trainer = FederatedTrainer(
        given.model,
        FederatedConfig(
            output_dir=str(given.out / "run"),
            strategy="fedavg",
            num_rounds=given.rounds,
            cohort_size=min(6, len(clients)),
            local_steps=5,
        ),
        clients,
        SFTConfig(learning_rate=given.learning_rate, per_device_train_batch_size=8, max_length=256, bf16=False),
        LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()

    # 3. Held-out rows of the same clients, and clients that never trained, under the base and under the adapter.
    results = trainer.evaluate(others=OtherPolicies(base=True))
    print(results.markdown())
    print(f"Everything lies in {given.out}. Talk to both: fedllm-train chat {given.out / 'run'}")


if __name__ == "__main__":
    main()
