"""fp16's loss scaling, emulated on the CPU: what clients learn is what they learn without it.

The emulation is torch's own scaler in the place where accelerate keeps it, without the half precision: a scale that is
a power of two must then change no bit of any method, and a step that overflows must be as if it had not been.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedllm_train.clients import resident as resident_file
from fedllm_train.clients.loss_scaling import fresh_scaler, loss_scale, true_gradients
from fedllm_train.engines.engine import ClientTask
from fedllm_train.messages import codec
from fedllm_train.strategies import STRATEGIES

PLAIN = {}
OVERFLOWING = {"init_scale": 2.0**127, "backoff_factor": 2.0**-111}
"""The first scaled loss is infinite; the second step's scale is fp16's usual 65,536."""
SETTINGS = {"hetlora": {"hetlora_prune": 0.3}, "fedprox": {"prox_mu": 0.5}, "ditto": {"ditto_lambda": 0.5}}


@pytest.fixture
def scaled(monkeypatch):
    """Let trainers that are built from now on scale their loss."""
    build = resident_file.build_trainer

    def begin(**options):
        def built(*args, **kwargs):
            trainer = build(*args, **kwargs)
            scaler = torch.amp.GradScaler("cpu", **options)
            trainer.accelerator.scaler = scaler

            def unscale_gradients(optimizer=None):
                for each in trainer.accelerator._optimizers:
                    scaler.unscale_(each.optimizer)

            def clip_grad_norm_(parameters, max_norm, norm_type=2):
                unscale_gradients()
                return torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=norm_type)

            trainer.accelerator.clip_grad_norm_ = clip_grad_norm_
            return trainer

        monkeypatch.setattr(resident_file, "build_trainer", built)

    return begin


@pytest.fixture
def without_first_steps(monkeypatch):
    """Let trainers that are built from now on make no use of the gradients of the first step of a training."""
    build = resident_file.build_trainer

    def built(*args, **kwargs):
        trainer = build(*args, **kwargs)
        step = trainer.training_step

        def training_step(model, *rest, **options):
            first = trainer.state.global_step == 0
            correct, trainer.correct_gradients = trainer.correct_gradients, None
            if not first:
                trainer.correct_gradients = correct
            loss = step(model, *rest, **options)
            trainer.correct_gradients = correct
            if first:
                for parameter in model.parameters():
                    parameter.grad = None
            return loss

        trainer.training_step = training_step
        return trainer

    return lambda: monkeypatch.setattr(resident_file, "build_trainer", built)


def what_a_run_leaves(kit, run, name, task="sft", **changes):
    """Every tensor a run ends with: the server's state, what clients keep, their own adapters."""
    settings = {"num_rounds": 2 if name == "fed_sb" else 1, "cohort_size": 1, "local_steps": 2, "personal_steps": 2}
    if "personal_steps" not in STRATEGIES[name].traits.settings:
        settings.pop("personal_steps")
    clients = kit.make_clients("sft" if task == "sft" else "preference", {"ann": 7})
    trainer = kit.make_trainer(
        run, task, strategy=name, clients=clients, **settings | SETTINGS.get(name, {}) | changes
    )
    server = trainer.train().server
    (record, *_) = kit.records_of(run)
    assert record["left_out"] == []
    files = sorted([*run.glob("client_memory/*/*.safetensors"), *run.glob("personal/*/*.safetensors")])
    return server, [path.read_bytes() for path in files]


def same(first, second):
    (server_a, files_a), (server_b, files_b) = first, second
    assert server_a.keys() == server_b.keys()
    for part, tensors in server_a.items():
        assert all(torch.equal(tensor, server_b[part][name]) for name, tensor in tensors.items()), part
    assert files_a == files_b


@pytest.mark.parametrize(
    ("name", "task"), [*((name, "sft") for name in STRATEGIES), ("scaffold", "dpo"), ("ffa_lora", "dpo")]
)
def test_a_scaled_loss_changes_no_bit_of_any_method(kit, tmp_path, scaled, name, task):
    plain = what_a_run_leaves(kit, tmp_path / "plain", name, task)
    scaled(**PLAIN)
    same(plain, what_a_run_leaves(kit, tmp_path / "scaled", name, task))


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "scaffold", "ditto", "hetlora", "rolora"])
def test_a_step_that_overflows_is_as_if_it_had_not_been(kit, tmp_path, scaled, without_first_steps, monkeypatch, name):
    with monkeypatch.context():
        without_first_steps()
        plain = what_a_run_leaves(kit, tmp_path / "plain", name)
    monkeypatch.undo()
    scaled(**OVERFLOWING)
    same(plain, what_a_run_leaves(kit, tmp_path / "scaled", name))


