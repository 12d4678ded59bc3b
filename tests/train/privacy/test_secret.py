"""The secret of a private run: what noise and cohorts are drawn from, who reads it, how a run resumes with it."""

import os
import shutil
import stat

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from fedllm_data.errors import ResumeError
from fedllm_eval.policy.run_folder import SECRET_FILE
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.privacy.secret import run_secret, secret_normals

PRIVATE = {"cohort_rule": "all", "cohort_size": 5, "num_rounds": 2, "local_steps": 1}
PRIVATE |= {"dp_clip": 0.05, "dp_noise_multiplier": 1.0, "dp_delta": 1e-2}


def flat(adapter):
    return torch.cat([adapter[name].double().flatten() for name in sorted(adapter)])


def test_two_private_runs_with_one_seed_do_not_differ_by_one_clients_update(kit, tmp_path):
    """Drawn from the seed, the noise of both would cancel and leave the update of the client that one run lacks."""
    settings = PRIVATE | {"num_rounds": 1, "seed": 5}
    everybody = kit.make_clients()
    without = everybody.select([client_id for client_id in everybody if client_id != "ann"])
    trainer = kit.make_trainer(tmp_path / "all", **settings)
    all_five = trainer.train().adapter
    four = kit.make_trainer(tmp_path / "four", clients=without, **settings | {"cohort_size": 4}).train().adapter
    start = trainer.start_adapter
    # What was added to the start, times the cohort, is the noisy sum of clipped updates.
    difference = 5 * (flat(all_five) - flat(start)) - 4 * (flat(four) - flat(start))
    clipped = 0.05  # the norm of ann's part at most
    num_values = len(difference)
    assert float(difference.norm()) > 10 * clipped
    # Two independent noises: sqrt(2 d) z C, to within a tenth.
    assert float(difference.norm()) == pytest.approx((2 * num_values) ** 0.5 * 0.05, rel=0.1)


def test_each_run_has_a_secret_of_its_own_that_only_its_owner_reads(kit, tmp_path):
    mask = os.umask(0)
    try:
        adapters = [kit.make_trainer(tmp_path / name, **PRIVATE).train().adapter for name in ("a", "b")]
    finally:
        os.umask(mask)
    assert adapter_sha256(adapters[0]) != adapter_sha256(adapters[1])
    files = [tmp_path / name / SECRET_FILE for name in ("a", "b")]
    assert files[0].read_text() != files[1].read_text()
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().split()[0] not in (path.parent / "config.yaml").read_text()


@pytest.mark.parametrize(
    "changes", [{"dp_clip": None, "dp_noise_multiplier": None, "dp_delta": None}, {"dp_noise_multiplier": 0.0}]
)
def test_a_run_without_noise_has_no_secret_and_the_bits_of_its_seed(kit, tmp_path, changes):
    ends = [kit.make_trainer(tmp_path / name, **PRIVATE | changes).train().adapter for name in ("a", "b")]
    assert adapter_sha256(ends[0]) == adapter_sha256(ends[1])
    assert not (tmp_path / "a" / SECRET_FILE).exists()


def test_a_stopped_run_goes_on_with_the_noise_it_would_have_had(kit, tmp_path):
    settings = PRIVATE | {"num_rounds": 3, "cohort_rule": "poisson", "cohort_size": 3}
    kit.run_and_stop(tmp_path / "cut", after_round=0, **settings)
    shutil.copytree(tmp_path / "cut", tmp_path / "copy")
    ends = [kit.make_trainer(tmp_path / name, **settings).train(resume=True).adapter for name in ("cut", "copy")]
    assert adapter_sha256(ends[0]) == adapter_sha256(ends[1])
    cohorts = [[[v["client_id"] for v in r["clients"]] for r in kit.records_of(tmp_path / n)] for n in ("cut", "copy")]
    assert cohorts[0] == cohorts[1]


