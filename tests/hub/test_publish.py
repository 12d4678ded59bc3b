"""From a folder to the Hub and back, through the real clients: publish, load, read one client, train."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset

from fedllm_data import load_client, load_clients
from fedllm_data.build import build
from fedllm_data.cards.card import write_card
from fedllm_data.cli import main
from fedllm_data.errors import ClientNotFoundError, HubError, SchemaError
from fedllm_data.hub.publish import publish
from fedllm_data.schema import SCHEMAS
from fedllm_data.source import Source, SourceRow
from tests.hub.server import LoopbackHub


@pytest.fixture
def large_repo(tmp_path: Path, make_source: Callable[..., Source]) -> Path:
    """Clients whose rows fill more row groups than pyarrow reads ahead: random letters, which do not compress."""
    source = make_source("sft")
    letters = random.Random(0)

    def read(*_: object) -> Iterator[SourceRow]:
        for index in range(3200):
            text = letters.randbytes(1200).hex()
            messages = [{"role": "user", "content": text[:400]}, {"role": "assistant", "content": text[400:]}]
            row = {"client_id": f"client-{index // 20:03d}", "row_id": str(index), "messages": messages}
            yield SourceRow(row, "memory", index)

    build(replace(source, read=read), tmp_path / "large")
    write_card(tmp_path / "large")
    return tmp_path / "large"


def test_publish_sends_all_but_the_rejected_rows_in_one_commit(
    hub: LoopbackHub, client_repo: Path, repo_id: str
) -> None:
    result = publish(client_repo, repo_id, tag="v1.0", message="Version 1.0")
    repo = hub.repo(repo_id)
    local = {path.relative_to(client_repo).as_posix() for path in client_repo.rglob("*") if path.is_file()}
    assert set(repo.files) == local - {"rejected.jsonl"} | {".gitattributes"}
    assert repo.commits[repo.head].title == "Version 1.0"
    assert repo.commits[repo.commits[repo.head].parent].title == "initial commit"
    assert repo.tags == {"v1.0": result.revision} == {"v1.0": repo.head}
    assert f'repo = "{repo_id}"' in repo.files["README.md"].content.decode()
    assert publish(client_repo, repo_id, tag="v1.0").is_unchanged


def test_plain_load_dataset_reads_every_config_and_split(hub: LoopbackHub, client_repo: Path, repo_id: str) -> None:
    publish(client_repo, repo_id)
    local, published = load_dataset(str(client_repo)), load_dataset(repo_id)
    assert set(published) == {"train", "test", "unseen"}
    for split, rows in published.items():
        assert rows.to_list() == local[split].to_list()
        assert list(rows.features) == SCHEMAS[client_repo.name].names
    clients = load_dataset(repo_id, "clients", split="train")
    assert set(clients["client_id"]) == {client_id for rows in local.values() for client_id in rows["client_id"]}


def test_streaming_gives_the_same_rows(hub: LoopbackHub, client_repo: Path, repo_id: str) -> None:
    publish(client_repo, repo_id)
    streamed = list(load_dataset(repo_id, split="train", streaming=True))
    assert streamed == load_dataset(str(client_repo), split="train").to_list()


def test_load_clients_by_hub_id_equals_the_folder_and_pins_the_commit(
    hub: LoopbackHub, client_repo: Path, repo_id: str
) -> None:
    first = publish(client_repo, repo_id, tag="v1")
    local = load_clients(client_repo)
    clients = load_clients(repo_id)
    assert (clients.name, clients.revision, clients.task) == (repo_id, first.revision, client_repo.name)
    assert clients.sizes == local.sizes
    assert all(clients[client_id].to_list() == local[client_id].to_list() for client_id in local)
    assert clients.table.to_pylist() == local.table.to_pylist()

    build_file = client_repo / "build.json"
    build_file.write_text(json.dumps(json.loads(build_file.read_text()) | {"summary": "another"}))
    second = publish(client_repo, repo_id, tag="v2")
    assert second.revision != first.revision
    for name, revision in {None: second, "v1": first, "v2": second, first.revision: first}.items():
        assert load_clients(repo_id, revision=name).revision == revision.revision


def test_load_client_by_hub_id_equals_the_folder(hub: LoopbackHub, client_repo: Path, repo_id: str) -> None:
    publish(client_repo, repo_id)
    for client_id in load_clients(client_repo, split="train"):
        assert load_client(repo_id, client_id).to_list() == load_client(client_repo, client_id).to_list()
    with pytest.raises(ClientNotFoundError, match="nobody"):
        load_client(repo_id, "nobody")


def test_what_is_not_on_the_hub_is_one_line(hub: LoopbackHub, client_repo: Path, repo_id: str) -> None:
    publish(client_repo, repo_id)
    with pytest.raises(HubError, match=f"{repo_id}.* no revision 'v9'"):
        load_clients(repo_id, revision="v9")
    with pytest.raises(HubError, match=r"no dataset org/absent on the Hub"):
        load_clients("org/absent")
    with pytest.raises(SchemaError, match="no split 'public'"):
        load_clients(repo_id, split="public")


def test_load_clients_fetches_the_files_of_its_split_alone(hub: LoopbackHub, client_repo: Path, repo_id: str) -> None:
    publish(client_repo, repo_id)
    hub.requests.clear()
    load_clients(repo_id, split="test")
    fetched = {request.path.split("/data/")[-1] for request in hub.requests if "/data/" in request.path}
    assert fetched == {"test-00000-of-00001.parquet"}


def test_a_folder_that_is_not_sound_is_not_published(hub: LoopbackHub, client_repo: Path, repo_id: str) -> None:
    card = (client_repo / "README.md").read_text()
    (client_repo / "README.md").write_text("# no front matter\n")
    with pytest.raises(SchemaError, match=r"has no card; write README.md with `fedllm-data report"):
        publish(client_repo, repo_id)
    (client_repo / "README.md").write_text(card)
    shutil.rmtree(client_repo / "clients")
    with pytest.raises(SchemaError, match=r"cannot be published: .*; see `fedllm-data check"):
        publish(client_repo, repo_id)
    with pytest.raises(HubError, match="is not a Hub repo id"):
        publish(client_repo, "no-namespace")
    assert hub.requests == []


def test_one_client_is_read_by_ranges_and_the_token_stays_with_the_hub(
    hub: LoopbackHub, tmp_path: Path, repo_id: str, large_repo: Path
) -> None:
    publish(large_repo, repo_id)
    [path] = large_repo.glob("data/train-*.parquet")
    client_id = load_clients(large_repo).table["client_id"][0].as_py()
    hub.requests.clear()
    rows = load_client(repo_id, client_id)
    assert rows.to_list() == load_client(large_repo, client_id).to_list()
    from_storage = [request for request in hub.requests if request.host == "localhost" and request.num_bytes]
    assert {request.status for request in from_storage} == {206}
    # A row group holds about 0.5 MB; the file has more than ten, and the client lies in one or two of them.
    assert 0 < sum(request.num_bytes for request in from_storage) < path.stat().st_size / 4
    assert not any(request.has_token for request in from_storage)
    assert any(request.has_token for request in hub.requests)


def test_the_command_publishes_and_refuses_in_one_line(
    hub: LoopbackHub, client_repo: Path, repo_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(client_repo), "--repo", repo_id, "--tag", "v1", "--private"]) == 0
    repo = hub.repo(repo_id)
    assert repo.private
    first, *moved = capsys.readouterr().out.splitlines()
    assert first == f"{hub.url}/datasets/{repo_id} is at {repo.head}"
    assert any("files added: NOTICE, README.md" in line for line in moved)
    hub.fail("POST", "/repos/create", status=403, times=2)
    hub.fail("GET", "/api/datasets", status=403, times=2)
    assert main(["publish", str(client_repo), "--repo", repo_id]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fedllm-data: error: cannot write {repo_id}: the token may not write it (403); check")
    assert error.count("\n") == 1


def has_null(value: Any) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(has_null(child) for child in children)


def test_no_nested_field_is_null(hub: LoopbackHub, client_repo: Path, repo_id: str) -> None:
    publish(client_repo, repo_id)
    rows = load_dataset(repo_id, split="train").to_list()
    nested = [row[column] for row in rows for column in ("messages", "prompt", "chosen", "rejected") if column in row]
    assert nested
    assert not any(map(has_null, nested))


def test_rows_from_the_hub_go_straight_into_trl(
    hub: LoopbackHub, client_repo: Path, repo_id: str, tmp_path: Path
) -> None:
    pytest.importorskip("trl", reason="TRL is not installed: pip install fedllm-commons[train]")
    publish(client_repo, repo_id)
    rows = load_dataset(repo_id, split="train").select(range(8))
    trained = train_one_step(rows, client_repo.name, tmp_path)
    assert trained.global_step == 1
    assert trained.training_loss > 0


def train_one_step(rows: Dataset, task: str, place: Path) -> Any:
    """One step of TRL's own trainer, with a random model of a few thousand parameters, on rows as they are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<end>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    wrapped.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}<end>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), pad_token_id=0, eos_token_id=1, **shape))
    model.save_pretrained(place / "model")
    wrapped.save_pretrained(place / "model")
    trainers = {"sft": (SFTTrainer, SFTConfig), "preference": (DPOTrainer, DPOConfig)}
    trainer_class, config_class = trainers[task]
    args = config_class(
        output_dir=str(place / "run"),
        max_steps=1,
        per_device_train_batch_size=2,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )
    trainer = trainer_class(str(place / "model"), args=args, train_dataset=rows)
    return trainer.train()
