"""Log-probabilities kept between passes: never calculated twice, never taken from a file that is not what it says."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.per_client import evaluate_policy
from fedllm_eval.policy.known_logps import KeptLogps, KeptOfOne
from fedllm_eval.policy.models import load_policy, load_reference


class Rows:
    """Rows that a model has read since it was made."""

    def __init__(self, policy):
        self.num = 0
        base = policy.model.get_base_model() if hasattr(policy.model, "get_base_model") else policy.model
        base.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, given, named):
        self.num += len(named["input_ids"])

    def new(self):
        num, self.num = self.num, 0
        return num


@pytest.fixture
def run(tmp_path, make_run):
    """A policy, its reference (an adapter it started from) and a counter of the rows that their model reads."""
    policy = load_policy(make_run(tmp_path / "run", seed=1, start_seed=2))
    reference = load_reference(policy)
    rows = Rows(policy)
    return policy, reference, rows


def columns(scores):
    return scores.rows.to_pydict()


def test_the_reference_is_read_once_for_all_policies(run, preference_clients):
    policy, reference, rows = run
    plain = evaluate_policy(policy, preference_clients, reference=reference)
    assert rows.new() == 2 * preference_clients.rows.num_rows
    kept = KeptLogps()
    found = evaluate_policy(policy, preference_clients, reference=reference, kept=kept)
    for score in found.score_names:
        expected = pytest.approx(plain.rows[score].to_pylist(), rel=1e-5)
        assert found.rows[score].to_pylist() == expected
    rows.new()
    again = evaluate_policy(reference, preference_clients, reference=reference, kept=kept)
    assert rows.new() == 0
    assert set(again.rows["implicit_reward_margin"].to_pylist()) == {0.0}
    (taken,) = kept.taken()
    assert taken.startswith(f"log-probabilities of {4 * preference_clients.rows.num_rows} sequences under")
    assert taken.endswith("(start adapter)")


def test_what_was_kept_on_disk_is_not_calculated_again(tmp_path, run, preference_clients, sft_clients):
    policy, reference, rows = run
    first = KeptLogps(tmp_path / "kept")
    pairs = evaluate_policy(policy, preference_clients, reference=reference, kept=first)
    losses = evaluate_policy(policy, sft_clients, kept=first)
    first.save()
    rows.new()
    for kept in (KeptLogps(tmp_path / "kept"), KeptLogps(beside=[tmp_path / "kept"])):
        assert columns(evaluate_policy(policy, preference_clients, reference=reference, kept=kept)) == columns(pairs)
        assert columns(evaluate_policy(policy, sft_clients, kept=kept)) == columns(losses)
        assert rows.new() == 0
        assert kept.problems == []


def test_a_sequence_that_is_cut_elsewhere_is_another_one(tmp_path, run, preference_clients):
    policy, _, rows = run
    kept = KeptLogps(tmp_path / "kept")
    evaluate_policy(policy, preference_clients, max_length=64, kept=kept)
    rows.new()
    short = evaluate_policy(policy, preference_clients, max_length=20, kept=kept)
    assert rows.new() > 0
    afresh = evaluate_policy(policy, preference_clients, max_length=20)
    expected = pytest.approx(afresh.rows["chosen_loss"].to_pylist(), rel=1e-6)
    assert short.rows["chosen_loss"].to_pylist() == expected


def damage(path):
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF  # in the first page of keys
    path.write_bytes(bytes(content))


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def forge(path):
    """Other numbers under the old checksum."""
    table = pq.read_table(path)
    numbers = pa.array([0.0] * table.num_rows, pa.float64())
    pq.write_table(table.set_column(1, "logp", numbers), path)


def strip(path):
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)


@pytest.mark.parametrize("spoil", [damage, cut, forge, strip])
def test_a_damaged_file_is_named_and_made_again(tmp_path, run, preference_clients, spoil):
    policy, _, rows = run
    kept = KeptLogps(tmp_path)
    expected = evaluate_policy(policy, preference_clients, kept=kept)
    kept.save()
    (file,) = tmp_path.glob("*.parquet")
    sound = file.read_bytes()
    spoil(file)
    rows.new()
    again = KeptLogps(tmp_path)
    assert columns(evaluate_policy(policy, preference_clients, kept=again)) == columns(expected)
    assert rows.new() == preference_clients.rows.num_rows
    (problem,) = again.problems
    assert str(file) in problem
    assert "made again" in problem
    again.save()
    assert pq.read_table(file).equals(pq.read_table(pa.BufferReader(sound)), check_metadata=True)


def test_a_file_of_another_policy_under_this_name_is_not_used(tmp_path, run, preference_clients):
    policy, reference, rows = run
    places = []
    for one in (policy, reference):
        kept = KeptLogps(tmp_path / one.name.rsplit("/", 1)[-1])
        evaluate_policy(one, preference_clients, kept=kept)
        kept.save()
        places += list(kept.folder.glob("*.parquet"))
    own, other = places
    assert own.name != other.name
    own.write_bytes(other.read_bytes())
    rows.new()
    kept = KeptLogps(own.parent)
    evaluate_policy(policy, preference_clients, kept=kept)
    assert rows.new() == preference_clients.rows.num_rows
    assert "belongs to another policy" in kept.problems[0]


def test_of_one_policy_alone(run, preference_clients):
    policy, reference, _ = run
    kept = KeptLogps()
    evaluate_policy(policy, preference_clients, reference=reference, kept=KeptOfOne(kept, reference))
    assert kept.of(reference).values
    assert not kept.of(policy).values


def test_a_model_made_in_memory_is_kept_nowhere(run, tokenizer):
    from fedllm_eval.policy.policies import Backbone, Policy

    policy, _, _ = run
    assert KeptLogps().of(Policy("mine", Backbone(policy.model, "mine"), tokenizer)) is None


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, run, sft_clients):
    (tmp_path / "file").write_text("")
    kept = KeptLogps(tmp_path / "file")
    evaluate_policy(run[0], sft_clients, kept=kept)
    with pytest.raises(ConfigError, match="name another folder by --cache"):
        kept.save()
