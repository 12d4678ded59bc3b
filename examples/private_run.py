"""A run with differential privacy: planned before anything is trained, then audited beside a run without it.

    python examples/private_run.py
    python examples/private_run.py --epsilon 4 --rounds 10

The corpus is generated and the base is the small one of this package, so it needs no network; the accountant
comes with `pip install 'fedllm-commons[privacy]'`. The steps: say what noise the wanted epsilon costs for several
lengths of the run; plant made-up secrets in the rows of some clients; train once without and once with privacy; ask
both adapters how much likelier they find the planted secrets than others of the same form, and whether one can tell
which rows they trained on; compare their held-out losses. Few clients are the hard case: expect privacy to cost most
of the gain.

What the guarantee covers is a whole client, all of its rows at once. An audit can show that something leaks, and never
that nothing does; the guarantee can.
"""

import argparse
import shutil
from pathlib import Path

from peft import LoraConfig
from trl import SFTConfig

from fedllm_data import load_clients
from fedllm_data.build import build
from fedllm_data.pipeline.salt import read_salt
from fedllm_data.sources import SOURCES
from fedllm_eval import ScoreSettings, compare_results
from fedllm_eval.audit.audit_run import audit_run
from fedllm_eval.audit.audit_settings import AuditSettings
from fedllm_eval.audit.planted_repo import CanarySettings, plant_repo
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.models.shipped_base import SHIPPED_BASE
from fedllm_train.privacy.accounting import epsilon_spent, noise_for_epsilon


def main() -> None:
    """Run the whole way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(SHIPPED_BASE), help="folder or Hub id (the small base of this package)")
    parser.add_argument("--epsilon", type=float, default=8.0, help="what the whole run may spend (8)")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("private_run"), help="a folder for everything that is made")
    given = parser.parse_args()

    # 1. A corpus, and a copy of it in which eight clients hold a made-up access code each. Never publish the copy.
    build(SOURCES["fed-synth"], given.out / "clients", options={"num_clients": "24"}, overwrite=True)
    secrets = given.out / "secrets.json"
    secrets.unlink(missing_ok=True)
    shutil.rmtree(given.out / "planted", ignore_errors=True)
    plant_repo(
        given.out / "clients",
        given.out / "planted",
        secrets,
        salt=read_salt(given.out / "salt"),
        settings=CanarySettings(num_canaries=8, copies=40, length=4),
    )
    clients = load_clients(given.out / "planted", "train")

    # 2. The plan. Noise is in multiples of the norm to which each client's update is cut; all clients take part in
    #    every round here, and where only a share does, drawn by chance, the same epsilon needs less of it.
    delta = 0.1 / len(clients)
    print(f"{len(clients)} clients, delta {delta:.2g}. Noise that keeps a run within epsilon {given.epsilon:g}:")
    for rounds in (given.rounds, 4 * given.rounds):
        for share in (1.0, 0.25):
            noise = noise_for_epsilon(given.epsilon, delta, share, rounds)
            half = epsilon_spent(noise, share, rounds // 2, delta)
            print(f"  {rounds} rounds, {share:.0%} of the clients in each: {noise:.2f} ({half:.2f} spent half-way)")

    # 3. The same run twice. Noise comes from a secret of the run, not from its seed.
    guarantee = {"dp_clip": 0.5, "dp_epsilon": given.epsilon, "dp_delta": delta}
    for name, privacy in (("plain", {}), ("private", guarantee)):
        trainer = FederatedTrainer(
            given.model,
            FederatedConfig(
                output_dir=str(given.out / name),
                strategy="fedavg",
                num_rounds=given.rounds,
                cohort_rule="all",
                local_steps=12,
                **privacy,
            ),
            clients,
            SFTConfig(learning_rate=1e-2, per_device_train_batch_size=8, max_length=128, bf16=False),
            LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        trainer.train()
        trainer.evaluate(settings=ScoreSettings(splits=["test"]))

        # 4. What it gives away: rows of the same people that it trained on and did not, and the planted codes.
        settings = AuditSettings(nonmembers="test", secrets=secrets, num_candidates=99, max_rows=150, batch_size=32)
        found = audit_run(given.out / name, given.out / "planted", given.out / f"{name}_audit", settings=settings)
        attack, bits = found["membership"]["attacks"]["calibrated"], found["canaries"]["trained"]["exposure"]
        print(
            f"{name}: members are told from others with AUC {attack['auc']:.2f} [{attack['auc_low']:.2f}, "
            f"{attack['auc_high']:.2f}] (0.5 is guessing); planted codes stand out by {bits['mean_bits']:.1f} bits "
            f"[{bits['low']:.1f}, {bits['high']:.1f}] where chance gives "
            f"{bits['chance_bits']:.1f} and {bits['ceiling_bits']:.1f} is the most"
        )

    # 5. What privacy cost in quality, client by client.
    compared = compare_results([given.out / "plain" / "scores", given.out / "private" / "scores"])
    print("\n".join(item["verdict"] for item in compared["comparisons"] if item["score"] == "heldout_loss"))
    print(f"All findings: {given.out / 'plain_audit' / 'audit.md'} and {given.out / 'private_audit' / 'audit.md'}")


if __name__ == "__main__":
    main()
