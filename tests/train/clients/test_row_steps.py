"""Private steps against a loop over single rows: gradients, clip, batches, noise, and what breaks the bound."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_train.clients.objectives import DPO_LOSSES
from fedllm_train.clients.row_gradients import row_gradients
from fedllm_train.clients.row_steps import RowSteps
from fedllm_train.config import FederatedConfig
from fedllm_train.privacy.row_privacy import RowPrivacy
from fedllm_train.trainer import FederatedTrainer

PRIVACY = RowPrivacy(clip=0.5, noise_multiplier=0.0, batch_rows=3, num_rounds=1)


class Chosen:
    """Draws that choose given rows at every step, and noise of ones."""

    def __init__(self, *steps):
        self.steps = steps
        self.asked = []

    def coins(self, step, num_rows):
        return np.array([0.0 if row in self.steps[step] else 1.0 for row in range(num_rows)])

    def normals(self, step, name, shape):
        self.asked.append((step, name))
        return np.ones(shape)


def trainer_of(kit, folder, task="sft", *, attention="sdpa", size=2, lora=None, sizes=None, kernel="trl", **changes):
    of_kernel = {"sft_kernel" if task == "sft" else "preference_kernel": kernel}
    model = kit.make_model()
    model.set_attn_implementation(attention)
    return FederatedTrainer(
        model,
        FederatedConfig(output_dir=str(folder), num_rounds=1, cohort_size=1, local_steps=1, seed=5, **of_kernel),
        kit.make_clients("sft" if task == "sft" else "preference", sizes or {"ann": 9}),
        kit.trl_args(
            task, per_device_train_batch_size=size, optim="sgd", max_grad_norm=0.0, learning_rate=1.0, **changes
        ),
        kit.lora(**(lora or {})),
        tokenizer=kit.make_tokenizer(),
    )


def moved_start(federated):
    """An adapter off the start, where B is not zero and every factor has a gradient."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in federated.start_adapter.items()
    }


def rows_of(federated, client_id="ann"):
    host = federated.loaded.host
    return host.resident.with_reference(client_id, host.tokens[client_id].rows)


def gradients_of_rows(federated, start):
    """Every row's gradient alone, by a batch of one and TRL's own loss."""
    resident = federated.loaded.host.resident
    rows, found = rows_of(federated), []
    for index in range(len(rows)):
        one, held = rows.select([index]), Held()
        # A batch of one, so that TRL's own mean loss is the row's.
        resident.fit(start, one, learning_rate=0.0, seed=0, num_steps=1, correct=held)
        found.append(held.gradients)
    return found


class Held:
    """A correction that changes nothing, and remembers the gradients that the optimizer gets."""

    def __call__(self, gradients, values):
        self.gradients = {name: each.double().clone() for name, each in gradients.items()}


def private_step(federated, start, *chosen, privacy=PRIVACY, **options):
    rows = rows_of(federated)
    draws, held = Chosen(*chosen), Held()
    steps = RowSteps(privacy, draws, num_rows=len(rows))
    _, metrics = federated.loaded.host.resident.fit(
        start, rows, learning_rate=0.0, seed=0, num_steps=len(chosen), row_steps=steps, correct=held, **options
    )
    return held.gradients, steps, draws, metrics


def assert_close(made, expected, relative=1e-6):
    """Equal up to a share of the length of the whole gradient."""
    assert made.keys() == expected.keys()
    apart = norm({name: made[name] - expected[name] for name in expected})
    assert apart <= relative * max(norm(expected), 1e-12)


def norm(gradient):
    return float(sum(each.square().sum() for each in gradient.values()).sqrt())


def expected_step(gradients, chosen, privacy, num_rows):
    expected = privacy.rate(num_rows) * num_rows
    total = {name: torch.zeros_like(each) for name, each in gradients[0].items()}
    for index in chosen:
        shorter = min(1.0, privacy.clip / norm(gradients[index]))
        for name, each in gradients[index].items():
            total[name] += shorter * each
    return {name: each / expected for name, each in total.items()}


CASES = [
    ("sft", "sdpa", "trl", {}),
    ("sft", "eager", "trl", {}),
    ("sft", "sdpa", "plain", {}),
    ("sft", "sdpa", "trl", {"activation_checkpointing": True}),
    ("sft", "sdpa", "trl", {"gradient_accumulation_steps": 3}),
    ("dpo", "sdpa", "trl", {}),
    ("dpo", "eager", "trl", {}),
    ("dpo", "sdpa", "plain", {}),
]


