"""A hundred private runs with worst-case canaries: is the epsilon found ever above the one claimed, and how near?

    python benchmarks/audit_epsilon.py --data FED_SYNTH --model TINY --out DIR
    python benchmarks/audit_epsilon.py --data FED_SYNTH --model TINY --out DIR --arms all --runs 20

Every run is a whole one by `FederatedTrainer`: honest clients train, the server clips, adds noise from a secret that
the system gave the run, and releases an adapter. Beside them are canary clients, each in or out by a coin. One that is
in answers every visit with what it was sent, moved by the clip norm along a direction of its own (a Dirac canary, Nasr
et al. 2023, arXiv 2302.07956); one that is out answers with what it was sent. Directions do not overlap. The auditor
has the finished adapter alone: the score of a canary is how far it moved along the canary's direction.

Arms: `all` (everybody in every round), `poisson` (half of the clients, each by a coin), and `false_claim`, where a
fifth of the noise is added that the claim is about, so that the audit must find it. Bounds: `one_run` assumes nothing
of the mechanism (Steinke et al. 2023); `gaussian`, where everybody is in every round, takes scores for normal, which
they are then. Results, a run at a time: `results/audit_epsilon.json`; a run that is there is not made again.
"""

import argparse
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.kept_cells import kept_cells

ARMS: dict[str, dict[str, Any]] = {
    "all": {"cohort_rule": "all", "claimed_share": 1.0},
    "poisson": {"cohort_rule": "poisson", "claimed_share": 1.0},
    "false_claim": {"cohort_rule": "all", "claimed_share": 0.2},
}
"""Name -> who takes part, and the share of the claimed noise that is added."""
CONFIDENCE = 0.95
CLIP = 0.1


