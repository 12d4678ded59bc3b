"""Artificial partitions: the same rows in the same splits, clients as the rule says, and another sound client repo."""

import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedllm_data.build import build
from fedllm_data.check import check_repo
from fedllm_data.clients import load_clients
from fedllm_data.errors import ConfigError, PartitionError, SchemaError
from fedllm_data.partition.make import partition
from fedllm_data.partition.rules import PartitionRule, deal_rows
from fedllm_data.profiles import open_splits
from fedllm_data.source import Filters, SourceRow

IID = PartitionRule(name="iid")
RULES = [
    IID,
    PartitionRule(name="dirichlet", alpha=0.3),
    PartitionRule(name="dirichlet", alpha=1.0, column="num_rows"),
    PartitionRule(name="dirichlet", alpha=1.0, column="main_language"),
    PartitionRule(name="dirichlet", alpha=1.0, column="client_id"),
    PartitionRule(name="dirichlet", alpha=1.0, column="cluster", num_clusters=3),
    PartitionRule(name="quantity", skew=1.2),
    PartitionRule(name="clusters", num_clusters=4),
    PartitionRule(name="clusters", num_clusters=4, alpha=0.5),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("partition")


@pytest.fixture
def repo(place, make_source, many_rows):
    """40 clients with 3 to 9 rows and public rows."""
    if not (place / "repo").exists():
        public = [SourceRow(row | {"row_id": f"public-{row['row_id']}"}, "m", 1, is_public=True) for row in many_rows]
        build(make_source([*many_rows, *public[:50]]), place / "repo", seed=1, unfiltered=True)
    return place / "repo"


def rows_of(folder):
    """What must stay the same: split, id and texts of every row; and apart from it the client of each."""
    stay, clients = {}, {}
    for path in sorted(folder.glob("data/*.parquet")):
        for row in pq.ParquetFile(path).read().to_pylist():
            key = (path.name.split("-")[0], row["row_id"])
            assert key not in stay
            clients[key] = row.pop("client_id")
            stay[key] = row
    return stay, clients


def sizes_of(clients, split):
    return Counter(client for (where, _), client in clients.items() if where == split)


def ranked(sizes):
    return sorted(sizes.values(), reverse=True)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}-{rule.column or ''}-{rule.alpha or ''}")
def test_every_row_keeps_its_id_its_texts_and_its_split(repo, tmp_path, rule):
    result = partition(repo, tmp_path / "out", rule, seed=3)
    assert check_repo(tmp_path / "out") == []
    (before, natural), (after, clients) = rows_of(repo), rows_of(tmp_path / "out")
    assert after == before
    assert {client for key, client in clients.items() if key[0] == "public"} == {"public"}
    assert all(client.startswith(f"{rule.name}-0") for key, client in clients.items() if key[0] != "public")
    trained = set(sizes_of(clients, "train")) | set(sizes_of(clients, "test"))
    assert trained.isdisjoint(sizes_of(clients, "unseen"))
    assert sorted([*trained, *sizes_of(clients, "unseen")]) == [f"{rule.name}-{i:04d}" for i in range(1, 41)]
    assert result.num_rows == {split: sum(sizes_of(natural, split).values()) for split in result.num_rows}


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.name != "quantity"], ids=lambda rule: rule.name)
def test_without_a_number_of_clients_sizes_are_those_of_the_parent_in_each_split(repo, tmp_path, rule):
    partition(repo, tmp_path / "out", rule)
    (_, natural), (_, clients) = rows_of(repo), rows_of(tmp_path / "out")

    def pairs(owners):
        names = set(owners.values()) - {"public"}
        return sorted(tuple(sizes_of(owners, split)[name] for split in ("train", "test", "unseen")) for name in names)

    assert pairs(clients) == pairs(natural)


def test_a_report_knows_the_filter_of_clients_that_have_natural_sizes(tmp_path, make_source, many_rows):
    build(make_source(many_rows), tmp_path / "repo", filters=Filters(min_rows=3))
    assert open_splits(tmp_path / "repo")[1] == 3
    partition(tmp_path / "repo", tmp_path / "same", IID, one_split=True)
    partition(tmp_path / "repo", tmp_path / "chance", IID, random_sizes=True)
    partition(tmp_path / "repo", tmp_path / "skewed", PartitionRule(name="quantity", skew=1.0))
    partition(tmp_path / "chance", tmp_path / "again", IID)
    least = {name: open_splits(tmp_path / name)[1] for name in ("same", "chance", "skewed", "again")}
    assert least == {"same": 3, "chance": 1, "skewed": 1, "again": 1}


