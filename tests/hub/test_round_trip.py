"""By Hub id alone: published, checked, measured, loaded and streamed corpora are those of the folder."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from fedllm_data.build import build
from fedllm_data.cards.card import write_card
from fedllm_data.check import check_repo
from fedllm_data.cli import main
from fedllm_data.clients import load_clients
from fedllm_data.errors import ClientNotFoundError, HubError, SchemaError
from fedllm_data.hub.publish import publish
from fedllm_data.repo import open_repo
from fedllm_data.source import Source, SourceRow
from tests.hub.server import LoopbackHub


def from_storage(hub: LoopbackHub) -> int:
    """Bytes of file content that the Hub has handed out since `hub.requests` was cleared."""
    return sum(request.num_bytes for request in hub.requests if request.host == "localhost")


@pytest.mark.parametrize("streaming", [False, True], ids=["loaded", "streamed"])
def test_every_split_comes_back_whole_by_id(
    hub: LoopbackHub, client_repo: Path, repo_id: str, streaming: bool
) -> None:
    published = publish(client_repo, repo_id, tag="v1")
    for split in ("train", "test", "unseen"):
        local = load_clients(client_repo, split)
        remote = load_clients(repo_id, split, revision="v1", streaming=streaming)
        assert (remote.name, remote.split, remote.task) == (repo_id, split, client_repo.name)
        assert remote.revision == published.revision
        assert remote.sizes == local.sizes
        assert remote.table.to_pylist() == local.table.to_pylist()
        assert {client_id: rows.to_list() for client_id, rows in remote.items()} == {
            client_id: rows.to_list() for client_id, rows in local.items()
        }
        chosen = list(local)[::3]
        assert remote.select(chosen).sizes == local.select(chosen).sizes


def test_check_and_report_work_on_the_id(
    hub: LoopbackHub, client_repo: Path, repo_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(client_repo, repo_id)
    assert check_repo(repo_id) == []
    assert main(["check", repo_id]) == 0
    assert "sound" in capsys.readouterr().out
    assert main(["report", repo_id, "--out", str(tmp_path / "report")]) == 0
    ours, theirs = (
        json.loads((folder / "heterogeneity.json").read_text()) for folder in (client_repo, tmp_path / "report")
    )
    assert theirs["axes"] == ours["axes"]
    assert main(["check", "org/absent"]) == 2
    assert "no dataset org/absent on the Hub" in capsys.readouterr().err


def test_what_cannot_be_streamed_from_the_hub_is_one_line(hub: LoopbackHub, client_repo: Path, repo_id: str) -> None:
    publish(client_repo, repo_id)
    clients = load_clients(repo_id, streaming=True)
    with pytest.raises(ClientNotFoundError, match="client-0"):
        clients["client_07"]
    with pytest.raises(SchemaError, match="no split 'public'"):
        load_clients(repo_id, "public", streaming=True)
    with pytest.raises(HubError, match="no revision 'v9'"):
        load_clients(repo_id, revision="v9", streaming=True)
    hub.fail("GET", "/resolve/", status=503, times=1000)
    with pytest.raises(HubError, match=rf"cannot read {repo_id}: .*run again"):
        list(clients.values())


def test_a_gated_corpus_is_read_by_those_who_agreed_alone(
    hub: LoopbackHub, client_repo: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(client_repo, repo_id)
    HfApi().update_repo_settings(repo_id, gated="auto", repo_type="dataset")
    for streaming in (False, True):
        assert len(load_clients(repo_id, "test", streaming=streaming)) == len(load_clients(client_repo, "test"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    for split, streaming in (("train", False), ("test", True)):
        with pytest.raises(HubError, match=f"cannot read {repo_id}: it is gated; ask for access"):
            load_clients(repo_id, split, streaming=streaming)


def test_a_commit_made_while_streaming_changes_nothing(hub: LoopbackHub, client_repo: Path, repo_id: str) -> None:
    publish(client_repo, repo_id)
    local, clients = load_clients(client_repo), load_clients(repo_id, streaming=True)
    repo = hub.repo(repo_id)
    repo.commit("theirs", {".gitattributes": repo.files[".gitattributes"]})
    assert {client_id: rows.to_list() for client_id, rows in clients.items()} == {
        client_id: rows.to_list() for client_id, rows in local.items()
    }


@pytest.fixture(scope="module")
def many_clients(tmp_path_factory: pytest.TempPathFactory, make_source: Callable[..., Source]) -> Path:
    """400 clients of 20 rows of letters that do not compress: about 40 row groups in one file."""
    letters = random.Random(0)

    def read(*_: object) -> Iterator[SourceRow]:
        for index in range(8_000):
            text = letters.randbytes(1500).hex()
            messages = [{"role": "user", "content": text[:400]}, {"role": "assistant", "content": text[400:]}]
            row = {"client_id": f"client-{index // 20:03d}", "row_id": f"{index:05d}", "messages": messages}
            yield SourceRow(row, "memory", index)

    folder = tmp_path_factory.mktemp("many") / "repo"
    build(replace(make_source("sft"), upstream="generated", read=read), folder)
    write_card(folder)
    return folder


def test_one_client_costs_a_twentieth_of_the_file_and_all_cost_it_once(
    hub: LoopbackHub, many_clients: Path, repo_id: str
) -> None:
    publish(many_clients, repo_id)
    [path] = many_clients.glob("data/train-*.parquet")
    num_bytes, local = path.stat().st_size, load_clients(many_clients)
    repo = open_repo(many_clients)
    groups = {client_id: repo.find_groups(client_id, "train") for client_id in local}
    one, two, wide = (
        next(i for i, found in groups.items() if len(found) == count and found[0].index > after)
        for count, after in ((1, 5), (1, 20), (2, 10))
    )
    metadata = repo.footer(groups[one][0].path).metadata

    def group_bytes(indices: Iterable[int]) -> int:
        columns = range(metadata.num_columns)
        return sum(metadata.row_group(g).column(c).total_compressed_size for g in indices for c in columns)

    own = {client_id: group_bytes(group.index for group in groups[client_id]) for client_id in (one, two, wide)}
    assert len(local) > 300
    hub.requests.clear()
    clients = load_clients(repo_id, streaming=True)
    assert clients[one].to_list() == local[one].to_list()
    first = from_storage(hub)
    # The clients config, the footer and one of about forty row groups.
    assert own[one] < first < num_bytes / 20

    # Any further client costs its row groups alone; the last of them is kept.
    for client_id, expected in ((two, own[two]), (wide, own[wide]), (two, own[two]), (two, 0)):
        hub.requests.clear()
        assert clients[client_id].to_list() == local[client_id].to_list()
        assert from_storage(hub) == expected

    # In order, every row group comes once: all of the file but its footer, and no byte twice.
    hub.requests.clear()
    assert sum(rows.num_rows for rows in clients.values()) == sum(local.sizes.values())
    assert from_storage(hub) == group_bytes(range(metadata.num_row_groups))
    assert {request.status for request in hub.requests if request.host == "localhost"} == {206}
    assert not any(request.has_token for request in hub.requests if request.host == "localhost")