def test_a_client_all_of_whose_steps_overflow_keeps_what_it_had(kit, tmp_path, scaled):
    scaled(init_scale=2.0**127, backoff_factor=0.99)
    server, _ = what_a_run_leaves(kit, tmp_path / "run", "scaffold")
    start = kit.make_trainer(tmp_path / "start").start_adapter
    assert all(torch.equal(server["adapter"][name], tensor) for name, tensor in start.items())
    assert not any(bool(tensor.any()) for tensor in server["control"].values())


def test_no_visit_begins_with_the_scale_another_one_ended_with(kit, tmp_path, scaled):
    """A run that is resumed, or spread over processes, would end elsewhere."""
    scaled(**OVERFLOWING)
    after_another, alone = (kit.make_trainer(tmp_path / name)._resident_trainer() for name in ("a", "b"))
    start = after_another._start_adapter

    def fitted(resident, client_id):
        rows = resident._tokens[client_id].rows
        return resident.fit(start, rows, learning_rate=1e-2, seed=1, num_steps=2)[0]

    fitted(after_another, "ann")
    first, second = fitted(after_another, "bob"), fitted(alone, "bob")
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())


def first_steps(kit, run, num_steps=2):
    resident = kit.make_trainer(run, strategy="fed_sb", local_steps=num_steps)._resident_trainer()
    rows = resident._tokens["ann"].rows
    return resident.first_step(resident._start_adapter, rows, learning_rate=0.5, seed=3, num_steps=num_steps)[0]


def test_gradients_of_frozen_weights_are_summed_in_their_true_size(kit, tmp_path, scaled, monkeypatch):
    sums = []
    monkeypatch.setattr(resident_file, "first_step", lambda model, gradients, rate: sums.append(dict(gradients)) or {})
    first_steps(kit, tmp_path / "plain")
    # Between two steps the scale falls by 8: a sum of scaled gradients would weigh the steps by it.
    scaled(init_scale=2.0**13, growth_interval=1, growth_factor=8.0)
    first_steps(kit, tmp_path / "scaled")
    plain, scaled_sums = sums
    assert all(torch.equal(plain[module], total) for module, total in scaled_sums.items())


def test_a_pass_that_overflows_is_left_out_of_the_first_step(kit, tmp_path, scaled, without_first_steps, monkeypatch):
    sums = []
    monkeypatch.setattr(resident_file, "first_step", lambda model, gradients, rate: sums.append(dict(gradients)) or {})
    for num_steps in (1, 2):
        first_steps(kit, tmp_path / str(num_steps), num_steps)
    scaled(**OVERFLOWING)
    first_steps(kit, tmp_path / "scaled")
    one, both, got = sums
    for module, total in got.items():
        torch.testing.assert_close(total, both[module] - one[module], rtol=1e-4, atol=1e-6)


def test_a_client_all_of_whose_passes_overflow_is_left_out(kit, tmp_path, scaled):
    scaled(init_scale=2.0**127, backoff_factor=0.99)
    trainer = kit.make_trainer(tmp_path / "run", strategy="fed_sb")
    sent = trainer._strategy.broadcast(trainer._start_state, "ann", 0)
    task = ClientTask(round_index=0, client_id="ann", message=codec.encode(sent), learning_rate=1e-2, seed=1)
    assert "not finite" in trainer._resident_trainer().train_client(task).reason


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8),
    power=st.integers(0, 24),
    added=st.floats(-1e6, 1e6, width=32),
)
def test_what_is_added_to_a_scaled_gradient_is_what_the_scaler_will_find(values, power, added):
    scale, true = 2.0**power, torch.tensor(values)
    gradients = {"w": true * scale}
    with true_gradients(scale, gradients) as usable:
        assert usable
        assert torch.equal(gradients["w"], (true * scale) / scale)
        gradients["w"].add_(added)
    assert torch.equal(gradients["w"] / scale, (true * scale) / scale + torch.tensor(added))


def test_without_a_scaler_nothing_is_touched(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run")._resident_trainer().trainer
    assert loss_scale(trainer) is None
    fresh_scaler(trainer)()
    gradients = {"w": torch.tensor([torch.inf])}
    with true_gradients(None, gradients) as usable:
        assert usable
    assert gradients["w"].tolist() == [torch.inf]