def test_the_record_names_rule_settings_seed_and_parent(repo, tmp_path):
    parent = json.loads((repo / "build.json").read_bytes())
    rule = PartitionRule(name="clusters", num_clusters=3, alpha=0.5)
    facts = partition(repo, tmp_path / "out", rule, num_clients=7, seed=5).facts
    assert facts == json.loads((tmp_path / "out" / "build.json").read_bytes())
    assert facts["name"] == "fed-test-clusters"
    assert facts["partition"] == {
        "rule": "clusters",
        "parameters": {
            "alpha": 0.5,
            "column": "cluster",
            "num_clusters": 3,
            "encoder": "hashed-ngrams-v1",
            "num_clients": 7,
        },
        "seed": 5,
        "parent": {"name": "fed-test", "revision": load_clients(repo).revision},
    }
    for unchanged in ("licence", "attribution", "counts", "split_counts", "languages", "seed"):
        assert facts[unchanged] == parent[unchanged]
    # 7 training clients, and unseen clients in the proportion of the parent.
    unseen, trained = parent["splits"]["unseen"]["num_clients"], parent["splits"]["train"]["num_clients"]
    assert facts["clients"]["num_clients"] == 7 + max(1, round(7 * unseen / trained))
    assert "artificial" in (tmp_path / "out" / "NOTICE").read_text()
    twice = partition(tmp_path / "out", tmp_path / "twice", IID).facts["partition"]
    assert twice["parent"]["partition"] == facts["partition"]


@pytest.mark.parametrize("rule", [IID, RULES[1], RULES[6], RULES[8]], ids=lambda rule: rule.name)
def test_the_seed_decides_every_byte(repo, tmp_path, digest, rule):
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        partition(repo, tmp_path / name, rule, seed=seed)
    assert digest(tmp_path / "one") == digest(tmp_path / "again") != digest(tmp_path / "other")


def test_a_number_of_clients_gives_equal_sizes(repo, tmp_path):
    partition(repo, tmp_path / "out", IID, num_clients=6)
    _, clients = rows_of(tmp_path / "out")
    for split in ("train", "test"):
        sizes = ranked(sizes_of(clients, split))
        assert len(sizes) == 6
        assert sizes[0] - sizes[-1] <= 1
    assert sizes_of(clients, "train")["iid-0007"] == 0


def test_one_split_takes_every_row_to_train_and_deals_it_to_all_clients(repo, tmp_path):
    result = partition(repo, tmp_path / "out", IID, one_split=True, seed=3)
    assert check_repo(tmp_path / "out") == []
    (before, natural), (after, clients) = rows_of(repo), rows_of(tmp_path / "out")
    held = {row_id: row for (split, row_id), row in before.items() if split != "public"}
    assert {row_id: row for (split, row_id), row in after.items() if split == "train"} == held
    assert {key: row for key, row in after.items() if key[0] != "train"} == {
        key: row for key, row in before.items() if key[0] == "public"
    }
    owners = Counter(client for (split, _), client in natural.items() if split != "public")
    assert ranked(sizes_of(clients, "train")) == ranked(owners)
    assert result.facts["splits"]["train"]["num_rows"] == len(held)
    assert result.facts["splits"]["public"]["num_rows"] == len(before) - len(held)
    assert result.facts["partition"]["parameters"] == {"one_split": True}
    assert "All rows are in `train`" in " ".join((tmp_path / "out" / "NOTICE").read_text().split())
    # Rows of unseen people are dealt to the same clients as others.
    of_unseen = {row_id for split, row_id in before if split == "unseen"}
    mixed = {clients[key] for key in clients if key[1] in of_unseen}
    assert mixed & {client for key, client in clients.items() if key[0] == "train" and key[1] not in of_unseen}


def test_random_sizes_are_those_of_rows_dropped_at_random(repo, tmp_path):
    facts = partition(repo, tmp_path / "out", IID, num_clients=30, random_sizes=True).facts
    assert check_repo(tmp_path / "out") == []
    assert rows_of(tmp_path / "out")[0] == rows_of(repo)[0]
    assert facts["partition"]["parameters"] == {"num_clients": 30, "random_sizes": True}
    rows = {name: (np.zeros(count, np.int32),) * 2 for name, count in (("train", 3000), ("test", 600))}
    draws = []
    for seed in range(20):
        dealt, num_made = deal_rows(rows, 1, IID, 1000, seed, random_sizes=True)
        sizes = np.bincount(dealt["train"], minlength=num_made)
        assert sizes.min() == 1
        assert sizes.sum() == 3000
        assert dealt["test"].max() < num_made
        draws.append((num_made, sizes.var()))
    # A client gets 3 rows on average: none with probability exp(-3) = 0.0498, so 950 are left, with a standard
    # deviation of (1000 * (0.0498 - 4 * 0.0498^2))^0.5 = 6.3; the sizes of these have mean 3 / 0.9502 = 3.157 and
    # variance (3 + 9) / 0.9502 - 3.157^2 = 2.66.
    num_made, variance = np.mean(draws, axis=0)
    assert num_made == pytest.approx(950.2, abs=5 * 6.3 / 20**0.5)
    assert variance == pytest.approx(2.66, abs=0.15)
    with pytest.raises(PartitionError, match="quantity sets the sizes by its skew"):
        partition(repo, tmp_path / "no", PartitionRule(name="quantity", skew=1.0), random_sizes=True)


