"""One client of a published corpus, streamed by plain `datasets` and by `load_clients`: its rows, in few bytes."""

import json
from pathlib import Path

import pytest
from datasets import load_dataset

from fedllm_data.build import build
from fedllm_data.clients import load_clients
from fedllm_data.hub.publish import publish
from fedllm_data.organisations import group_by_organisation
from fedllm_data.sources import SOURCES
from tests.data.sources import alignment_files as files
from tests.data.sources import industry_files as fields
from tests.hub.server import LoopbackHub

NUM_COMPANIES = 40


@pytest.fixture(scope="module")
def complaints(tmp_path_factory) -> Path:
    """Forty companies with a few long complaints each: several row groups a split."""
    place = tmp_path_factory.mktemp("complaints")
    records = [
        fields.complaint(
            f"{'EAST' if company % 2 else 'WEST'}:BANK {company:02}",
            " ".join(f"word{(company * 97 + row * 31 + n * n) % 9973}" for n in range(3_000)),
            company * 100 + row,
        )
        for company in range(NUM_COMPANIES)
        for row in range(6)
    ]
    path = files.write_lines(place / "rows.jsonl", records)
    build(SOURCES["fed-complaints"], place / "repo", source_path=path)
    return place / "repo"


def from_storage(hub: LoopbackHub) -> int:
    return sum(request.num_bytes for request in hub.requests if request.host == "localhost")


def test_plain_datasets_streams_one_client_by_a_filter(hub: LoopbackHub, complaints: Path, repo_id: str) -> None:
    publish(complaints, repo_id, allow_personal_ids=True)
    local = load_clients(complaints)
    for client_id in (next(iter(local)), list(local)[-1]):
        streamed = load_dataset(repo_id, split="train", streaming=True, filters=[("client_id", "==", client_id)])
        rows = list(streamed)
        assert [row["row_id"] for row in rows] == [row["row_id"] for row in local[client_id]]
        assert [row["messages"] for row in rows] == [row["messages"] for row in local[client_id]]
        assert {row["client_id"] for row in rows} == {client_id}
    assert list(load_dataset(repo_id, split="train", streaming=True, filters=[("client_id", "==", "nobody")])) == []


def test_streaming_one_client_takes_part_of_the_file(hub: LoopbackHub, complaints: Path, repo_id: str) -> None:
    publish(complaints, repo_id, allow_personal_ids=True)
    whole = sum(path.stat().st_size for path in complaints.glob("data/train-*.parquet"))
    clients = load_clients(repo_id, streaming=True)
    hub.requests.clear()
    client_id = list(clients)[len(clients) // 2]
    assert clients[client_id].to_list() == load_clients(complaints)[client_id].to_list()
    assert 0 < from_storage(hub) < whole / 2


def test_organisations_and_croissant_travel_to_the_hub(
    hub: LoopbackHub, complaints: Path, repo_id: str, tmp_path: Path
) -> None:
    group_by_organisation(complaints, tmp_path / "sites")
    # A card is written by the command's report, which this test leaves out.
    from fedllm_data.cards.card import write_card

    write_card(tmp_path / "sites")
    publish(tmp_path / "sites", repo_id, allow_personal_ids=True)
    assert set(load_clients(repo_id)) == {"EAST", "WEST"}
    east = load_dataset(repo_id, split="train", streaming=True, filters=[("client_id", "==", "EAST")])
    people = load_clients(complaints)
    expected = {row["row_id"] for client_id, rows in people.items() if client_id.startswith("EAST:") for row in rows}
    assert {row["row_id"] for row in east} == expected
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(repo_id, "croissant.json", repo_type="dataset", local_dir=tmp_path / "copy")
    metadata = json.loads(Path(path).read_text(encoding="utf-8"))
    assert metadata["url"] == f"https://huggingface.co/datasets/{repo_id}"
    assert metadata["name"] == "fed-complaints-organisations"
