"""Whole runs with private steps: every method, the same bits after a stop, secrets, counts of steps, what is told."""

import json
import shutil
import stat

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError, ResumeError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.clients.client_memory import client_folder_name
from fedllm_train.clients.row_secret import FitDraws, RowSecret, StepsSpent, fit_key
from fedllm_train.config import FederatedConfig
from fedllm_train.messages import codec
from fedllm_train.privacy.covered import covered_config
from fedllm_train.privacy.row_refusals import ROW_METHODS
from fedllm_train.privacy.secret import ROW_SECRET
from fedllm_train.trainer import FederatedTrainer

SECRET = bytes(range(32))
ROWS = {"dp_unit": "example", "dp_clip": 0.5, "dp_delta": 1e-2}
NOISY = {**ROWS, "dp_noise_multiplier": 1.0}
OF_METHOD = {"fed_sb": {"core_frame": "random"}, "language_clusters": {}, "local": {"local_client": None}}


@pytest.fixture
def known_secret(monkeypatch):
    monkeypatch.setattr("fedllm_train.privacy.secret.draw_secret", lambda: SECRET)


def own_files(run, client_id, name):
    return next(run.glob(f"client_memory/*/{client_folder_name(client_id)}/{name}"))


@pytest.mark.usefixtures("known_secret")
def test_a_visit_made_again_gives_the_same_bits_and_costs_nothing(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", **NOISY)
    host, sent = trainer.loaded.host, {"adapter": trainer.start_adapter}
    first, again = (host.visit(kit.question("ann", sent)) for _ in range(2))
    assert first.message == again.message
    path = own_files(tmp_path / "run", "ann", "row_steps.jsonl")
    assert [json.loads(line)[1] for line in path.read_text().splitlines()] == [2]
    # What is asked with anything else gets other noise, and counts.
    moved = {"adapter": {name: each + 1e-6 for name, each in sent["adapter"].items()}}
    other = host.visit(kit.question("ann", moved))
    start, ends = sent["adapter"], [codec.decode(reply.message)["adapter"] for reply in (first, other)]
    apart = sum(float((ends[0][name] - ends[1][name]).abs().sum()) for name in start)
    assert apart > 0.1  # the noise of one does not cancel that of the other
    assert [json.loads(line)[1] for line in path.read_text().splitlines()] == [2, 2]


@pytest.mark.usefixtures("known_secret")
def test_a_client_makes_no_more_steps_than_are_accounted_for(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", num_rounds=3, **NOISY)
    host = trainer.loaded.host
    for seed in range(3):
        assert host.visit(kit.question("ann", {"adapter": trainer.start_adapter}, seed=seed)).reason is None
    spent = host.visit(kit.question("ann", {"adapter": trainer.start_adapter}, seed=9))
    assert spent.message is None
    assert "made 6 private steps, and 2 more would be beyond the 6" in spent.reason
    assert host.visit(kit.question("bob", {"adapter": trainer.start_adapter}, seed=9)).reason is None


def test_secrets_are_each_clients_own_and_a_lost_one_ends_the_run(kit, tmp_path):
    kit.run_and_stop(tmp_path / "run", after_round=1, cohort_rule="all", **NOISY)
    texts = {path.read_text() for path in (tmp_path / "run").glob(f"client_memory/*/*/{ROW_SECRET}")}
    assert len(texts) == len(kit.SIZES)
    path = own_files(tmp_path / "run", "ann", ROW_SECRET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert not any(text.split()[0] in config for text in texts)
    path.unlink()
    with pytest.raises(ResumeError, match="row_secret is missing or damaged"):
        kit.make_trainer(tmp_path / "run", cohort_rule="all", **NOISY).train(resume=True)


@pytest.mark.parametrize(("task", "strategy", "num_processes"), [("sft", "scaffold", 2), ("dpo", "fedavg", 1)])
def test_a_run_resumed_twice_from_one_stop_reaches_one_end(kit, tmp_path, task, strategy, num_processes):
    base = tmp_path / "base"
    kit.make_model().save_pretrained(base)
    kit.make_tokenizer().save_pretrained(base)
    clients = kit.make_clients("sft" if task == "sft" else "preference")

    def trainer(run, num_processes, callbacks=()):
        config = FederatedConfig(
            output_dir=str(run), num_rounds=3, local_steps=2, cohort_rule="all", seed=5, num_processes=num_processes,
            strategy=strategy, **NOISY,
        )  # fmt: skip
        return FederatedTrainer(
            str(base), config, clients, kit.trl_args(task), kit.lora(lora_dropout=0.1), callbacks=callbacks
        )

    def stop(record):
        if record["round_index"] == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "a", 1, [stop]).train()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    ended = [trainer(tmp_path / name, n).train(resume=True) for name, n in (("a", 1), ("b", num_processes))]
    assert adapter_sha256(ended[0].adapter) == adapter_sha256(ended[1].adapter)
    assert kit.records_of(tmp_path / "a")[-1]["privacy"] == kit.records_of(tmp_path / "b")[-1]["privacy"]


def test_without_noise_a_run_follows_from_its_seed(kit, tmp_path):
    clipped = {**ROWS, "dp_noise_multiplier": 0.0}
    ended = [kit.make_trainer(tmp_path / name, **clipped).train() for name in ("a", "b")]
    assert adapter_sha256(ended[0].adapter) == adapter_sha256(ended[1].adapter)
    told = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["privacy"]
    assert told["epsilon"] is None
    assert told["randomness"] is None


@pytest.mark.parametrize("strategy", [name for name, reason in ROW_METHODS.items() if reason is None])
def test_every_method_that_goes_trains_and_tells_no_loss(kit, tmp_path, strategy):
    settings = {"num_rounds": 2, **NOISY, **OF_METHOD.get(strategy, {})}
    if strategy == "rolora":
        settings["cohort_rule"] = "all"
    trainer = kit.make_trainer(tmp_path / "run", strategy=strategy, **settings)
    state = trainer.train()
    assert all(bool(each.isfinite().all()) for each in state.adapter.values())
    for record in kit.records_of(tmp_path / "run"):
        assert record["train_loss"] is None
        assert record["clients"]
        assert all(not {"train_loss", "mean_token_accuracy", "entropy"} & visit.keys() for visit in record["clients"])
        assert record["privacy"]["unit"] == "example"
    budget = trainer.plan.row_guarantee.privacy
    for path in (tmp_path / "run").glob("client_memory/*/*/row_steps.jsonl"):
        made = sum(json.loads(line)[1] for line in path.read_text().splitlines())
        assert 0 < made <= budget.most_steps(2)


def test_config_card_and_rounds_say_both_units(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", num_rounds=2, dp_rows_per_person=2, **NOISY)
    trainer.train()
    told = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["privacy"]
    assert told["unit"] == "example"
    assert told["units"]["example"] < told["units"]["person"] < told["units"]["client"]
    assert told["by_client"]["smallest"]["num_rows"] == 3
    published = covered_config({"privacy": told}, dataset_is_public=False)["privacy"]
    assert published == {name: value for name, value in told.items() if name != "by_client"}
    records = kit.records_of(tmp_path / "run")
    assert records[0]["privacy"]["epsilon"] < records[1]["privacy"]["epsilon"] == told["epsilon"]
    card = next((tmp_path / "run").glob("*.md")).read_text()
    assert "unit: example (one row of a client)" in card
    assert "for a person with 2 rows of a client" in card
    assert "unit: client" not in card


def test_methods_and_settings_that_do_not_go_are_refused_before_a_model_is_loaded(kit, tmp_path):
    for strategy, words in (("fedkseed", "differences of losses"), ("centralized", "all clients in one place")):
        with pytest.raises(ConfigError, match=words):
            kit.make_trainer(tmp_path / "run", strategy=strategy, **NOISY)
    with pytest.raises(ConfigError, match="core_frame is gradient"):
        kit.make_trainer(tmp_path / "run", strategy="fed_sb", **NOISY)
    with pytest.raises(ConfigError, match="use_dora"):
        kit.make_trainer(tmp_path / "run", peft_config=kit.lora(use_dora=True), **NOISY)
    assert not (tmp_path / "run").exists()


def test_a_client_s_files_of_private_steps_are_checked(tmp_path):
    made = RowSecret(tmp_path, "ann")
    made.draws(fit_key(a=1), num_steps=3, most_steps=5)
    again = RowSecret(tmp_path, "ann")
    assert (
        again.draws(fit_key(a=1), num_steps=3, most_steps=5).seed
        == made.draws(fit_key(a=1), num_steps=3, most_steps=5).seed
    )
    with pytest.raises(StepsSpent, match="made 3 private steps, and 3 more"):
        again.draws(fit_key(a=2), num_steps=3, most_steps=5)
    (tmp_path / client_folder_name("ann") / "row_steps.jsonl").write_text("{")
    with pytest.raises(ResumeError, match="counts the private steps of client 'ann'"):
        RowSecret(tmp_path, "ann")


@pytest.mark.usefixtures("known_secret")
def test_one_row_more_changes_no_other_rows_coin_and_moves_a_step_by_the_clip_alone(kit, tmp_path):
    """Two clients that differ in their last row, with one secret: the same coins, noise and steps for all others."""
    ended = {}
    for name, text in (("ann", "plain"), ("ann", "other")):
        clients = kit.make_clients("sft", {"ann": 7})
        rows = clients.rows.to_list()
        if text == "other":
            rows[-1]["messages"][-1]["content"] = "cat " * 9
        trainer = kit.make_trainer(
            tmp_path / text, clients=ClientDataset.from_dataset(Dataset.from_list(rows)), local_steps=1, num_rounds=1,
            cohort_size=1, **{**NOISY, "dp_noise_multiplier": 0.5},
        )  # fmt: skip
        held = {}
        fit = trainer.loaded.host.resident.fit

        def spied(*args, held=held, fit=fit, **options):
            def keep(gradients, values):
                held.update({key: each.double().clone() for key, each in gradients.items()})

            return fit(*args, **{**options, "correct": keep})

        trainer.loaded.host.resident.fit = spied
        trainer.loaded.host.visit(kit.question(name, {"adapter": trainer.start_adapter}))
        ended[text] = held
    rate = trainer.plan.row_guarantee.privacy.rate(7)
    apart = sum(float((ended["plain"][k] - ended["other"][k]).square().sum()) for k in ended["plain"]) ** 0.5
    assert apart * rate * 7 <= 2 * 0.5 * (1 + 1e-6)  # one row taken away and another added
    assert torch.isfinite(torch.tensor(apart))


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"learning_rate": 0.02}, {"step": 1}, {"purpose": "personal"}, {"num_steps": 1}, {"run": "b"}],
)
@pytest.mark.usefixtures("known_secret")
def test_noise_is_never_the_same_where_anything_that_is_asked_differs(kit, tmp_path, change):
    trainer = kit.make_trainer(tmp_path / "run", strategy="fedavg_ft", **NOISY)
    drawn = []
    draw = RowSecret.draws

    def spied(self, key, **options):
        drawn.append(key)
        return draw(self, key, **options)

    kit_task = {"seed": 3, "run": "a"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowSecret, "draws", spied)
        for asked in ({}, change):
            trainer.loaded.host.visit(kit.question("ann", {"adapter": trainer.start_adapter}, **(kit_task | asked)))
    assert len(set(drawn)) == len(drawn) == 2