@pytest.mark.parametrize(("task", "attention", "kernel", "changes"), CASES, ids=str)
@pytest.mark.parametrize("clip", [1e9, 0.05], ids=["unclipped", "clipped"])
def test_a_step_is_the_sum_of_every_rows_own_clipped_gradient(kit, tmp_path, task, attention, kernel, changes, clip):
    federated = trainer_of(kit, tmp_path, task, attention=attention, kernel=kernel, **changes)
    start = moved_start(federated)
    privacy = dataclasses.replace(PRIVACY, clip=clip)
    chosen = {0, 2, 3, 7, 8}  # three physical batches of rows of different lengths
    made, steps, _, metrics = private_step(federated, start, chosen, privacy=privacy)
    gradients = gradients_of_rows(federated, start)
    assert metrics == {}
    np.testing.assert_allclose(steps.norms, [norm(gradients[index]) for index in sorted(chosen)], rtol=2e-6)
    assert_close(made, expected_step(gradients, chosen, privacy, 9), relative=3e-6)
    if clip < 1:
        assert min(steps.norms) > clip  # every one was shortened


@pytest.mark.parametrize("loss", [name for name in DPO_LOSSES if name not in ("aot", "aot_unpaired", "sft")])
@pytest.mark.parametrize("weighting", [False, True])
def test_every_loss_of_single_pairs_is_exact(kit, tmp_path, loss, weighting):
    if weighting and loss == "hinge":
        pytest.skip("TRL 1.16 weighs the hinge loss in place, which its own backward pass cannot follow")
    smooth = {"label_smoothing": 0.1} if loss in ("exo_pair", "robust") else {}
    federated = trainer_of(kit, tmp_path, "dpo", size=3, loss_type=[loss], use_weighting=weighting, **smooth)
    start = moved_start(federated)
    privacy = dataclasses.replace(PRIVACY, clip=0.02)
    made, _, _, _ = private_step(federated, start, {1, 4, 6, 8}, privacy=privacy)
    expected = expected_step(gradients_of_rows(federated, start), {1, 4, 6, 8}, privacy, 9)
    assert_close(made, expected, relative=5e-6)


@pytest.mark.parametrize("cache", [True, False])
def test_dpo_is_exact_with_a_start_adapter_as_reference_and_without_a_cache(kit, tmp_path, cache):
    kit.make_trainer(tmp_path / "sft", num_rounds=1).train()
    trainer = kit.make_trainer(tmp_path / "run", "dpo", adapter=str(tmp_path / "sft"), reference_cache=cache)
    start = moved_start(trainer)
    privacy = dataclasses.replace(PRIVACY, clip=0.02)
    rows = len(rows_of(trainer))
    made, _, _, _ = private_step(trainer, start, {0, 2, 6}, privacy=privacy)
    assert_close(made, expected_step(gradients_of_rows(trainer, start), {0, 2, 6}, privacy, rows), relative=5e-6)


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_an_empty_batch_is_noise_alone_and_noise_comes_once_a_step(kit, tmp_path, task):
    federated = trainer_of(kit, tmp_path, task)
    start = moved_start(federated)
    privacy = dataclasses.replace(PRIVACY, noise_multiplier=2.0)
    made, _, draws, _ = private_step(federated, start, set(), privacy=privacy)
    for each in made.values():
        torch.testing.assert_close(each, torch.full_like(each, 2.0 * 0.5 / 3), rtol=1e-6, atol=0)
    full, _, many, _ = private_step(federated, start, {0, 1, 2, 3, 4}, privacy=privacy)
    plain, _, _, _ = private_step(federated, start, {0, 1, 2, 3, 4})
    assert len(draws.asked) == len(many.asked) == len(start)  # not once a physical batch
    assert_close({name: full[name] - plain[name] for name in start}, made)


