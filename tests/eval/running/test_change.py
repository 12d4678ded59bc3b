"""What training changed: paired items, KL against the sum over all answers, loss on held-out text."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch

from fedllm_data.errors import MetricError
from fedllm_eval.policy.models import message_losses, sequence_logps
from fedllm_eval.policy.policies import load_policy
from fedllm_eval.running.change import kl_to_reference, suite_change, text_loss_increase
from fedllm_eval.suites import SuiteResult

from ..conftest import TEXTS, turns


@pytest.fixture(scope="module")
def base(model_folder):
    return load_policy(model_folder, device="cpu")


@pytest.fixture(scope="module")
def tuned(base, make_adapter, tmp_path_factory):
    return load_policy(make_adapter(tmp_path_factory.mktemp("adapters") / "tuned", seed=1), share=base)


def suite(scores, version="1"):
    items = pa.table({"item_id": list(scores), "score": pa.array(scores.values(), pa.float64())})
    return SuiteResult(suite="any", version=version, scores=(), items=items, settings={})


def test_items_are_paired_by_id():
    before = suite({"a": 1.0, "b": 1.0, "c": 0.0, "d": None})
    after = suite({"d": 1.0, "c": 0.0, "b": 0.0, "a": 1.0, "e": 1.0})
    change = suite_change(before, after)
    # a, b, c are scored under both: 0, -1, 0.
    assert change.change.difference == pytest.approx(-1 / 3)
    assert change.change.num_clients == 3
    assert change.lost.fraction == pytest.approx(1 / 3)
    with pytest.raises(MetricError, match="not compared"):
        suite_change(before, suite({"a": 1.0}, version="2"))
    with pytest.raises(MetricError, match="no item has a score"):
        suite_change(before, suite({"z": 1.0}))


def test_a_policy_is_at_no_distance_from_itself(base, tuned):
    for policy in (base, tuned):
        found = kl_to_reference(policy, policy, [turns(text) for text in TEXTS], max_new_tokens=5)
        assert found.per_token == 0.0
        assert 6 <= found.num_tokens <= 30


def test_kl_of_the_first_token_meets_the_sum_over_the_vocabulary(base, tuned):
    prompts = [turns(f"mill {a} {b}") for a, b in itertools.product(range(20), range(10))]
    found = kl_to_reference(tuned, base, prompts, max_new_tokens=1, batch_size=50)
    truth = []
    for prompt in prompts:
        ids = base.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
        with torch.inference_mode():
            logps = []
            for policy in (tuned, base):
                with policy.active() as model:
                    logps.append(model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1))
        truth.append(float((logps[0].exp() * (logps[0] - logps[1])).sum()))
    want = float(np.mean(truth))
    assert want > 0.05
    assert found.num_tokens == found.num_sequences == len(prompts)
    assert found.per_sequence.low < want < found.per_sequence.high


def test_batching_changes_a_kl_by_rounding_only(base, tuned):
    prompts = [turns(text) for text in TEXTS]
    equal = 0
    for seed in range(5):
        one, other = (
            kl_to_reference(tuned, base, prompts, max_new_tokens=6, batch_size=size, seed=seed) for size in (1, 4)
        )
        equal += one.num_tokens == other.num_tokens and abs(one.per_token - other.per_token) < 1e-4
    # A draw that falls on the border of two tokens goes either way; that is rare.
    assert equal >= 4
    assert sequence_logps(base.model, [], 1)[0].size == 0


def test_loss_increase_on_text_is_the_difference_of_losses(base, tuned):
    rows = [{"messages": turns(a, b)} for a, b in zip(TEXTS, TEXTS[::-1], strict=True)]
    found = text_loss_increase(tuned, base, rows, batch_size=2)
    losses = []
    for policy in (tuned, base):
        with policy.active() as model:
            scored = message_losses(model, policy.tokenizer, rows)
        losses.append(scored.nll_sum_N.sum() / scored.num_tokens_N.sum())
    assert found.mean == pytest.approx(losses[0] - losses[1], abs=1e-5)
    assert text_loss_increase(base, base, rows).mean == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(MetricError):
        text_loss_increase(base, tuned, [])