def test_coins_fall_at_their_rate_and_one_row_more_moves_no_other_coin():
    draws = FitDraws(SECRET, "fit")
    coins = np.array([draws.coins(step, 400) for step in range(200)])
    for rate in (0.02, 0.25, 0.9):
        hits = (coins < rate).sum()
        spread = (coins.size * rate * (1 - rate)) ** 0.5
        assert abs(hits - coins.size * rate) < 5 * spread
        # Rows are independent of one another: the size of a batch is spread like a binomial.
        sizes = (coins < rate).sum(axis=1)
        assert 0.7 < sizes.var() / (400 * rate * (1 - rate)) < 1.4
    assert (draws.coins(0, 401)[:400] == coins[0]).all()
    assert len(np.unique(coins)) == coins.size


def test_rows_that_are_not_trained_on_count_in_the_rate(kit, tmp_path):
    """The server accounts for the rows that it knows of; a client that drops some takes the others no more often."""
    rows = [*kit.sft_rows("ann", 12)]
    for row in rows[:8]:
        row["messages"][0]["content"] = "rain " * 200  # beyond max_length, so no token is trained
    trainer = kit.make_trainer(
        tmp_path / "run", clients=ClientDataset.from_dataset(Dataset.from_list(rows)), cohort_size=1, **NOISY
    )
    host, rates = trainer.loaded.host, []
    fit = host.resident.fit
    host.resident.fit = lambda *args, **options: rates.append(options["row_steps"].rate) or fit(*args, **options)
    host.visit(kit.question("ann", {"adapter": trainer.start_adapter}))
    assert host.tokens["ann"].rows.num_rows == 4
    assert rates == [trainer.plan.row_guarantee.privacy.rate(12)] == [4 / 12]
