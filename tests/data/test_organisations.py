"""Organisations: the same rows at two levels, splits that stay sound, members from ids or a table, both reports."""

import json
from collections import defaultdict

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.build import build
from fedllm_data.cards.card import write_card
from fedllm_data.check import check_repo
from fedllm_data.cli import main
from fedllm_data.clients import load_clients
from fedllm_data.errors import ConfigError, PartitionError, SchemaError, SourceError
from fedllm_data.importer import import_files, row_of
from fedllm_data.organisations import group_by_organisation, organisation_of
from fedllm_data.partition.make import partition
from fedllm_data.partition.rules import PartitionRule
from tests.data.sources import fuzzing

NUM_PEOPLE = 40


def write_rows(path, sites=("north", "south", "west"), num_people=NUM_PEOPLE, num_rows=4):
    lines = ["site,who,instruction,response"]
    for person in range(num_people):
        for row in range(num_rows):
            lines.append(f"{sites[person % len(sites)]},p{person},Question {person} {row}?,Answer {person} é {row}.")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def people(tmp_path):
    path = write_rows(tmp_path / "rows.csv")
    import_files(
        [path], tmp_path / "people", task="sft", client_column="who", columns={"organisation": "site"}, name="visits"
    )
    return tmp_path / "people"


def rows_of(folder):
    """Row id -> (split, client, what the row says)."""
    found = {}
    for path in sorted(folder.glob("data/*.parquet")):
        for row in pq.ParquetFile(path).read().to_pylist():
            assert row["row_id"] not in found
            found[row["row_id"]] = (path.name.split("-")[0], row.pop("client_id"), row)
    return found


def test_every_row_keeps_its_text_and_goes_to_the_organisation_of_its_person(people, tmp_path):
    result = group_by_organisation(people, tmp_path / "sites")
    assert check_repo(tmp_path / "sites") == []
    before, after = rows_of(people), rows_of(tmp_path / "sites")
    assert before.keys() == after.keys()
    assert len(before) == NUM_PEOPLE * 4
    for row_id, (split, person, row) in before.items():
        new_split, organisation, same = after[row_id]
        assert same == row
        assert organisation == person.partition(":")[0]
        assert new_split == ("test" if split == "unseen" else split)  # all three sites train
    assert any(split == "unseen" for split, _, _ in before.values())
    facts = result.facts
    assert set(load_clients(tmp_path / "sites", split="train")) == {"north", "south", "west"}
    assert facts["name"] == "visits-organisations"
    assert facts["summary"].endswith("Here these clients are grouped into organisations.")
    notice = " ".join((tmp_path / "sites" / "NOTICE").read_text().split())
    assert "40 people of visits were grouped into 3 organisations" in notice
    assert facts["organisations"]["num_people"] == NUM_PEOPLE
    assert facts["organisations"]["num_organisations"] == facts["clients"]["num_clients"] == 3
    num_unseen = sum(split == "unseen" for split, _, _ in before.values())
    assert facts["organisations"]["num_unseen_rows_in_test"] == num_unseen > 0


def test_the_text_is_counted_as_the_parent_counts_it(people, tmp_path):
    group_by_organisation(people, tmp_path / "sites")
    splits = [json.loads((folder / "build.json").read_text())["splits"] for folder in (people, tmp_path / "sites")]
    sums = [sum(counts["num_text_bytes"] for counts in each.values()) for each in splits]
    assert sums[0] == sums[1]
    assert splits[0]["train"]["num_text_bytes"] == splits[1]["train"]["num_text_bytes"]


def test_the_same_again_gives_the_same_bytes(people, tmp_path):
    for name in ("one", "two"):
        group_by_organisation(people, tmp_path / name)
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
    group_by_organisation(people, tmp_path / "one")  # replaces the same dataset without being asked


def test_an_organisation_of_unseen_people_alone_stays_unseen(people, tmp_path):
    unseen = {client for split, client, _ in rows_of(people).values() if split == "unseen"}
    members = tmp_path / "members.csv"
    clients = sorted({client for _, client, _ in rows_of(people).values()})
    lines = [f"{client},{'new' if client in unseen else 'old' + client[:1]}" for client in clients]
    members.write_text("client_id,organisation\n" + "\n".join(lines) + "\n")
    group_by_organisation(people, tmp_path / "sites", members=members)
    assert check_repo(tmp_path / "sites") == []
    by_client = defaultdict(set)
    for split, client, _ in rows_of(tmp_path / "sites").values():
        by_client[client].add(split)
    assert by_client.pop("new") == {"unseen"}
    assert "unseen" not in set().union(*by_client.values())


def test_public_rows_stay_with_nobody(make_source, many_rows, tmp_path):
    from fedllm_data.source import SourceRow

    rows = [row | {"client_id": f"site{sum(map(ord, row['client_id'])) % 3}:{row['client_id']}"} for row in many_rows]
    public = [SourceRow(row | {"row_id": f"public-{row['row_id']}"}, "m", 1, is_public=True) for row in many_rows]
    build(make_source([*rows, *public[:50]]), tmp_path / "people", seed=1, unfiltered=True)
    group_by_organisation(tmp_path / "people", tmp_path / "sites")
    assert check_repo(tmp_path / "sites") == []
    before, after = rows_of(tmp_path / "people"), rows_of(tmp_path / "sites")
    public = {row_id for row_id, (split, _, _) in before.items() if split == "public"}
    assert public
    assert {row_id for row_id, (split, _, _) in after.items() if split == "public"} == public
    assert all(after[row_id] == before[row_id] for row_id in public)


