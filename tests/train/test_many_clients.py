"""Registering clients, planning a run of them and drawing its cohorts makes no Python object for each client."""

import gc
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trl import SFTConfig

from fedllm_data.clients import load_clients
from fedllm_data.repo import open_repo
from fedllm_data.roster import roster_of, roster_of_repo
from fedllm_train.config import FederatedConfig
from fedllm_train.participation.cohort_rules import sample_cohort
from fedllm_train.prepare import prepare

FEW, MANY = 20_000, 40_000
SETTINGS = [
    {},
    {"cohort_rule": "weighted"},
    {"cohort_rule": "poisson"},
    {"cohort_rule": "fedllm-bench"},
    {"cohort_rule": "fixed", "cohort_clients": "c000007,c000003"},
    {"strategy": "language_clusters"},
    {"strategy": "fedbiscuit"},
    {"strategy": "flexlora", "client_ranks": "2,4"},
    {"strategy": "flexlora", "client_ranks": "random:2,4"},
]


@pytest.fixture(scope="module")
def repos(tmp_path_factory):
    made = {}
    for number in (FEW, MANY):
        folder = tmp_path_factory.mktemp(f"clients-{number}")
        ids = [f"c{place:06d}" for place in range(number)]
        languages = ["en", "fr"] * (number // 2)
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
        rows = {"client_id": ids, "row_id": ids, "language": languages, "messages": [turns] * number}
        (folder / "data").mkdir()
        (folder / "clients").mkdir()
        pq.write_table(pa.table(rows), folder / "data" / "train-00000-of-00001.parquet", row_group_size=10_000)
        table = pa.table({"client_id": ids, "main_language": languages, "num_train_rows": [1] * number})
        pq.write_table(table, folder / "clients" / "clients-00000-of-00001.parquet", row_group_size=10_000)
        load_clients(folder)  # the cache of `datasets`
        made[number] = folder
    return made


def use(folder, out):
    """Open a repo, plan runs of its clients and draw some cohorts."""
    roster = roster_of(load_clients(folder))
    assert roster_of_repo(open_repo(folder)).sizes.ids == roster.ids
    for changes in SETTINGS:
        config = FederatedConfig(output_dir=str(out), cohort_size=2, **changes)
        plan = prepare(config, roster, SFTConfig(bf16=False, use_cpu=True))
        for index in range(2):
            sample_cohort(
                plan.participants,
                plan.cohort_size,
                seed=0,
                round_index=index,
                rule=config.cohort_rule,
                sizes=roster.sizes,
            )
    return roster


def memory(folder, out):
    """Bytes that Python holds afterwards and held at most, above what it held before."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    roster = use(folder, out)
    gc.collect()
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(roster) in (FEW, MANY)
    return held - before, most - before


def test_twice_the_clients_take_no_more_memory(repos, tmp_path):
    use(repos[FEW], tmp_path)  # imports, and what is remembered for good
    few, many = (memory(repos[number], tmp_path) for number in (FEW, MANY))
    # A dict of 20,000 more ids and numbers would take more than two million bytes; a byte of each is allowed.
    assert many[0] - few[0] < MANY - FEW
    # At most two blocks of clients are looked at together, whatever their number; both sizes have more than one.
    assert many[1] - few[1] < 10 * (MANY - FEW)
