"""Evaluation in the loop: what is scored, what is remembered, when a run ends, and that nothing else changes."""

import math

import pytest
from peft import PeftModel

from fedllm_data.errors import ConfigError
from fedllm_eval.per_client import evaluate_policy
from fedllm_train.adapters.arithmetic import adapter_sha256, load_adapter
from fedllm_train.monitoring.held_out import HeldOut, after_score
from fedllm_train.trainer import FederatedTrainer


def make(kit, run, task="sft", *, callbacks=(), **settings):
    """A trainer that scores other rows of the same clients."""
    kind = "sft" if task == "sft" else "preference"
    config = {"num_rounds": 4, "cohort_size": 3, "local_steps": 2, "seed": 5, "eval_every": 1, **settings}
    return FederatedTrainer(
        kit.make_model(),
        kit.FederatedConfig(output_dir=str(run), **config),
        kit.make_clients(kind),
        kit.trl_args(task),
        kit.lora(),
        tokenizer=kit.make_tokenizer(),
        eval_dataset=kit.make_clients(kind, {"ann": 4, "bob": 2, "eve": 3}),
        callbacks=callbacks,
    )


def scores_of(kit, run):
    return [record.get("eval") for record in kit.records_of(run)]


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_scores_are_in_the_record_and_training_is_the_same_to_the_bit(kit, tmp_path, task):
    plain = kit.make_trainer(tmp_path / "plain", task).train()
    scored = make(kit, tmp_path / "scored", task, eval_every=3).train()
    assert adapter_sha256(scored.adapter) == adapter_sha256(plain.adapter)
    first, second, third, last = scores_of(kit, tmp_path / "scored")
    assert first is None
    assert second is None  # the third round is due, and the last always is
    name = "heldout_loss" if task == "sft" else "implicit_reward_accuracy"
    for scores in (third, last):
        assert scores[name]["num_clients"] == 3
        assert scores[name]["ci_low"] <= scores[name]["mean"] <= scores[name]["ci_high"]