def test_quantity_gives_the_sizes_of_zipfs_law(repo, tmp_path):
    partition(repo, tmp_path / "out", PartitionRule(name="quantity", skew=1.0), num_clients=4)
    num_rows = load_clients(repo).rows.num_rows
    sizes = ranked(sizes_of(rows_of(tmp_path / "out")[1], "train"))
    # One row each in advance, then 12/25, 6/25, 4/25 and 3/25 of the rest, rounded.
    expected = [1 + (num_rows - 4) * share / 25 for share in (12, 6, 4, 3)]
    assert sum(sizes) == num_rows
    assert all(abs(size - ideal) < 1 for size, ideal in zip(sizes, expected, strict=True))


def test_clusters_without_alpha_give_nearly_every_client_one_cluster(tmp_path, make_source, turns):
    words = {"de": "Wie backe ich Brot", "zh": "怎么烤面包", "ru": "Как испечь хлеб"}
    rows = [
        {
            "client_id": f"c{c:02d}",
            "row_id": f"{c}-{r}",
            "language": code,
            "messages": turns(f"{text} {c} {r}?", f"{c} {r}"),
        }
        for c in range(30)
        for r in range(9)
        for code, text in [list(words.items())[r % 3]]
    ]
    build(make_source(rows), tmp_path / "repo", unfiltered=True)
    partition(tmp_path / "repo", tmp_path / "out", PartitionRule(name="clusters", num_clusters=3))
    clients = load_clients(tmp_path / "out")
    languages = [len(set(clients[client]["language"])) for client in clients]
    # Three clusters have two borders between them: at most two clients hold more than one language.
    assert sum(number > 1 for number in languages) <= 2
    # A client's test rows follow its training rows, but for what the borders leave.
    tested = load_clients(tmp_path / "out", split="test")
    same = [set(tested[client]["language"]) <= set(clients[client]["language"]) for client in tested]
    assert np.mean(same) > 0.7


def entropy_bits(counts_KL):
    share_KL = counts_KL / counts_KL.sum(axis=1, keepdims=True)
    return float(-(share_KL * np.log2(np.where(share_KL > 0, share_KL, 1))).sum(axis=1).mean())


def dealt_by(alpha, seed):
    """20 clients of 200 training rows and 40 test rows, four labels in the shares 0.4, 0.3, 0.2, 0.1."""
    lots = np.random.default_rng(seed)
    rows = {}
    for split, num in (("train", 200), ("test", 40)):
        labels = np.repeat(np.arange(4), [int(20 * num * share) for share in (0.4, 0.3, 0.2, 0.1)]).astype(np.int32)
        rows[split] = (np.repeat(np.arange(20), num).astype(np.int32), lots.permutation(labels))
    dealt, num_made = deal_rows(rows, 4, PartitionRule(name="dirichlet", alpha=alpha), None, seed)
    assert num_made == 20
    return {s: np.histogram2d(dealt[s], rows[s][1], bins=(range(21), range(5)))[0] for s in rows}


@pytest.mark.parametrize("seed", range(5))
def test_a_large_alpha_gives_the_common_mix_and_a_small_one_few_labels(seed):
    even, uneven = dealt_by(1e6, seed), dealt_by(0.05, seed)
    # Of 200 rows a share of 0.4 has a standard deviation of (0.24 / 200)^0.5 = 0.035: five of them.
    assert abs(even["train"] / 200 - [0.4, 0.3, 0.2, 0.1]).max() < 5 * 0.035
    # The common mix has 1.85 bits; with alpha 0.05 most clients want one label, and it runs short for some of them.
    assert entropy_bits(even["train"]) > 1.75
    assert entropy_bits(uneven["train"]) < 1.85 / 2


@pytest.mark.parametrize("seed", range(5))
def test_a_clients_test_rows_have_the_mix_of_its_training_rows(seed):
    counts = dealt_by(0.5, seed)
    own = abs(counts["train"] / 200 - counts["test"] / 40).sum(axis=1).mean()
    others = abs(counts["train"] / 200 - np.roll(counts["test"], 1, axis=0) / 40).sum(axis=1).mean()
    assert own < 0.5 * others


def test_one_client_gets_everything():
    rows = {"train": (np.array([0, 1, 2], np.int32), np.array([0, 1, 1], np.int32))}
    for rule in (IID, PartitionRule(name="dirichlet", alpha=0.1), PartitionRule(name="quantity", skew=2.0)):
        assert deal_rows(rows, 2, rule, 1, seed=0)[0]["train"].tolist() == [0, 0, 0]


