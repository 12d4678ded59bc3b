"""How many steps a visit takes and on which rows: the benchmark's golden values, epochs, and what is refused."""

import random
from types import SimpleNamespace

import pytest

from fedllm_data.errors import ConfigError
from fedllm_train.clients.local_work import LocalWork, local_work
from fedllm_train.config import FederatedConfig


def batches_of(num_rows):
    """What a rule reads of TRL's settings."""
    return SimpleNamespace(train_batch_size=num_rows, gradient_accumulation_steps=1, packing=False)


def work(**settings):
    config = FederatedConfig(output_dir="run", **settings)
    return local_work(config, batches_of(8), num_rounds=config.num_rounds, cohort_size=10, num_clients=747)


def test_the_benchmarks_dynamic_steps():
    # Fed-ChatbotPA: T = 200, S = 10, N = 747, batch 8, 3 epochs. 2,000 / 747 = 2.677 visits; 5 rows: 5.6 / 8 -> 1.
    dynamic = work(num_rounds=200, expected_epochs=3)
    assert [dynamic.num_steps(n) for n in (5, 13, 34, 100)] == [1, 2, 5, 15]


def test_epochs_round_up_to_whole_steps():
    # 10 rows twice are 20 rows, in steps of 8: 3 steps.
    assert work(local_epochs=2).num_steps(10) == 3
    assert work(local_epochs=0.01).num_steps(10) == 1
    assert work(local_steps=7).num_steps(10) == work(local_steps=7).num_steps(10_000) == 7


def test_the_rows_of_a_round_are_those_of_the_released_code():
    rule = work(local_steps=2, round_rows="fedllm-bench")
    for round_index in (0, 1, 199):
        random.seed(round_index)
        expected = random.sample(range(0, 100), 16)
        assert rule.rows_of_round(100, round_index) == expected
    assert sorted(rule.rows_of_round(5, 0)) == [0, 1, 2, 3, 4]  # fewer rows than the steps take: all of them
    assert work(local_steps=2).rows_of_round(100, 0) is None


def test_every_measure_gives_at_least_one_step():
    for rule in ("epochs", "expected_epochs"):
        assert LocalWork(rule=rule, amount=0.1, rows_per_step=64, visits=50.0).num_steps(1) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"local_epochs": 1, "expected_epochs": 2}, "local_epochs and expected_epochs are both given"),
        ({"local_epochs": 1, "local_steps": 5}, "local_steps and local_epochs are both given"),
        ({"local_epochs": 0}, "must be positive"),
        ({"round_rows": "some"}, "must be all or fedllm-bench"),
        ({"expected_epochs": 1, "cohort_rule": "weighted"}, "visits those with more rows more often"),
    ],
)
def test_measures_that_contradict_one_another_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FederatedConfig(output_dir="run", **settings)


def test_epochs_of_a_client_mean_nothing_where_all_rows_are_one_pool(kit, tmp_path):
    with pytest.raises(ConfigError, match="mean nothing there"):
        kit.make_trainer(tmp_path / "run", strategy="centralized", local_epochs=1)
    assert not (tmp_path / "run").exists()


def test_rows_cannot_be_drawn_where_they_are_packed():
    config, packed = FederatedConfig(output_dir="run", round_rows="fedllm-bench"), batches_of(1)
    packed.packing = True
    with pytest.raises(ConfigError, match="packing joins rows"):
        local_work(config, packed, num_rounds=1, cohort_size=1, num_clients=1)


def test_a_run_by_epochs_gives_each_client_its_own_number_of_steps(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", cohort_size=5, num_rounds=1, local_epochs=1.0)
    trainer.train()
    steps = {each["client_id"]: each["num_steps"] for each in kit.records_of(tmp_path / "run")[0]["clients"]}
    # ceil(rows / 4): 7, 3, 12, 5 and 9 rows.
    assert steps == {"ann": 2, "bob": 1, "cyd": 3, "dan": 2, "eve": 3}


def test_a_visit_trains_on_the_drawn_rows_alone(kit, tmp_path, monkeypatch):
    from fedllm_train.clients.resident import ResidentTrainer

    seen, fit = {}, ResidentTrainer.fit

    def watch(resident, start, rows, **settings):
        seen[settings["seed"]] = rows["input_ids"][:]
        return fit(resident, start, rows, **settings)

    monkeypatch.setattr(ResidentTrainer, "fit", watch)
    settings = {"cohort_rule": "fixed", "cohort_clients": "cyd"}
    trainer = kit.make_trainer(tmp_path / "run", num_rounds=1, local_steps=2, round_rows="fedllm-bench", **settings)
    trainer.train()
    random.seed(0)
    expected = random.sample(range(12), 8)
    from fedllm_train.clients.token_cache import encoder_for

    encode = encoder_for(kit.trl_args("sft"), trainer.tokenizer)
    assert list(seen.values()) == [[encode(trainer.clients["cyd"][i])[0]["input_ids"] for i in expected]]
