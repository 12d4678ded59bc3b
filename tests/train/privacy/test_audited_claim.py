"""The claim of a private sum, attacked by worst-case canaries: updates at the clip, along directions of their own."""

import math

import numpy as np
import pytest
import torch

from fedllm_eval.audit.claims import Claim, verdict
from fedllm_eval.audit.one_run import one_run_bound
from fedllm_eval.scoring.gaussian_bound import gaussian_epsilon, lowest_separation
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.aggregation.private import ClientPrivacy, PrivateAggregation
from fedllm_train.aggregation.staleness import ServerStates
from fedllm_train.config import FederatedConfig
from fedllm_train.messages.wire import ServerWire
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.strategies import STRATEGIES
from fedllm_train.strategy import Federation

CANARIES, DELTA, CLIP, ROUNDS = 2000, 1e-6, 0.5, 2


def audited(claimed_noise, added_noise, *, length=CLIP, seed=0):
    """What canaries show of a sum whose noise may be another than it claims; updates may be longer than the clip."""
    pytest.importorskip("dp_accounting")
    guarantee = Guarantee(
        clip=CLIP,
        noise_multiplier=added_noise,
        sampling_rate=1.0,
        expected_cohort=CANARIES,
        delta=DELTA,
        num_rounds=ROUNDS,
    )
    config = FederatedConfig(output_dir="unused", strategy="fedavg")
    federation = Federation(
        settings=config.method, seed=0, num_clients=1, cohort_size=1, eligible=["a"], sizes={"a": 1}
    )
    strategy = STRATEGIES["fedavg"](federation)
    start = {"a": torch.zeros(CANARIES)}
    wire = ServerWire(WireSettings(), seed=0, first=lambda client_id: start)
    inbox = Inbox(strategy=strategy, wire=wire, start_adapter=start, max_norm=None)
    privacy = ClientPrivacy(guarantee=guarantee, secret=bytes([seed]) * 32)
    coins = np.random.default_rng(seed).random(CANARIES) < 0.5
    newest = start
    for step in range(ROUNDS):
        total = PrivateAggregation(inbox, ServerStates(step=step, newest={"adapter": newest}), privacy, anybody="a")
        for place in np.flatnonzero(coins):
            update = newest["a"].clone()
            update[place] += length
            total.add_update({"adapter": {"a": update}})
        newest = total.release()["adapter"]
    scores = newest["a"].double().numpy() * CANARIES / CLIP / ROUNDS
    claim = Claim(epsilon=gaussian_epsilon(math.sqrt(ROUNDS) / claimed_noise, DELTA), delta=DELTA)
    bound = one_run_bound(scores, coins, delta=DELTA, unit="client")
    mu = lowest_separation(scores[coins], scores[~coins])
    return bound, gaussian_epsilon(mu, DELTA), claim


@pytest.mark.parametrize("seed", range(3))
def test_a_true_claim_stands_and_is_nearly_reached(seed):
    bound, gaussian, claim = audited(1.5, 1.5, seed=seed)
    # Deterministic in the secret and the coins: these three are none of the one case in twenty.
    assert verdict({"epsilon": bound.epsilon, "delta": bound.delta}, claim) == "within"
    assert 0.3 * claim.epsilon < bound.epsilon
    assert 0.85 * claim.epsilon < gaussian <= claim.epsilon


def test_a_claim_for_more_noise_than_there_is_falls():
    bound, gaussian, claim = audited(1.5, 0.3)
    assert verdict({"epsilon": bound.epsilon, "delta": bound.delta}, claim) == "above"
    assert gaussian > claim.epsilon


@pytest.mark.parametrize("length", [CLIP * 10, 1e20, CLIP])
def test_no_update_however_long_shows_more_than_one_at_the_clip(length):
    assert audited(1.5, 1.5, length=length)[0] == audited(1.5, 1.5)[0]


def test_the_epsilon_of_the_accountant_is_that_of_the_exact_formula():
    pytest.importorskip("dp_accounting")
    from fedllm_train.privacy.accounting import epsilon_spent

    for noise, rounds in ((1.0, 1), (1.5, 2), (10.0, 100)):
        exact = gaussian_epsilon(math.sqrt(rounds) / noise, 1e-5)
        # The accountant rounds losses up.
        assert exact <= epsilon_spent(noise, 1.0, rounds, 1e-5) <= 1.005 * exact