def test_a_run_that_is_stopped_in_its_first_round_begins_with_the_same_noise(kit, tmp_path, monkeypatch):
    run = tmp_path / "run"
    trainer = kit.make_trainer(run, **PRIVATE)
    with monkeypatch.context() as patched:
        patched.setattr("fedllm_train.round_plan.save_checkpoint", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    shutil.copytree(run, tmp_path / "copy")
    ends = [kit.make_trainer(tmp_path / name, **PRIVATE).train(resume=True).adapter for name in ("run", "copy")]
    assert adapter_sha256(ends[0]) == adapter_sha256(ends[1])


def test_a_run_that_lost_its_rounds_and_begins_again_draws_another_secret(kit, stopped, tmp_path):
    """With the same noise on other updates, the difference from what was released would show them."""
    run = shutil.copytree(stopped, tmp_path / "run")
    first = (run / SECRET_FILE).read_text()
    shutil.rmtree(run / "checkpoints")
    kit.make_trainer(run, **PRIVATE).train(resume=True)
    assert (run / SECRET_FILE).read_text() != first


def _interrupt(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A private run that was stopped after its first round, to be copied."""
    from tests.train import conftest as kit

    run = tmp_path_factory.mktemp("stopped") / "run"
    kit.run_and_stop(run, after_round=0, **PRIVATE)
    return run


@pytest.mark.parametrize("damage", ["missing", "", "zz", "00" * 31])
def test_a_run_that_lost_its_secret_does_not_go_on(kit, stopped, tmp_path, damage):
    shutil.copytree(stopped, tmp_path / "run")
    path = tmp_path / "run" / SECRET_FILE
    path.unlink()
    if damage != "missing":
        path.write_text(damage)
    with pytest.raises(ResumeError, match="privacy_secret is missing or damaged"):
        kit.make_trainer(tmp_path / "run", **PRIVATE).train(resume=True)


@given(st.data())
def test_no_damage_gives_another_secret(tmp_path_factory, data):
    """One that still reads as hexadecimal would give the rounds that are left other noise."""
    run = tmp_path_factory.mktemp("run")
    secret = run_secret(run, next_round=0, lost_rounds=False)
    written = (run / SECRET_FILE).read_bytes()
    if data.draw(st.booleans(), label="flip"):
        bit = data.draw(st.integers(0, 8 * len(written) - 1))
        changed = bytearray(written)
        changed[bit // 8] ^= 1 << bit % 8
    else:
        changed = written[: data.draw(st.integers(0, len(written) - 1))]
    (run / SECRET_FILE).write_bytes(bytes(changed))
    try:
        assert run_secret(run, next_round=1, lost_rounds=False) == secret
    except ResumeError:
        pass


def test_a_finished_run_needs_its_secret_no_longer(kit, tmp_path):
    before = kit.make_trainer(tmp_path / "run", **PRIVATE).train().adapter
    (tmp_path / "run" / SECRET_FILE).unlink()
    after = kit.make_trainer(tmp_path / "run", **PRIVATE).train(resume=True).adapter
    assert adapter_sha256(before) == adapter_sha256(after)


def test_a_secret_that_a_copy_opened_to_others_is_closed_again(tmp_path):
    secret = run_secret(tmp_path, next_round=0, lost_rounds=False)
    (tmp_path / SECRET_FILE).chmod(0o644)
    assert run_secret(tmp_path, next_round=1, lost_rounds=False) == secret
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600


def test_cohorts_of_a_private_run_do_not_follow_from_its_seed(kit, tmp_path, monkeypatch):
    """The accountant's sampling counts only where nobody can work out who took part."""
    cohorts = []
    for number in range(2):
        monkeypatch.setattr("fedllm_train.privacy.secret.draw_secret", lambda number=number: bytes([number] * 32))
        settings = PRIVATE | {"cohort_rule": "poisson", "cohort_size": 2, "num_rounds": 6}
        kit.make_trainer(tmp_path / str(number), **settings).train()
        cohorts.append([[v["client_id"] for v in r["clients"]] for r in kit.records_of(tmp_path / str(number))])
    assert cohorts[0] != cohorts[1]


def test_the_draws_are_normal_and_independent():
    drawn = secret_normals(b"k" * 32, "noise", round_index=0, name="w", shape=(400, 500))
    assert kstest(drawn.flatten(), "norm").pvalue > 1e-4
    assert abs(float(np.corrcoef(drawn[:-1].flatten(), drawn[1:].flatten())[0, 1])) < 5 / 200_000**0.5
    assert bool(np.isfinite(drawn).all())


@given(shape=st.lists(st.integers(0, 5), max_size=3), round_index=st.integers(0, 9), name=st.text(min_size=1))
def test_a_stream_is_of_its_shape_and_the_same_again(shape, round_index, name):
    first, second = (
        secret_normals(b"k" * 32, "noise", round_index=round_index, name=name, shape=tuple(shape)) for _ in range(2)
    )
    assert first.shape == tuple(shape)
    assert (first == second).all()


def test_a_large_tensor_is_drawn_in_parts_without_repeating_itself(monkeypatch):
    monkeypatch.setattr("fedllm_train.privacy.secret.CHUNK", 8)
    drawn = secret_normals(b"k" * 32, "noise", round_index=0, name="w", shape=(20,))
    assert len(set(drawn.tolist())) == 20
