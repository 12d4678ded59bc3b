"""The loop: order of arrival, sums, the reference policy, the ledger, who is left out, settings that are refused."""

from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from trl.trainer.utils import selective_log_softmax

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_eval.policy.chat import encode_pair
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import InProcessEngine, replies_of
from fedllm_train.messages import codec
from fedllm_train.schedule import cosine_learning_rate
from fedllm_train.seeds import stream_seed
from fedllm_train.strategies.fedavg import FedAvg
from fedllm_train.strategy import Federation
from fedllm_train.trainer import FederatedTrainer

# -- sums and order -----------------------------------------------------------------------------------------------


class BackwardsEngine(InProcessEngine):
    """Finishes the last client first, as processes may."""

    def submit(self, tasks):
        super().submit(tasks)
        self._done = list(replies_of(super()))

    def take(self):
        return self._done.pop() if self._done else None


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "flexlora"])
def test_permuting_the_clients_and_their_arrival_changes_nothing(kit, tmp_path, strategy):
    ends = []
    for engine_class, turned in ((InProcessEngine, False), (BackwardsEngine, False), (BackwardsEngine, True)):
        sizes = dict(reversed(kit.SIZES.items())) if turned else kit.SIZES
        rows = [row for client_id in sizes for row in kit.make_clients()[client_id]]
        clients = ClientDataset.from_dataset(Dataset.from_list(rows))
        engine = kit.in_process(engine=engine_class)
        run = tmp_path / str(len(ends))
        settings = {"strategy": strategy, "clients": clients, "num_rounds": 2, "local_steps": 1}
        ends.append(kit.make_trainer(run, engine=engine, **settings).train())
    expected, *others = ends
    for state in others:
        for part, tensors in expected.server.items():
            assert adapter_sha256(state.server[part]) == adapter_sha256(tensors)
        assert state.ledger.upload_bytes == expected.ledger.upload_bytes
    assert [[v["client_id"] for v in r["clients"]] for r in kit.records_of(tmp_path / "0")] == [
        [v["client_id"] for v in r["clients"]] for r in kit.records_of(tmp_path / "1")
    ]


def test_fedavg_is_the_row_weighted_mean():
    strategy = FedAvg(Federation(settings=FedAvg.Settings(), seed=0, num_clients=2, cohort_size=2))
    sums = {}
    for values, num_rows in (([1.0, 0.0], 1), ([5.0, 8.0], 3)):
        update = {"adapter": {"w": torch.tensor(values)}}
        strategy.fold(sums, update, strategy.weigh(update, num_rows))
    # (1*1 + 3*5) / 4 = 4 and (1*0 + 3*8) / 4 = 6
    assert strategy.server_step({}, sums, 0)["adapter"]["w"].tolist() == [4.0, 6.0]


def test_learning_rate_follows_the_published_cosine():
    # FedLLM-Bench, T=200, 2e-5 -> 1e-6: rounds 0, 50, 100 and 199.
    rates = [cosine_learning_rate(t, 200, maximum=2e-5, minimum=1e-6) for t in (0, 50, 100, 199)]
    assert rates == pytest.approx([2e-5, 1.72175e-5, 1.05e-5, 1.0012e-6], rel=1e-4)


