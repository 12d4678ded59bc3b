"""fp16's loss scaling, emulated on the CPU: what clients learn is what they learn without it.

The emulation is torch's own scaler in the place where accelerate keeps it, without the half precision: a scale that is
a power of two must then change no bit of any method, and a step that overflows must be as if it had not been.
"""

import shutil
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedllm_train.clients import resident as resident_file
from fedllm_train.clients.loss_scaling import fresh_scaler, loss_scale, true_gradients
from fedllm_train.messages import codec
from fedllm_train.strategies import STRATEGIES

OVERFLOWING = {"init_scale": 2.0**127, "backoff_factor": 2.0**-111}
"""The first scaled loss is infinite; the second step's scale is fp16's usual 65,536."""
ALWAYS_OVERFLOWING = {"init_scale": 2.0**127, "backoff_factor": 0.99}
SETTINGS = {"hetlora": {"hetlora_prune": 0.3}, "fedprox": {"prox_mu": 0.5}, "ditto": {"ditto_lambda": 0.5}}


def scale_losses(resident, **options):
    """Let a resident trainer scale its loss from now on."""
    trainer, scaler = resident.trainer, torch.amp.GradScaler("cpu", **options)

    def clip_grad_norm_(parameters, max_norm, norm_type=2):
        for each in trainer.accelerator._optimizers:
            scaler.unscale_(each.optimizer)
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=norm_type)

    trainer.accelerator.scaler, trainer.accelerator.clip_grad_norm_ = scaler, clip_grad_norm_
    resident.reset_scaler = fresh_scaler(trainer)


@contextmanager
def without_first_steps(trainer):
    """Let a trainer make no use of the gradients of the first step of a training, nor show them to a rule."""
    step = trainer.training_step

    def training_step(model, *rest, **options):
        if trainer.state.global_step > 0:
            return step(model, *rest, **options)
        correct, trainer.correct_gradients = trainer.correct_gradients, None
        loss = step(model, *rest, **options)
        trainer.correct_gradients = correct
        for parameter in model.parameters():
            parameter.grad = None
        return loss

    trainer.training_step = training_step
    yield
    del trainer.training_step


def made(kit, run, name, task="sft"):
    """A trainer whose one client makes two steps a visit."""
    settings = {"num_rounds": 2, "cohort_size": 1, "local_steps": 2, **SETTINGS.get(name, {})}
    clients = kit.make_clients("sft" if task == "sft" else "preference", {"ann": 7})
    return kit.make_trainer(run, task, strategy=name, clients=clients, **settings)


def what_visits_leave(kit, trainer):
    """All that the client sends and keeps: in a round (with Fed-SB two, the first makes its frame) and at the end."""
    shutil.rmtree(trainer.run / "client_memory", ignore_errors=True)
    strategy, state, (client_id,) = trainer.plan.strategy, trainer.loaded.start_state, trainer.plan.participants
    left = []
    num_rounds = 2 if trainer.args.strategy == "fed_sb" else 1
    for t in range(num_rounds + strategy.traits.personal):
        purpose = "train" if t < num_rounds else "personal"
        sent = strategy.broadcast(state, client_id, t)
        reply = trainer.loaded.host.visit(kit.question(client_id, sent, step=t, seed=t, purpose=purpose))
        left.append(reply.message)
        if t < num_rounds:
            update, sums = strategy.opened(codec.decode(reply.message)), {}
            strategy.fold(sums, update, strategy.weigh(update, reply.num_rows))
            state = strategy.server_step(state, sums, t)
    return left + [path.read_bytes() for path in sorted(trainer.run.glob("client_memory/*/*/*"))]


