"""Who takes part: FedLLM-Bench's draws to the client, the other rules, and what is refused."""

from collections import Counter

import pytest

from fedllm_data.errors import ConfigError
from fedllm_train.config import FederatedConfig
from fedllm_train.participation.cohort_rules import cohort_pool, sample_cohort


def ids(num_clients):
    """Client ids whose alphabetical order is that of their numbers."""
    return [f"{number:04d}" for number in range(num_clients)]


@pytest.mark.parametrize(
    ("num_clients", "size", "rounds"),
    [
        (38, 4, [[2, 16, 24, 26], [4, 8, 16, 36], [3, 5, 10, 23]]),
        (747, 10, [[41, 265, 310, 366, 394, 414, 430, 488, 497, 523]]),
        (50, 3, [[24, 26, 48]]),
        (20, 2, [[12, 13], [4, 18], [1, 2]]),
    ],
)
def test_the_benchmarks_cohorts_come_out_as_its_code_draws_them(num_clients, size, rounds):
    for round_index, expected in enumerate(rounds):
        cohort = sample_cohort(
            ids(num_clients)[::-1], size, seed=99, round_index=round_index, rule="fedllm-bench"
        )  # neither the order of the clients nor the run seed matters
        assert [int(client_id) for client_id in cohort] == expected


def test_clients_with_more_rows_are_drawn_more_often():
    sizes = {"a": 1, "b": 1, "c": 8}
    drawn = Counter(
        sample_cohort(list(sizes), 1, seed=0, round_index=t, rule="weighted", sizes=sizes)[0] for t in range(1000)
    )
    # c holds 8 of 10 rows; 1,000 draws of a coin with p = 0.8 have a standard deviation of 12.6.
    assert abs(drawn["c"] - 800) < 4 * 12.6
    assert abs(drawn["a"] - 100) < 4 * 9.5


def test_a_weighted_cohort_holds_no_client_twice():
    sizes = {"a": 1, "b": 1, "c": 1000}
    for round_index in range(20):
        cohort = sample_cohort(list(sizes), 2, seed=1, round_index=round_index, rule="weighted", sizes=sizes)
        assert len(set(cohort)) == 2


def test_uniform_draws_are_the_same_stream_as_ever():
    """A published run must not change its cohorts with a new version."""
    assert sample_cohort(["a", "b", "c", "d"], 2, seed=0, round_index=0) == ["b", "d"]


def test_fixed_and_all_name_their_own_size():
    everybody = cohort_pool(FederatedConfig(output_dir="run", cohort_rule="all"), ["b", "a"])
    assert everybody == (["a", "b"], 2)
    fixed = FederatedConfig(output_dir="run", cohort_rule="fixed", cohort_clients="b")
    assert cohort_pool(fixed, ["a", "b"]) == (["b"], 1)
    assert sample_cohort(["b"], 1, seed=0, round_index=7, rule="fixed") == ["b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cohort_rule": "best"}, "choose from uniform, weighted"),
        ({"cohort_rule": "fixed"}, "give both or neither"),
        ({"cohort_clients": "a"}, "give both or neither"),
        ({"cohort_rule": "fixed", "cohort_clients": "a,zoe"}, "'zoe', which is not among the 2 clients"),
        ({"cohort_rule": "all", "cohort_size": 7}, "takes 2 clients in every round"),
        ({"cohort_size": 3}, "has 2 clients"),
        ({"cohort_size": 2, "min_clients": 3}, "at most 2 clients take part"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        cohort_pool(FederatedConfig(output_dir="run", **changes), ["a", "b"])


def test_a_run_with_a_fixed_cohort_visits_those_clients_in_every_round(kit, tmp_path):
    settings = {"cohort_rule": "fixed", "cohort_clients": "eve,bob", "num_rounds": 2}
    kit.make_trainer(tmp_path / "run", **settings).train()
    visited = [[each["client_id"] for each in record["clients"]] for record in kit.records_of(tmp_path / "run")]
    assert visited == [["bob", "eve"], ["bob", "eve"]]


def test_poisson_draws_each_client_on_its_own():
    # 40 clients, 10 on average, 400 rounds: every share is 0.25, off by 0.022; sizes differ.
    ids = [f"c{i:02d}" for i in range(40)]
    cohorts = [sample_cohort(ids, 10, seed=1, round_index=index, rule="poisson") for index in range(400)]
    shares = [sum(client_id in cohort for cohort in cohorts) / 400 for client_id in ids]
    assert all(abs(share - 0.25) < 4 * 0.022 for share in shares)
    sizes = [len(cohort) for cohort in cohorts]
    # Binomial(40, 0.25): mean 10, deviation 2.74.
    assert abs(sum(sizes) / 400 - 10) < 4 * 2.74 / 20
    assert max(sizes) - min(sizes) > 10
