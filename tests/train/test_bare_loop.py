"""A federated run ends where a bare loop ends that takes the same batches: torch, AdamW, clipping and a mean.

AdamW divides a gradient by its own size, so where it nearly cancels, rounding (another order of sums in TRL's chunked
kernel) comes back larger, in proportion to the learning rate: hence the bound of 1e-6 at a rate of 1e-3.
"""

from math import cos, pi

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid

from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.adapters.live import LiveAdapter

ROUNDS, RATE, BETA = 3, 1e-3, 0.1


def sft_loss(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())


def log_probabilities(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    of_next = logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return (of_next * batch["completion_mask"][:, 1:]).sum(-1).chunk(2)


def dpo_loss(model, batch):
    chosen, rejected = log_probabilities(model, batch)
    with torch.no_grad(), model.disable_adapter():
        reference_chosen, reference_rejected = log_probabilities(model, batch)
    return -logsigmoid(BETA * (chosen - rejected - reference_chosen + reference_rejected)).mean()


@pytest.mark.parametrize(("task", "kernel"), [("sft", "trl"), ("sft", "plain"), ("dpo", "trl")])
def test_a_federated_run_is_within_a_millionth_of_a_bare_loop(kit, tmp_path, task, kernel):
    rounds, batches, visits = [], [], []

    def listen(host):
        step, visit = host.resident.trainer.training_step, host.visit

        def training_step(model, inputs, *args, **kwargs):
            batches.append({name: each.clone() for name, each in inputs.items() if torch.is_tensor(each)})
            return step(model, inputs, *args, **kwargs)

        def noted(task):
            reply = visit(task)
            visits.append((reply.num_rows, list(batches)))
            batches.clear()
            return reply

        host.resident.trainer.training_step, host.visit = training_step, noted

    settings = {"num_rounds": ROUNDS, "cohort_size": 3, "local_steps": 2, "seed": 5, "sft_kernel": kernel}
    trainer = FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(tmp_path / "run"), **settings),
        kit.make_clients("sft" if task == "sft" else "preference"),
        kit.trl_args(task, learning_rate=RATE),
        kit.lora(),
        tokenizer=kit.make_tokenizer(),
        callbacks=[lambda record: rounds.append(list(visits)) or visits.clear()],
        engine=kit.in_process(listen),
    )
    start = trainer.start_adapter
    result = trainer.train().adapter

    bare = kit.make_trainer(tmp_path / "bare", task).model  # another model, of the same seed
    live = LiveAdapter(bare)
    bare.train()
    adapter = start
    for round_index, cohort in enumerate(rounds):
        # From RATE to a twentieth of it by a cosine over the rounds.
        rate = RATE / 20 + (RATE - RATE / 20) * (1 + cos(pi * round_index / ROUNDS)) / 2
        total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in adapter.items()}
        for num_rows, steps in cohort:
            live.load(adapter)
            parameters = [parameter for parameter in bare.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
            for batch in steps:
                (sft_loss if task == "sft" else dpo_loss)(bare, batch).backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad()
            for name, tensor in live.read().items():
                total[name] += num_rows * tensor.double()
        adapter = {name: (sums / sum(n for n, _ in cohort)).float() for name, sums in total.items()}

    assert [len(steps) for cohort in rounds for _, steps in cohort] == [2] * 3 * ROUNDS
    assert result.keys() == adapter.keys()
    for name, tensor in result.items():
        torch.testing.assert_close(tensor, adapter[name], rtol=0, atol=1e-6)
    assert max(float((adapter[name] - start[name]).abs().max()) for name in start) > 1e-3