@pytest.mark.parametrize(
    ("name", "task"), [*((name, "sft") for name in STRATEGIES), ("scaffold", "dpo"), ("ffa_lora", "dpo")]
)
def test_a_scaled_loss_changes_no_bit_of_any_method(kit, tmp_path, name, task):
    trainer = made(kit, tmp_path / "run", name, task)
    plain = what_visits_leave(kit, trainer)
    scale_losses(trainer.loaded.host.resident)
    assert what_visits_leave(kit, trainer) == plain


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "scaffold", "ditto", "hetlora", "rolora"])
def test_a_step_that_overflows_is_as_if_it_had_not_been(kit, tmp_path, name):
    trainer = made(kit, tmp_path / "run", name)
    with without_first_steps(trainer.loaded.host.resident.trainer):
        plain = what_visits_leave(kit, trainer)
    scale_losses(trainer.loaded.host.resident, **OVERFLOWING)
    assert what_visits_leave(kit, trainer) == plain


def test_a_client_all_of_whose_steps_overflow_keeps_what_it_had(kit, tmp_path):
    trainer = made(kit, tmp_path / "run", "scaffold")
    scale_losses(trainer.loaded.host.resident, **ALWAYS_OVERFLOWING)
    sent = codec.decode(what_visits_leave(kit, trainer)[0])
    assert all(torch.equal(sent["adapter"][name], tensor) for name, tensor in trainer.start_adapter.items())
    assert not any(bool(tensor.any()) for tensor in sent["control_change"].values())


def test_no_visit_begins_with_the_scale_another_one_ended_with(kit, tmp_path):
    """A run that is resumed, or spread over processes, would end elsewhere."""
    host = made(kit, tmp_path / "run", "fedavg").loaded.host
    resident, rows = host.resident, host.tokens["ann"].rows
    scale_losses(resident, **OVERFLOWING)
    first, second = (
        resident.fit(resident.start_adapter, rows, learning_rate=1e-2, seed=1, num_steps=2)[0] for _ in range(2)
    )
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())


@pytest.fixture
def sums_of(kit, tmp_path, monkeypatch):
    """From a number of steps to the sums of weight gradients over them, and the trainer they are taken with."""
    seen = []
    monkeypatch.setattr(resident_file, "first_step", lambda model, sums, rate: seen.append(dict(sums)) or {})
    host = made(kit, tmp_path / "run", "fed_sb").loaded.host
    resident, rows = host.resident, host.tokens["ann"].rows

    def taken(num_steps):
        resident.first_step(resident.start_adapter, rows, learning_rate=0.5, seed=3, num_steps=num_steps)
        return seen[-1]

    return resident, taken


def test_gradients_of_frozen_weights_are_summed_in_their_true_size(sums_of):
    resident, taken = sums_of
    plain = taken(2)
    # Between two steps the scale grows by 8: a sum of scaled gradients would weigh the steps by it.
    scale_losses(resident, init_scale=2.0**13, growth_interval=1, growth_factor=8.0)
    assert all(torch.equal(plain[module], total) for module, total in taken(2).items())


def test_a_pass_that_overflows_is_left_out_of_the_first_step(sums_of):
    resident, taken = sums_of
    first, both = taken(1), taken(2)
    scale_losses(resident, **OVERFLOWING)
    for module, total in taken(2).items():
        torch.testing.assert_close(total, both[module] - first[module], rtol=1e-4, atol=1e-6)


def test_a_client_all_of_whose_passes_overflow_is_left_out(kit, tmp_path):
    trainer = made(kit, tmp_path / "run", "fed_sb")
    scale_losses(trainer.loaded.host.resident, **ALWAYS_OVERFLOWING)
    sent = trainer.plan.strategy.broadcast(trainer.loaded.start_state, "ann", 0)
    assert "not finite" in trainer.loaded.host.visit(kit.question("ann", sent)).reason


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
    trainer = kit.make_trainer(tmp_path / "run").loaded.host.resident.trainer
    assert loss_scale(trainer) is None
    fresh_scaler(trainer)()
    gradients = {"w": torch.tensor([torch.inf])}
    with true_gradients(None, gradients) as usable:
        assert usable
    assert gradients["w"].tolist() == [torch.inf]