class _Loaded:
    """A model from disk in the shape that fedllm_eval scores."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer, self.name = model, tokenizer, "loaded"

    def active(self):
        from contextlib import nullcontext

        return nullcontext(self.model)

    def describe(self):
        return {}


def test_the_scores_are_those_of_the_adapter_on_disk(kit, tmp_path):
    trainer = make(kit, tmp_path / "run", "dpo", eval_every=4)
    trainer.train()
    tuned = PeftModel.from_pretrained(kit.make_model(), tmp_path / "run" / "adapter").eval()
    expected = evaluate_policy(
        _Loaded(tuned, kit.make_tokenizer()),
        kit.make_clients("preference", {"ann": 4, "bob": 2, "eve": 3}),
        reference=_Loaded(kit.make_model().eval(), kit.make_tokenizer()),
        beta=0.1,
        max_length=64,
    ).summary()
    scores = scores_of(kit, tmp_path / "run")[-1]
    for name in ("implicit_reward_loss", "ranking_accuracy"):
        assert scores[name]["mean"] == pytest.approx(expected[name]["mean"], abs=1e-5)
    assert scores["implicit_reward_loss"]["mean"] != pytest.approx(math.log(2), abs=1e-3)  # it did learn something


def losses(monkeypatch, values):
    """Let the scores of the rounds be these."""
    left = list(values)
    score = HeldOut.score

    def instead(held_out, server):
        scores = score(held_out, server)
        value = left.pop(0)
        return (
            {"split": "test"} if value is None else scores | {"heldout_loss": scores["heldout_loss"] | {"mean": value}}
        )

    monkeypatch.setattr(HeldOut, "score", instead)


def test_a_run_stops_when_patience_is_at_its_end_and_keeps_the_best_adapter(kit, tmp_path, monkeypatch):
    losses(monkeypatch, [3.0, 2.0, 2.0, 2.5, 1.0])
    trainer = make(kit, tmp_path / "run", num_rounds=6, early_stopping_patience=2, load_best=True)
    state = trainer.train()
    records = kit.records_of(tmp_path / "run")
    assert [record["monitor"]["num_no_better"] for record in records] == [0, 0, 1, 2]  # an equal score is no better
    assert state.next_round == 4
    best = load_adapter(tmp_path / "run" / "best" / "adapter_model.safetensors")
    assert adapter_sha256(best) == records[1]["adapter_sha256"] == adapter_sha256(state.adapter)
    finished = (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
    assert finished == (tmp_path / "run" / "best" / "adapter_model.safetensors").read_bytes()
    PeftModel.from_pretrained(kit.make_model(), tmp_path / "run" / "best")
    # Resuming a run that is over changes nothing.
    make(kit, tmp_path / "run", num_rounds=6, early_stopping_patience=2, load_best=True).train(resume=True)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes() == finished


def test_without_load_best_the_last_adapter_is_the_runs(kit, tmp_path, monkeypatch):
    losses(monkeypatch, [1.0, 2.0, 2.0, 2.0])
    state = make(kit, tmp_path / "run").train()
    records = kit.records_of(tmp_path / "run")
    assert adapter_sha256(state.adapter) == records[-1]["adapter_sha256"] != records[0]["adapter_sha256"]
    best = load_adapter(tmp_path / "run" / "best" / "adapter_model.safetensors")
    assert adapter_sha256(best) == records[0]["adapter_sha256"]


def test_a_stopped_run_goes_on_to_the_same_best_and_the_same_end(kit, tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        if record["round_index"] == 1:
            raise Stop

    settings = {"early_stopping_patience": 2, "load_best": True, "eval_score": "heldout_loss"}
    make(kit, tmp_path / "whole", **settings).train()
    with pytest.raises(Stop):
        make(kit, tmp_path / "cut", callbacks=[stop], **settings).train()
    make(kit, tmp_path / "cut", **settings).train(resume=True)
    assert scores_of(kit, tmp_path / "cut") == scores_of(kit, tmp_path / "whole")
    for name in ("adapter", "best"):
        files = [tmp_path / run / name / "adapter_model.safetensors" for run in ("whole", "cut")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_the_memory_of_scores():
    kwargs = {"higher_is_better": True, "patience": 2}
    monitor = after_score({}, 0, 0.5, **kwargs)
    monitor = after_score(monitor, 1, None, **kwargs)  # no finite score: no better
    assert (monitor["best_round"], monitor["num_no_better"], monitor["stop"]) == (0, 1, False)
    monitor = after_score(monitor, 2, 0.6, **kwargs)
    assert monitor == {"best_round": 2, "best_value": 0.6, "num_no_better": 0, "stop": False}
    assert after_score({}, 0, None, higher_is_better=True, patience=None)["best_round"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eval_every": None, "load_best": True}, "load_best is given"),
        ({"eval_every": None, "early_stopping_patience": 1}, "early_stopping_patience is given"),
        ({"eval_every": 5}, "nothing would be scored"),
        ({"eval_score": "ranking_accuracy"}, "is not a score of sft rows; choose from heldout_loss"),
        ({"strategy": "ditto"}, "adapters of their own"),
    ],
)
def test_evaluations_that_make_no_sense_are_refused(kit, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(kit, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_clients_in_memory_have_no_held_out_split(kit, tmp_path):
    with pytest.raises(ConfigError, match="pass eval_dataset="):
        kit.make_trainer(tmp_path / "run", eval_every=1)


def test_rows_of_the_other_kind_are_refused(kit, tmp_path):
    with pytest.raises(ConfigError, match="holds preference rows"):
        FederatedTrainer(
            kit.make_model(),
            kit.FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=2, eval_every=1),
            kit.make_clients(),
            kit.trl_args("sft"),
            kit.lora(),
            tokenizer=kit.make_tokenizer(),
            eval_dataset=kit.make_clients("preference"),
        )