def test_the_members_can_be_any_table(people, tmp_path):
    clients = sorted({client for _, client, _ in rows_of(people).values()})
    table = tmp_path / "members.jsonl"
    table.write_text(
        "".join(json.dumps({"client_id": c, "organisation": f"o{n % 2}"}) + "\n" for n, c in enumerate(clients))
    )
    result = group_by_organisation(people, tmp_path / "sites", members=table)
    assert result.facts["clients"]["num_clients"] == 2


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ("client,organisation\na,b\n", PartitionError, "has no column client_id"),
        ("client_id,organisation\nnorth:p0,\n", PartitionError, "organisation: is missing or empty; correct"),
        ("client_id,organisation\nnorth:p0,nan\n", PartitionError, "organisation: 'nan' stands for a missing id"),
        ("client_id,organisation\nnorth:p0,public\n", PartitionError, "'public' is kept for rows of nobody"),
        ("client_id,organisation\na,x\na,y\n", PartitionError, "'a' is in two organisations; keep one"),
        ("client_id,organisation\nnorth:p0,x\n", PartitionError, "39 of 40 clients have no organisation"),
    ],
)
def test_a_table_that_does_not_do_is_named(people, tmp_path, table, error, message):
    path = tmp_path / "members.csv"
    path.write_text(table)
    with pytest.raises(error, match=message):
        group_by_organisation(people, tmp_path / "sites", members=path)
    assert not (tmp_path / "sites").exists()


def test_what_cannot_be_grouped_is_refused(people, tmp_path):
    with pytest.raises(ConfigError, match="is the client repo to be grouped"):
        group_by_organisation(people, people)
    with pytest.raises(SourceError, match=r"cannot be read: No such file"):
        group_by_organisation(people, tmp_path / "x", members=tmp_path / "none.csv")
    partition(people, tmp_path / "iid", PartitionRule(name="iid"))
    with pytest.raises(PartitionError, match="holds artificial clients"):
        group_by_organisation(tmp_path / "iid", tmp_path / "x")
    path = write_rows(tmp_path / "plain.csv")
    import_files([path], tmp_path / "plain", task="sft", client_column="who")
    with pytest.raises(PartitionError, match=r"40 of 40 clients have no organisation.*--columns organisation=COLUMN"):
        group_by_organisation(tmp_path / "plain", tmp_path / "x")
    import_files([path], tmp_path / "salted", task="sft", client_column="who", salt=b"s" * 32)
    with pytest.raises(PartitionError, match="are hashed and name no organisation"):
        group_by_organisation(tmp_path / "salted", tmp_path / "x")
    one = write_rows(tmp_path / "one.csv", sites=("north",))
    import_files([one], tmp_path / "one", task="sft", client_column="who", columns={"organisation": "site"})
    with pytest.raises(PartitionError, match="all 40 clients are of 'north'"):
        group_by_organisation(tmp_path / "one", tmp_path / "x")
    (people / "build.json").write_text("{}")
    with pytest.raises(SchemaError, match="missing or broken"):
        group_by_organisation(people, tmp_path / "x")


def test_an_import_writes_the_organisation_before_the_client():
    fields = {"site": " north ", "who": 7, "instruction": "Hi", "response": "Hello"}
    columns = {"organisation": "site"}
    assert row_of(fields, "sft", "who", columns)["client_id"] == "north:7"
    assert row_of(fields, "sft", "who")["client_id"] == "7"
    assert "names no organisation" in row_of(fields | {"site": "n/a"}, "sft", "who", columns)
    assert "contains ':'" in row_of(fields | {"site": "a:b"}, "sft", "who", columns)
    assert "client_id" in row_of(fields | {"who": None}, "sft", "who", columns)
    assert "is missing" in row_of({k: v for k, v in fields.items() if k != "site"}, "sft", "who", columns)


def test_an_import_refuses_an_organisation_that_no_file_has(tmp_path):
    path = write_rows(tmp_path / "rows.csv")
    with pytest.raises(ConfigError, match="--columns organisation=sit: no file has it"):
        import_files([path], tmp_path / "x", task="sft", client_column="who", columns={"organisation": "sit"})


@given(st.text(max_size=12), st.text(max_size=12))
@fuzzing.READ
def test_the_organisation_is_what_stands_before_the_first_colon(organisation, person):
    found = organisation_of(f"{organisation}:{person}")
    assert found == (organisation.partition(":")[0].strip() or None)
    assert organisation_of(person.replace(":", "")) is None


def test_two_commands_give_both_levels_and_their_comparison(tmp_path, capsys):
    path = write_rows(tmp_path / "rows.csv", num_people=12, num_rows=6)
    people, sites, both = (str(tmp_path / name) for name in ("people", "sites", "both"))
    argv = ["import", str(path), "--task", "sft", "--client-column", "who", "--columns", "organisation=site"]
    assert main([*argv, "--name", "visits", "--out", people]) == 0
    assert main(["organisations", people, "--out", sites]) == 0
    assert "visits-organisations: 3 clients, 72 rows" in capsys.readouterr().out
    assert main(["report", sites, "--compare", people, "--out", both]) == 0
    found = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert (found["one"]["name"], found["other"]["name"]) == ("visits-organisations", "visits")
    assert found["axes"].keys() >= {"quantity", "language", "length", "instruction"}
    page = (tmp_path / "both" / "comparison.html").read_text()
    assert "visits-organisations" in page
    assert "artificial" not in page
    card = (tmp_path / "sites" / "README.md").read_text()
    assert "The clients are organisations" in card
    assert "rows of unseen people became test rows" in card
    assert write_card(tmp_path / "sites").read_text() == card
    croissant = json.loads((tmp_path / "sites" / "croissant.json").read_text())
    assert any("12 people of visits" in words for words in croissant["rai:dataPreprocessingProtocol"])