def test_one_row_more_moves_the_sum_by_no_more_than_the_clip(kit, tmp_path):
    federated = trainer_of(kit, tmp_path, size=3)
    start = moved_start(federated)
    for clip in (0.01, 0.3, 5.0):
        privacy = dataclasses.replace(PRIVACY, clip=clip)
        for rest in (set(), {1}, {0, 1, 2, 3}):
            without, _, _, _ = private_step(federated, start, rest, privacy=privacy)
            with_it, _, _, _ = private_step(federated, start, rest | {5}, privacy=privacy)
            moved = 3 * norm({name: with_it[name] - without[name] for name in start})
            assert moved <= clip * (1 + 1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("tokens", [2, 40])  # norms from Gram matrices, and from the products
def test_a_row_that_is_not_finite_or_huge_counts_at_most_the_clip(value, tokens):
    model = toy()
    trained = dict(model.named_parameters())
    x = torch.randn(3, tokens, 8, generator=torch.Generator().manual_seed(1))
    with row_gradients(model, trained) as seen:
        seen.expect(3)
        out = model(x)
        factor = torch.ones_like(out)
        factor[1] = value
        (out * factor).sum().backward()
        total, norms = seen.clipped_sum(0.5, torch.ones(3))
    assert all(bool(each.isfinite().all()) for each in total.values())
    assert norm({name: each.double() for name, each in total.items()}) <= 1.5
    assert not norms[1].isfinite() or norms[1] > 1e20
    assert seen.num_kept == 0


def toy(width=8, rank=6, out=8):
    """A LoRA layer without PEFT around it."""
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.lora_A = torch.nn.ModuleDict({"default": torch.nn.Linear(width, rank, bias=False)})
    model.lora_B = torch.nn.ModuleDict({"default": torch.nn.Linear(rank, out, bias=False)})
    model.forward = lambda x: model.lora_B["default"](model.lora_A["default"](x))
    return model


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 5),
    tokens=st.integers(1, 12),
    calls=st.integers(1, 3),
    parts=st.sampled_from([1, 2]),
    clip=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**16),
)
def test_drawn_batches_equal_a_loop_over_rows(rows, tokens, calls, parts, clip, seed):
    """Layers called several times, rows of several sequences, few and many tokens."""
    generator = torch.Generator().manual_seed(seed)
    model = toy()
    trained = dict(model.named_parameters())
    inputs = [torch.randn(rows * parts, tokens + call, 8, generator=generator) for call in range(calls)]
    scales = torch.rand(rows, generator=generator, dtype=torch.float64) + 0.1

    def losses(xs):
        return sum(model(x).tanh().square().sum(dim=(1, 2)) for x in xs)

    with row_gradients(model, trained) as seen:
        seen.expect(rows, parts)
        losses(inputs).sum().backward()
        total, norms = seen.clipped_sum(clip, scales)
    expected = {name: torch.zeros_like(each, dtype=torch.float64) for name, each in trained.items()}
    for row in range(rows):
        own = [x.reshape(parts, rows, *x.shape[1:])[:, row] for x in inputs]
        gradients = torch.autograd.grad(losses(own).sum() * scales[row], [*trained.values()])
        gradients = dict(zip(trained, (each.double() for each in gradients), strict=True))
        assert float(norms[row]) == pytest.approx(norm(gradients), rel=1e-5)
        for name, each in gradients.items():
            expected[name] += each * min(1.0, clip / norm(gradients))
    for name, each in expected.items():
        torch.testing.assert_close(
            total[name].double(), each, rtol=1e-4, atol=1e-5 * max(1.0, float(each.abs().max()))
        )


def test_nothing_of_a_row_is_kept_after_its_batch(kit, tmp_path):
    federated = trainer_of(kit, tmp_path)
    start = moved_start(federated)
    kept = []
    rows = rows_of(federated)
    steps = RowSteps(PRIVACY, Chosen({0, 1, 2, 3, 4, 5}), num_rows=len(rows))
    resident = federated.loaded.host.resident
    collate = resident.trainer.data_collator

    def watched(batch):
        kept.append(steps.num_kept)
        return collate(batch)

    resident.trainer.data_collator = watched
    resident.fit(start, rows, learning_rate=1.0, seed=0, num_steps=1, row_steps=steps)
    assert len(kept) >= 3  # one for each physical batch, and those that the trainer's loop reads
    assert set(kept) == {0}


@pytest.mark.parametrize(
    "lora",
    [{"use_dora": True}, {"modules_to_save": ["norm"]}],
    ids=str,
)
def test_adapters_whose_rows_have_no_exact_gradient_are_refused(kit, tmp_path, lora):
    federated = trainer_of(kit, tmp_path, lora=lora)
    with pytest.raises(ConfigError, match="dp_unit example"):
        private_step(federated, federated.start_adapter, {0})


@pytest.mark.parametrize("trains", ["lora_A", "lora_B"])
def test_only_what_is_trained_counts_in_a_rows_norm(kit, tmp_path, trains):
    federated = trainer_of(kit, tmp_path)
    start = moved_start(federated)
    gradients = gradients_of_rows(federated, start)
    made, steps, _, _ = private_step(federated, start, {0, 4}, trains=lambda name: trains in name)
    own = [{name: each for name, each in gradients[i].items() if trains in name} for i in (0, 4)]
    np.testing.assert_allclose(steps.norms, [norm(each) for each in own], rtol=2e-6)
    assert all(trains in name for name in made)


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_how_a_logical_batch_is_cut_changes_nothing(kit, tmp_path, size):
    federated = trainer_of(kit, tmp_path, size=size)
    start = moved_start(federated)
    privacy = dataclasses.replace(PRIVACY, clip=0.05)
    made, _, _, _ = private_step(federated, start, {0, 1, 3, 4, 5, 8}, privacy=privacy)
    expected = expected_step(gradients_of_rows(federated, start), {0, 1, 3, 4, 5, 8}, privacy, 9)
    assert_close(made, expected, relative=3e-6)