def test_a_preference_repo_can_be_partitioned(tmp_path, make_source):
    def side(text):
        return [{"role": "assistant", "content": text}]

    rows = [
        {
            "client_id": f"c{c:02d}",
            "row_id": f"{c}-{r}",
            "language": "en",
            "prompt": [{"role": "user", "content": f"question {c} {r}"}],
            "chosen": side(f"good {c} {r}"),
            "rejected": side(f"bad {c} {r}"),
            "chosen_model": (None, "m1", "m2")[r % 3],
            "rejected_model": None,
        }
        for c in range(20)
        for r in range(6)
    ]
    build(make_source(rows, task="preference"), tmp_path / "repo")
    for rule in (PartitionRule(name="dirichlet", alpha=0.01, column="chosen_model"), RULES[7]):
        partition(tmp_path / "repo", tmp_path / rule.name, rule)
        assert check_repo(tmp_path / rule.name) == []
        assert rows_of(tmp_path / rule.name)[0] == rows_of(tmp_path / "repo")[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "even"}, "no rule 'even'; choose one of iid, dirichlet"),
        ({"name": "iid", "alpha": 1.0}, "iid takes no alpha; its settings are: none"),
        ({"name": "dirichlet"}, "dirichlet needs alpha"),
        ({"name": "dirichlet", "alpha": 0.0}, "alpha is 0.0, but must be above 0"),
        ({"name": "dirichlet", "alpha": float("nan")}, "alpha is nan"),
        ({"name": "quantity"}, "quantity needs skew"),
        ({"name": "quantity", "skew": -0.1}, "skew is -0.1"),
        ({"name": "clusters", "num_clusters": 1}, "num_clusters is 1, but must be at least 2"),
        ({"name": "dirichlet", "alpha": 1.0, "num_clusters": 3}, "of no use with the column language"),
        ({"name": "clusters", "encoder": "bert"}, "no encoder 'bert'"),
    ],
)
def test_settings_that_make_no_sense_are_errors(settings, message):
    with pytest.raises(PartitionError, match=message):
        PartitionRule(**settings)


def test_what_cannot_be_partitioned_so_is_an_error_and_leaves_nothing(repo, tmp_path):
    out = tmp_path / "out"
    num_rows = load_clients(repo).rows.num_rows
    with pytest.raises(PartitionError, match=f"{num_rows} rows of train cannot make {num_rows + 1} clients"):
        partition(repo, out, IID, num_clients=num_rows + 1)
    with pytest.raises(PartitionError, match="num_clients is 0"):
        partition(repo, out, IID, num_clients=0)
    with pytest.raises(PartitionError, match="no column 'age' to deal out by; choose one of client_id, language"):
        partition(repo, out, PartitionRule(name="dirichlet", alpha=1.0, column="age"))
    with pytest.raises(PartitionError, match="no column 'languages'"):
        partition(repo, out, PartitionRule(name="dirichlet", alpha=1.0, column="languages"))
    with pytest.raises(PartitionError, match="rows cannot make 5000 clusters"):
        partition(repo, out, PartitionRule(name="clusters", num_clusters=5_000))
    with pytest.raises(PartitionError, match="the seed is -1"):
        partition(repo, out, IID, seed=-1)
    with pytest.raises(ConfigError, match="is the client repo to be partitioned"):
        partition(repo, repo, IID)
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_no_sound_client_repo_is_an_error(repo, tmp_path, make_source, many_rows):
    with pytest.raises(SchemaError, match=r"build.json is missing or broken"):
        partition(tmp_path, tmp_path / "out", IID)
    build(make_source(many_rows), tmp_path / "broken")
    path = tmp_path / "broken" / "build.json"
    facts = path.read_text()
    for changed in (
        "[]",
        "{}",
        facts.replace('"task": "sft"', '"task": "x"'),
        facts.replace('"licence"', '"license"'),
    ):
        path.write_text(changed)
        with pytest.raises(SchemaError, match=r"build.json is missing or broken"):
            partition(tmp_path / "broken", tmp_path / "out", IID)
    path.write_text(facts)
    train = tmp_path / "broken" / "data" / "train-00000-of-00001.parquet"
    pq.write_table(pq.ParquetFile(train).read().slice(1), train)
    with pytest.raises(SchemaError, match=r"states \d+ rows of train, the files hold \d+; build again"):
        partition(tmp_path / "broken", tmp_path / "out", IID)
    pq.write_table(pq.ParquetFile(train).read().drop(["detected_language"]), train)
    with pytest.raises(SchemaError, match="has not the columns of sft rows"):
        partition(tmp_path / "broken", tmp_path / "out", IID)
