"""A run in a tracker: one run with a point a round, also after a resume; and what is said where none is installed."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from fedllm_data.errors import ConfigError
from fedllm_train.monitoring.trackers import check_tracker, open_tracker, round_metrics


def test_tensorboard_gets_one_curve_with_a_point_a_round_across_a_resume(kit, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kit.run_and_stop(tmp_path / "run", after_round=1, report_to="tensorboard")
    kit.make_trainer(tmp_path / "run", report_to="tensorboard").train(resume=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    records = kit.records_of(tmp_path / "run")
    points = events.Scalars("train_loss")
    assert [point.step for point in points] == [0, 1, 2, 3]
    assert [point.value for point in points] == pytest.approx([record["train_loss"] for record in records])
    sent = [point.value for point in events.Scalars("ledger/upload_bytes")]
    assert sent == [record["ledger"]["upload_bytes"] for record in records]
    assert {"learning_rate", "num_clients", "aggregation_error"} <= set(events.Tags()["scalars"])


class Recorder(ModuleType):
    """Stands for a tracker's package: its public functions, written down."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.calls = []

    def init(self, **settings):
        self.calls.append(("init", settings))
        return self

    def log(self, metrics, step):
        self.calls.append(("log", step, metrics))

    def finish(self):
        self.calls.append(("finish",))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_other_trackers_are_spoken_to_by_init_log_and_finish(tmp_path, monkeypatch, name):
    package = Recorder(name)
    monkeypatch.setitem(sys.modules, name, package)
    check_tracker(name)
    for first_round in (0, 1):  # begun, then resumed
        tracker = open_tracker(name, tmp_path, {"seed": 1}, first_round=first_round)
        tracker.log({"train_loss": 2.0}, first_round)
        tracker.finish()
    assert [call[0] for call in package.calls] == ["init", "log", "finish"] * 2
    begun, resumed = package.calls[0][1], package.calls[3][1]
    assert begun == resumed  # the same run of the same project
    assert begun["resume"] == "allow"
    assert begun["config"] == {"seed": 1}
    assert package.calls[4] == ("log", 1, {"train_loss": 2.0})


def test_a_tracker_that_is_not_there_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(ConfigError, match="wandb is not installed; pip install wandb"):
        check_tracker("wandb")
    with pytest.raises(ConfigError, match="choose from none, tensorboard"):
        check_tracker("mlflow")


def test_a_tracker_among_a_clients_own_settings_is_refused(kit, tmp_path):
    from fedllm_train import FederatedConfig, FederatedTrainer

    with pytest.raises(ConfigError, match="would open a run per visit"):
        FederatedTrainer(
            kit.make_model(),
            FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=2),
            kit.make_clients(),
            kit.trl_args("sft", report_to="tensorboard"),
            kit.lora(),
            tokenizer=kit.make_tokenizer(),
        )


def test_metrics_of_a_round_are_its_numbers_and_the_clients_weighted_means():
    record = {
        "round_index": 4,
        "train_loss": None,
        "server_step": True,
        "adapter_sha256": "abc",
        "eval": {"split": "test", "heldout_loss": {"mean": 1.5, "ci_low": None}},
        "clients": [{"client_id": "a", "num_rows": 1, "x": 4.0}, {"client_id": "b", "num_rows": 3, "x": 8.0}],
        "left_out": [],
    }
    # (1 * 4 + 3 * 8) / 4 = 7
    assert round_metrics(record) == {
        "server_step": 1.0,
        "eval/heldout_loss/mean": 1.5,
        "clients/x": 7.0,
        "num_clients": 2.0,
        "num_left_out": 0.0,
    }
