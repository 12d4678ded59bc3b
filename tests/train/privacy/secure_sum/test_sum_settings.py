"""Which settings go with secure sums, and what is refused before anything is loaded."""

import importlib.util
import subprocess
import sys

import pytest

from fedllm_data.errors import ConfigError
from fedllm_data.roster import Roster
from fedllm_train import FederatedConfig
from fedllm_train.prepare import prepare
from fedllm_train.privacy.secure_sum.skellam_guarantee import SkellamGuarantee

PRIVATE = {"dp_clip": 0.5, "dp_delta": 1e-4, "dp_noise_multiplier": 1.0}
SIZES = {f"client-{number}": 10 + number for number in range(20)}
CLOCK = {"client_table": "profile:laptop-home"}


def config(**changes) -> FederatedConfig:
    return FederatedConfig(output_dir="run", **{"secure_sum": True, "cohort_size": 5} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wire": "int8"}, "wire is 'int8' and secure_sum is on: it packs each client's change by scales"),
        ({"wire": "topk", "error_feedback": "ef14"}, "wire is 'topk' and secure_sum is on"),
        ({"max_update_norm": 1.0}, "max_update_norm is 1.0 and secure_sum is on: it measures single updates"),
        (
            {"participation": "buffered", **CLOCK},
            "participation is 'buffered' and secure_sum is on: it makes a step of clients that nobody knows",
        ),
        (
            {"participation": "deadline", "deadline_seconds": 9.0, **CLOCK},
            "participation is 'deadline' and secure_sum",
        ),
        (PRIVATE | {"cohort_rule": "poisson"}, "a server that sees no single update can clip none"),
        ({"secure_sum_skellam": True}, "secure_sum_skellam is on without dp_clip"),
        ({"secure_sum_bits": 16}, "secure_sum_bits is 16; it must be 32 or 64"),
        ({"secure_sum_clip": 0.0}, "secure_sum_clip is 0.0; it must be positive"),
        ({"secure_sum_threshold": 0.5}, "secure_sum_threshold is 0.5; it must be above 0.5"),
        ({"secure_sum_threshold": 1.5}, "secure_sum_threshold is 1.5"),
        ({"secure_sum_fraction_bits": 41}, "secure_sum_fraction_bits is 41; it must lie between 0 and 40"),
        (PRIVATE | {"secure_sum_skellam": True, "cohort_rule": "poisson"}, "a Poisson cohort has none"),
        (PRIVATE | {"secure_sum_skellam": True, "secure_sum_clip": 2.0}, "with secure_sum_skellam dp_clip clips"),
        (PRIVATE | {"secure_sum_skellam": True, "dp_noise_multiplier": 0.0}, "there is no noise to share"),
    ],
)
def test_what_needs_single_updates_or_contradicts_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"secure_sum_bits": 64},
        {"secure_sum_clip": 2.0},
        {"secure_sum_threshold": 0.8},
        {"secure_sum_fraction_bits": 10},
        {"secure_sum_skellam": True},
    ],
)
def test_settings_of_secure_sums_without_one_are_refused(changes):
    (name,) = changes
    with pytest.raises(ConfigError, match=f"{name} is .*, and there is no secure_sum"):
        FederatedConfig(output_dir="run", **changes)


class Client:
    """Stands for TRL's settings."""

    learning_rate, train_batch_size, gradient_accumulation_steps = 1.0, 1, 1


def roster_with(sizes):
    return Roster(name="org/clients", split="train", task="sft", revision="1", sizes=sizes, load_table=lambda: None)


def plan_of(**changes):
    return prepare(config(**changes), roster_with(SIZES), Client())


def test_the_ring_follows_from_the_cohort_and_the_rows():
    sums = plan_of().sums
    assert (sums.max_clients, sums.max_weight, sums.bits, sums.min_clients) == (5, 29, 32, 3)
    assert 5 * 29 * 2**sums.fraction_bits < 2**31 <= 5 * 29 * 2 ** (sums.fraction_bits + 1)
    assert plan_of(uniform_weights=True).sums.max_weight == 1
    assert plan_of(secure_sum_bits=64).sums.fraction_bits == 40
    assert plan_of(secure_sum=False).sums is None


def test_steps_that_would_wrap_are_refused_and_the_most_that_do_not_are_taken():
    found = plan_of().sums.fraction_bits
    assert plan_of(secure_sum_fraction_bits=found).sums.fraction_bits == found
    with pytest.raises(ConfigError, match=r"the ring of 32 bits wraps at 2,147,483,648; use secure_sum_bits 64"):
        plan_of(secure_sum_fraction_bits=found + 1)
    with pytest.raises(ConfigError, match="do not fit a ring of 32 bits; use secure_sum_bits 64"):
        plan_of(secure_sum_clip=1e9)


@pytest.mark.parametrize(
    "changes", [{"cohort_size": 2}, {"cohort_rule": "fixed", "cohort_clients": "client-1,client-2"}]
)
def test_a_cohort_of_two_is_refused(changes):
    with pytest.raises(ConfigError, match="a round has 2 clients and secure_sum is on: a sum of fewer than three"):
        prepare(FederatedConfig(output_dir="run", secure_sum=True, **changes), roster_with(SIZES), Client())


def test_ranks_and_layers_of_their_own_are_refused():
    with pytest.raises(ConfigError, match="secure_sum is on"):
        plan_of(strategy="flora", client_ranks="2,4")


def test_a_poisson_cohort_has_room_for_more_than_are_expected():
    assert plan_of(cohort_rule="poisson").sums.max_clients == 20  # all there are


def test_skellam_noise_makes_the_guarantee_and_sizes_the_ring():
    plan = plan_of(secure_sum_skellam=True, **PRIVATE)
    assert isinstance(plan.guarantee, SkellamGuarantee)
    assert plan.guarantee.noise_multiplier == 1.0
    assert not plan.guarantee.is_sampled
    assert plan.sums.noise > 0
    assert plan.sums.min_clients == plan.guarantee.least_clients == 4
    assert (plan.sums.max_weight, plan.sums.clip) == (1, 0.5)


def test_without_cryptography_it_is_refused_in_one_line(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "cryptography" else real(name)
    )
    with pytest.raises(
        ConfigError, match=r"cryptography, which is not installed; pip install 'fedllm-commons\[secure\]'"
    ):
        plan_of()


def test_a_refusal_imports_no_torch():
    code = (
        "import sys; from fedllm_train.cli import main;"
        "code = main(['sft', '--model', 'none', '--data', 'none', '--output-dir', 'run', '--secure-sum', 'True',"
        " '--wire', 'int8']);"
        "assert code == 2, code; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert "--wire is 'int8' and --secure-sum is on" in done.stderr or "wire is 'int8'" in done.stderr