@pytest.mark.parametrize("company", [{1}, {3, 7}, {0, 1, 2, 3, 5, 6, 7, 8}])
def test_a_rows_share_does_not_depend_on_its_company(kit, tmp_path, company):
    """Longer rows beside it pad it; what it adds is the same."""
    federated = trainer_of(kit, tmp_path, size=9)
    start = moved_start(federated)
    privacy = dataclasses.replace(PRIVACY, clip=0.05)
    alone, _, _, _ = private_step(federated, start, {4}, privacy=privacy)
    without, _, _, _ = private_step(federated, start, company, privacy=privacy)
    together, _, _, _ = private_step(federated, start, company | {4}, privacy=privacy)
    assert_close({name: together[name] - without[name] for name in start}, alone, relative=1e-5)


def test_a_row_without_a_gradient_adds_nothing_and_breaks_nothing():
    model = toy()
    x = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(1))
    x[1] = 0
    with row_gradients(model, dict(model.named_parameters())) as seen:
        seen.expect(3)
        model(x).sum().backward()
        total, norms = seen.clipped_sum(0.1, torch.ones(3))
    assert norms[1] == 0
    assert 0 < norm({name: each.double() for name, each in total.items()}) <= 0.2 * (1 + 1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("tokens", [2, 40])
def test_the_bound_holds_for_gradients_of_any_size(scale, tokens):
    for seed in range(5):
        model = toy()
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(1, tokens, 8, generator=generator)
        with row_gradients(model, dict(model.named_parameters())) as seen:
            seen.expect(1)
            (model(x) * scale).sum().backward()
            total, _ = seen.clipped_sum(0.37, torch.ones(1))
        assert norm({name: each.double() for name, each in total.items()}) <= 0.37


def test_tokens_that_cancel_do_not_hide_a_rows_length():
    """Norms by Gram matrices of tokens that nearly cancel: the length is small, and its error must be, too."""
    model = toy(width=64, rank=48, out=64)
    half = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(2))
    x = torch.cat([half, half * (1 + 1e-4)], dim=1)
    factor = torch.cat([torch.ones(1, 4, 64), -torch.ones(1, 4, 64)], dim=1)
    with row_gradients(model, dict(model.named_parameters())) as seen:
        seen.expect(1)
        (model(x) * factor * 1e3).sum().backward()
        total, norms = seen.clipped_sum(1e-3, torch.ones(1))
    assert norms[0] > 1e-3
    assert norm({name: each.double() for name, each in total.items()}) <= 1e-3 * (1 + 1e-3)


def test_layers_that_do_not_keep_rows_apart_are_refused():
    model = toy()
    with row_gradients(model, dict(model.named_parameters())) as seen:
        seen.expect(2)
        model(torch.randn(2, 3, 8).flatten(0, 1)).sum().backward()  # as an expert of a mixture sees tokens
        with pytest.raises(ConfigError, match="keep rows apart"):
            seen.clipped_sum(1.0, torch.ones(2))
        assert seen.num_kept == 0


def test_a_balancing_loss_over_the_batch_is_refused(kit, tmp_path):
    federated = trainer_of(kit, tmp_path)
    federated.loaded.host.resident.trainer.aux_loss_enabled = True
    with pytest.raises(ConfigError, match="a balancing loss over all rows"):
        private_step(federated, federated.start_adapter, {0})


def test_half_precision_keeps_the_bound(kit, tmp_path):
    federated = trainer_of(kit, tmp_path, bf16=True)
    start = moved_start(federated)
    privacy = dataclasses.replace(PRIVACY, clip=0.01)
    for row in range(4):
        made, steps, _, _ = private_step(federated, start, {row}, privacy=privacy)
        assert steps.norms[0] > 0.01
        assert 3 * norm(made) <= 0.01 * (1 + 1e-6)


def test_dropout_is_the_fits_own_and_the_bound_holds(kit, tmp_path):
    federated = trainer_of(kit, tmp_path, lora={"lora_dropout": 0.5})
    start = moved_start(federated)
    privacy = dataclasses.replace(PRIVACY, clip=0.01)
    made, steps, _, _ = private_step(federated, start, {2}, privacy=privacy)
    assert steps.norms[0] > 0.01
    assert 3 * norm(made) <= 0.01 * (1 + 1e-6)