def test_the_ledger_counts_the_bytes_of_the_messages(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run")
    state = trainer.train()
    message = len(codec.encode(state.server))
    # 4 rounds of 3 clients; names, shapes and precisions never change, so every message is equally long.
    assert state.ledger.download_bytes == state.ledger.upload_bytes == 4 * 3 * message
    assert state.ledger.num_local_steps == 4 * 3 * 2


class RecordingEngine(InProcessEngine):
    """Remembers what each client returned."""

    def __init__(self, host):
        super().__init__(host)
        self.messages = {}

    def take(self):
        reply = super().take()
        if reply is not None:
            self.messages[reply.client_id] = reply.message
        return reply


def test_adding_a_client_changes_no_other_clients_training(kit, tmp_path):
    """The new client comes first in order, so a stream that hung on positions would move."""
    engines = []

    def recording(host):
        engines.append(RecordingEngine(host))
        return engines[-1]

    for sizes in (kit.SIZES, {**kit.SIZES, "aaa": 4}):
        engine = kit.in_process(engine=recording)
        settings = {"clients": kit.make_clients(sizes=sizes), "cohort_size": len(sizes), "num_rounds": 1}
        kit.make_trainer(tmp_path / str(len(sizes)), engine=engine, **settings).train()
    before, after = (engine.messages for engine in engines)
    assert set(after) - set(before) == {"aaa"}
    assert all(after[client_id] == before[client_id] for client_id in before)


def test_streams_differ_in_every_part_of_their_name():
    seeds = {stream_seed(s, p, round_index=r, client_id=c) for s in (0, 1) for p in "xy" for r in (0, 1) for c in "ab"}
    assert len(seeds) == 16


# -- DPO's reference ----------------------------------------------------------------------------------------------


def pair_logps(model, tokenizer, row):
    """Sum of log-probabilities of chosen and rejected, one sequence at a time, by plain torch."""
    ids = encode_pair(tokenizer, row["prompt"], row["chosen"], row["rejected"])
    sums = []
    for completion in (ids["chosen_ids"], ids["rejected_ids"]):
        tokens = torch.tensor([ids["prompt_ids"] + completion])
        with torch.no_grad():
            logits = model(input_ids=tokens).logits[:, :-1]
        logps = selective_log_softmax(logits, tokens[:, 1:])
        sums.append(logps[0, -len(completion) :].sum())
    return torch.stack(sums)


@pytest.mark.parametrize("with_sft_adapter", [False, True])
def test_the_dpo_reference_is_the_starting_policy_in_round_3(kit, tmp_path, with_sft_adapter):
    adapter = None
    if with_sft_adapter:
        kit.make_trainer(tmp_path / "sft").train()
        adapter = str(tmp_path / "sft")
    seen = []

    def look(record):
        if record["round_index"] != 3:
            return
        inner = trainer.loaded.host.resident.trainer
        row = trainer.clients["ann"][0]
        batch = inner.data_collator([encode_pair(trainer.tokenizer, row["prompt"], row["chosen"], row["rejected"])])
        seen.append(torch.stack(inner.compute_ref_log_probs(inner.model, batch))[:, 0])
        seen.append(pair_logps(inner.model, trainer.tokenizer, row))

    trainer = kit.make_trainer(tmp_path / "dpo", "dpo", adapter=adapter, callbacks=[look])
    trainer.train()

    start = kit.make_model()
    if with_sft_adapter:
        start = PeftModel.from_pretrained(start, tmp_path / "sft" / "adapter")
        assert (tmp_path / "dpo" / "start_adapter" / "adapter_model.safetensors").read_bytes() == (
            tmp_path / "sft" / "adapter" / "adapter_model.safetensors"
        ).read_bytes()
    expected = pair_logps(start.eval(), kit.make_tokenizer(), trainer.clients["ann"][0])
    reference, policy = seen
    torch.testing.assert_close(reference, expected, rtol=1e-5, atol=1e-5)
    # The policy itself has moved away by then, so the check could fail.
    assert (policy - expected).abs().max() > 1e-2


def test_a_fresh_adapter_that_is_not_zero_is_part_of_the_reference(kit, tmp_path):
    trainer = FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(tmp_path / "run"), num_rounds=1, cohort_size=2, local_steps=1),
        kit.make_clients("preference"),
        kit.trl_args("dpo"),
        kit.lora(init_lora_weights=False),
        tokenizer=kit.make_tokenizer(),
    )
    row = trainer.clients["ann"][0]
    start = pair_logps(trainer.model.eval(), trainer.tokenizer, row)
    with trainer.model.disable_adapter():
        base = pair_logps(trainer.model, trainer.tokenizer, row)
    assert (start - base).abs().max() > 1e-2  # else this test could not fail
    trainer.train()
    inner = trainer.loaded.host.resident.trainer
    batch = inner.data_collator([encode_pair(trainer.tokenizer, row["prompt"], row["chosen"], row["rejected"])])
    reference = torch.stack(inner.compute_ref_log_probs(inner.model, batch))[:, 0]
    torch.testing.assert_close(reference, start, rtol=1e-5, atol=1e-5)
    # What scores the run later finds the same reference.
    assert (tmp_path / "run" / "start_adapter" / "adapter_config.json").is_file()


