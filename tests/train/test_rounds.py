"""The loop: order of arrival, sums, the reference policy, the ledger, who is left out, settings that are refused."""

import pytest
import torch
from peft import PeftModel
from trl.trainer.utils import selective_log_softmax

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.chat import encode_pair
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.clients.resident import ResidentTrainer
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import ClientUpdate, InProcessEngine, LeftOut, in_client_order
from fedllm_train.messages import codec
from fedllm_train.messages.ledger import Ledger
from fedllm_train.rounds import RunPlan, RunState, run_round
from fedllm_train.schedule import cosine_learning_rate
from fedllm_train.seeds import stream_seed
from fedllm_train.strategies import make_strategy
from fedllm_train.strategies.fedavg import FedAvg
from fedllm_train.strategy import Federation
from fedllm_train.trainer import FederatedTrainer

# -- sums and order -----------------------------------------------------------------------------------------------


class BackwardsEngine(InProcessEngine):
    """Finishes the last client first, as processes may."""

    def run(self, tasks):
        yield from reversed(list(super().run(tasks)))


def one_round(trainer, tmp_path, make_engine, client_ids):
    resident = trainer._resident_trainer()
    plan = RunPlan(
        config=trainer.args,
        client_ids=client_ids,
        cohort_size=trainer.args.cohort_size,
        strategy=make_strategy(trainer.args, trainer.clients),
        engine=make_engine(resident.train_client),
        learning_rate=1e-2,
        min_learning_rate=0.0,
        run=tmp_path,
        spool=tmp_path,
        memory=trainer._memory,
        upload=trainer._upload,
    )
    return run_round(plan, RunState(next_round=0, server={"adapter": trainer.start_adapter}, ledger=Ledger()))


def test_permuting_the_clients_and_their_arrival_changes_nothing(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run")
    ids = list(trainer.clients)
    expected, _ = one_round(trainer, tmp_path, InProcessEngine, ids)
    for engine_class, order in ((BackwardsEngine, ids), (InProcessEngine, ids[::-1]), (BackwardsEngine, ids[::-1])):
        state, _ = one_round(trainer, tmp_path, engine_class, order)
        assert adapter_sha256(state.adapter) == adapter_sha256(expected.adapter)
        assert state.ledger.upload_bytes == expected.ledger.upload_bytes


def update(client_id, message=b"m"):
    return ClientUpdate(
        client_id=client_id, message=message, num_rows=1, num_dropped_rows=0, num_steps=1, metrics={}, seconds=0.0
    )


def test_early_updates_wait_on_disk_and_come_out_in_client_order(tmp_path):
    arrivals = [update("c", b"3"), LeftOut(client_id="b", reason="why"), update("d", b"4"), update("a", b"1")]
    ordered, waiting_messages = [], []
    for result in in_client_order(iter(arrivals), ["a", "b", "c", "d"], tmp_path):
        waiting_messages.append(len(list(tmp_path.iterdir())))
        ordered.append(result)
    assert [result.client_id for result in ordered] == ["a", "b", "c", "d"]
    assert [result.message for result in ordered if isinstance(result, ClientUpdate)] == [b"1", b"3", b"4"]
    assert waiting_messages[0] == 2  # c and d lie on disk while a is folded
    assert not list(tmp_path.iterdir())


def test_fedavg_is_the_row_weighted_mean():
    strategy = FedAvg(Federation(config=FederatedConfig(output_dir="unused"), client_ids=["a", "b"], sizes={}))
    sums = {}
    strategy.fold(sums, {"adapter": {"w": torch.tensor([1.0, 0.0])}}, 1)
    strategy.fold(sums, {"adapter": {"w": torch.tensor([5.0, 8.0])}}, 3)
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

    def run(self, tasks):
        self.messages = {}
        for result in super().run(tasks):
            self.messages[result.client_id] = result.message
            yield result


def test_adding_a_client_changes_no_other_clients_training(kit, tmp_path):
    """The new client comes first in order, so a stream that hung on positions would move."""
    messages = []
    for sizes in (kit.SIZES, {**kit.SIZES, "aaa": 4}):
        clients = kit.make_clients(sizes=sizes)
        trainer = kit.make_trainer(tmp_path / str(len(sizes)), clients=clients, cohort_size=len(sizes), num_rounds=1)
        engine = RecordingEngine(trainer._resident_trainer().train_client)
        one_round(trainer, tmp_path, lambda _, engine=engine: engine, list(clients))
        messages.append(engine.messages)
    before, after = messages
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
        inner = trainer._resident.trainer
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
    inner = trainer._resident.trainer
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


def test_a_client_with_an_infinite_update_is_left_out_and_named(kit, tmp_path, monkeypatch):
    trainer = kit.make_trainer(tmp_path / "run", cohort_size=5, num_rounds=1)
    train_client = ResidentTrainer.train_client

    def spoil(resident, task):
        result = train_client(resident, task)
        if task.client_id != "bob":
            return result
        return LeftOut(client_id="bob", reason="its update is not finite; lower the learning rate")

    monkeypatch.setattr(ResidentTrainer, "train_client", spoil)
    trainer.train()
    record = kit.records_of(tmp_path / "run")[0]
    assert [each["client_id"] for each in record["left_out"]] == ["bob"]
    assert [each["client_id"] for each in record["clients"]] == ["ann", "cyd", "dan", "eve"]


def test_an_update_that_is_not_finite_is_noticed(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run")
    resident = trainer._resident_trainer()
    from fedllm_train.engines.engine import ClientTask

    broken = {name: torch.full_like(tensor, float("nan")) for name, tensor in trainer.start_adapter.items()}
    task = ClientTask(
        round_index=0, client_id="ann", message=codec.encode({"adapter": broken}), learning_rate=1e-2, seed=0
    )
    result = resident.train_client(task)
    assert isinstance(result, LeftOut)
    assert "not finite" in result.reason


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