def main() -> None:
    """Make the runs that are missing."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="client repo of the honest clients")
    parser.add_argument("--model", type=Path, required=True, help="base model")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; each is removed when audited")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--runs", type=int, default=100, help="of each arm; of false_claim a tenth")
    parser.add_argument("--canaries", type=int, default=1000)
    parser.add_argument("--honest", type=int, default=6, help="honest clients")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epsilon", type=float, default=4.0, help="what a run claims")
    parser.add_argument("--delta", type=float, default=1e-5)
    given = parser.parse_args()

    import torch
    from datasets import disable_progress_bars

    torch.set_num_threads(1)
    disable_progress_bars()
    names = ("canaries", "honest", "rounds", "epsilon", "delta")
    settings = {name: getattr(given, name) for name in names} | {"clip": CLIP, "confidence": CONFIDENCE}
    settings |= {"model": given.model.name, "corpus": given.data.name}
    clients = make_clients(given)
    for arm in given.arms:
        number = given.runs if arm != "false_claim" else max(1, given.runs // 10)
        for seed in range(number):
            with kept_cells("audit_epsilon", settings, f"{arm}-{seed}") as cell:
                if cell is None:
                    continue
                started = time.process_time()
                cell |= one_run(arm, seed, clients, given)
                cell["cpu_seconds"] = round(time.process_time() - started, 2)
                print(arm, seed, {name: cell[name] for name in ("claimed", "one_run", "gaussian", "cpu_seconds")})


def make_clients(given: argparse.Namespace) -> Any:
    """Return honest clients and canaries as one dataset; a canary has one row, which is never trained on."""
    from datasets import Dataset

    from fedllm_data.clients import ClientDataset, load_clients

    train = load_clients(given.data, "train")
    honest = train.select(list(train)[: given.honest])
    rows = [{"client_id": row["client_id"], "messages": row["messages"]} for row in honest.rows]
    turns = rows[0]["messages"]
    rows += [{"client_id": canary_id(number), "messages": turns} for number in range(given.canaries)]
    return ClientDataset.from_dataset(Dataset.from_list(rows))


def canary_id(number: int) -> str:
    """Return what a canary is called.

    >>> canary_id(7)
    'canary-0007'
    """
    return f"canary-{number:04d}"


class WithCanaries:
    """A host whose canary clients answer at once, along directions of their own; it visits the others as ever."""

    def __init__(self, host: Any, directions: Mapping[str, Any], is_in: Mapping[str, bool]) -> None:
        """Take the host, the direction of each canary (values in a flat vector: where, and what), and the coins."""
        self._host, self._directions, self._is_in = host, directions, is_in

    def visit(self, task: Any) -> Any:
        """Answer for a canary, or let the client be visited."""
        import torch

        from fedllm_train.engines.engine import Reply
        from fedllm_train.messages.codec import decode, encode

        if task.client_id not in self._directions:
            return self._host.visit(task)
        adapter = decode(task.message)["adapter"]
        if self._is_in[task.client_id]:
            places, values = self._directions[task.client_id]
            names = sorted(adapter)
            flat = torch.cat([adapter[name].reshape(-1) for name in names])
            flat[places] += CLIP * values
            parts = flat.split([adapter[name].numel() for name in names])
            adapter = {name: part.reshape(adapter[name].shape) for name, part in zip(names, parts, strict=True)}
        facts = {"num_steps": 1, "seconds": 0.0, "train_loss": 0.0}
        message = encode({"adapter": adapter})
        return Reply(step=task.step, client_id=task.client_id, message=message, num_rows=1, facts=facts)


def one_run(arm: str, seed: int, clients: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Train with canaries, and say what the finished adapter gives away."""
    import numpy as np
    import torch
    from peft import LoraConfig
    from trl import SFTConfig

    from fedllm_eval.audit.one_run import one_run_bound
    from fedllm_eval.scoring.gaussian_bound import gaussian_epsilon, lowest_separation
    from fedllm_train import FederatedConfig, FederatedTrainer
    from fedllm_train.engines.engine import InProcessEngine
    from fedllm_train.privacy.accounting import noise_for_epsilon

    rng = np.random.default_rng((seed, sorted(ARMS).index(arm)))
    is_in = {canary_id(number): bool(coin) for number, coin in enumerate(rng.random(given.canaries) < 0.5)}
    cohort_rule = ARMS[arm]["cohort_rule"]
    share = 1.0 if cohort_rule == "all" else 0.5
    claimed_noise = noise_for_epsilon(given.epsilon, given.delta, share, given.rounds)
    noise = claimed_noise * ARMS[arm]["claimed_share"]
    directions: dict[str, Any] = {}

    def engine(spec: Any, make_host: Callable[[], Any]) -> Any:
        return nullcontext(InProcessEngine(WithCanaries(make_host(), directions, is_in)))

    run = given.out / f"{arm}-{seed}"
    shutil.rmtree(run, ignore_errors=True)
    trainer = FederatedTrainer(
        str(given.model),
        FederatedConfig(
            output_dir=str(run),
            num_rounds=given.rounds,
            cohort_rule=cohort_rule,
            **({"cohort_size": len(clients) // 2} if cohort_rule == "poisson" else {}),
            local_steps=1,
            seed=seed,
            dp_clip=CLIP,
            dp_noise_multiplier=noise,
            dp_delta=given.delta,
        ),
        clients,
        SFTConfig(bf16=False, use_cpu=True, activation_checkpointing=False, learning_rate=1e-3, max_length=64),
        LoraConfig(r=2, lora_alpha=4, lora_dropout=0.0, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        engine=engine,
    )
    start = trainer.start_adapter
    names = sorted(start)
    num_values = sum(start[name].numel() for name in names)
    width = num_values // given.canaries
    for number in range(given.canaries):
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], width)).float()
        place = torch.arange(number * width, (number + 1) * width)
        directions[canary_id(number)] = (place, signs / width**0.5)
    guarantee = replace(trainer.guarantee, noise_multiplier=claimed_noise)
    trainer.train()
    end = trainer.state.server["adapter"]
    moved = torch.cat([(end[name].double() - start[name].double()).reshape(-1) for name in names])
    # In units of one clip: an update of every round adds 1, and noise of z clips is along any direction.
    moved *= guarantee.expected_cohort / CLIP / given.rounds
    order = sorted(directions)
    scores = np.array([float(moved[directions[name][0]] @ directions[name][1].double()) for name in order])
    coins = np.array([is_in[name] for name in order])
    bound = one_run_bound(scores, coins, delta=given.delta, confidence=CONFIDENCE, unit="client")
    gaussian = None
    if cohort_rule == "all":
        mu = lowest_separation(scores[coins], scores[~coins], confidence=CONFIDENCE)
        gaussian = gaussian_epsilon(mu, given.delta)
    shutil.rmtree(run)
    return {
        "arm": arm,
        "seed": seed,
        "claimed": round(guarantee.epsilon(given.rounds), 5),
        "noise_multiplier": round(noise, 5),
        "one_run": round(bound.epsilon, 5),
        "largest": round(bound.largest_epsilon, 5),
        "num_correct": bound.num_correct,
        "num_guesses": bound.num_guessed_in + bound.num_guessed_out,
        "gaussian": None if gaussian is None else round(gaussian, 5),
    }


if __name__ == "__main__":
    main()