def test_an_initialisation_that_changes_the_base_is_refused(kit, tmp_path):
    config = FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=2)
    with pytest.raises(ConfigError, match="init_lora_weights='pissa' may change the base"):
        FederatedTrainer(
            kit.make_model(),
            config,
            kit.make_clients(),
            kit.trl_args("sft"),
            kit.lora(init_lora_weights="pissa"),
            tokenizer=kit.make_tokenizer(),
        )


# -- who takes part -----------------------------------------------------------------------------------------------


def test_local_trains_the_named_client_alone_and_nothing_travels(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "local", strategy="local", local_client="cyd")
    state = trainer.train()
    assert {c["client_id"] for r in kit.records_of(tmp_path / "local") for c in r["clients"]} == {"cyd"}
    assert state.ledger.upload_bytes == state.ledger.download_bytes == 0
    # FedAvg over that client alone does the same steps.
    alone = kit.make_trainer(tmp_path / "fedavg", cohort_size=1, clients=kit.make_clients().select(["cyd"])).train()
    assert adapter_sha256(alone.adapter) == adapter_sha256(state.adapter)


def test_a_client_that_replies_with_a_reason_is_left_out_and_named(kit, tmp_path):
    """What another machine may say; nothing of its training is charged, what it was sent is."""

    def refuse(host):
        visit = host.visit

        def of_bob(task):
            reply = visit(task)
            if task.client_id != "bob":
                return reply
            return replace(reply, message=None, reason="its battery is empty", num_rows=0, facts={})

        host.visit = of_bob

    engine = kit.in_process(refuse)
    trainer = kit.make_trainer(tmp_path / "run", cohort_size=5, num_rounds=1, engine=engine)
    state = trainer.train()
    (record,) = kit.records_of(tmp_path / "run")
    message = len(codec.encode({"adapter": trainer.start_adapter}))
    left_out = {"client_id": "bob", "reason": "its battery is empty", "kind": "refused"}
    assert record["left_out"] == [left_out | {"download_bytes": message, "upload_bytes": 0}]
    assert [each["client_id"] for each in record["clients"]] == ["ann", "cyd", "dan", "eve"]
    assert all(each["download_bytes"] == each["upload_bytes"] == message for each in record["clients"])
    assert (state.ledger.download_bytes, state.ledger.upload_bytes) == (5 * message, 4 * message)
    assert state.ledger.num_local_steps == 4 * 2


def test_an_update_that_is_not_finite_is_noticed(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run")
    broken = {name: torch.full_like(tensor, float("nan")) for name, tensor in trainer.start_adapter.items()}
    reply = trainer.loaded.host.visit(kit.question("ann", {"adapter": broken}))
    assert reply.message is None
    assert "not finite" in reply.reason


# -- settings that cannot be honoured -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cohort_size": 9}, "has 5 clients"),
        ({"strategy": "fedmagic"}, "choose from local, "),
        ({"strategy": "local", "local_client": "zoe"}, "not among the 5 clients"),
        ({"num_rounds": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(kit, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        kit.make_trainer(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "instead"),
    [
        ({"max_steps": 7}, "local_steps"),
        ({"num_train_epochs": 1.0}, "local_epochs"),
        ({"lr_scheduler_type": "cosine"}, "cosine over rounds"),
        ({"eval_strategy": "steps"}, "eval_every"),
        ({"shuffle_dataset": True}, "every round"),
    ],
)
def test_trl_settings_a_federation_owns_are_refused(kit, tmp_path, changes, instead):
    config = FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=2)
    with pytest.raises(ConfigError, match=instead):
        FederatedTrainer(
            kit.make_model(),
            config,
            kit.make_clients(),
            kit.trl_args("sft", **changes),
            kit.lora(),
            tokenizer=kit.make_tokenizer(),
        )


def test_rows_of_the_other_task_are_refused(kit, tmp_path):
    config = FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=2)
    with pytest.raises(ConfigError, match="holds sft rows, which dpo cannot train on"):
        FederatedTrainer(kit.make_model(), config, kit.make_clients("sft"), kit.trl_args("dpo"))


def test_scoring_clients_made_in_memory_says_what_to_do(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run")
    with pytest.raises(ConfigError, match="were made in memory"):
        trainer.evaluate()
