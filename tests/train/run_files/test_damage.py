"""Any flipped bit or truncation in what a run keeps gives the same adapter again or a named error, and never another.

Files are damaged one at a time: those of checkpoints, clients' tokens, what the reference says, what clients remember,
the best state. Each is first tried alone on many places, then in whole runs that are resumed.
"""

import json
import shutil
from hashlib import sha256

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError, FedLLMError, ResumeError
from fedllm_eval.policy.run_folder import read_config
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.clients.client_memory import ClientMemory
from fedllm_train.clients.token_cache import TokenCache
from fedllm_train.engines.engine import NO_STEP
from fedllm_train.messages import codec
from fedllm_train.monitoring.held_out import load_best
from fedllm_train.monitoring.ledger import Ledger
from fedllm_train.run_files.checkpoint import RunState, load_latest, mend_records, save_checkpoint
from fedllm_train.run_files.sealed import is_whole, read_sealed, write_sealed

places = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7), st.booleans())
"""Where in a file, which bit, and whether the file ends there instead."""
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damage(path, place):
    where, bit, truncates = place
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    if truncates:
        path.write_bytes(content[:at])
    else:
        content[at] ^= 1 << bit
        path.write_bytes(content)


def parts(value):
    return {"adapter": {"a": torch.full((3, 2), float(value))}, "control": {"c": torch.full((4,), float(-value))}}


def state(next_round):
    return RunState(next_round=next_round, server=parts(next_round), ledger=Ledger())


def two_checkpoints(run):
    for next_round in (1, 2):
        save_checkpoint(run, state(next_round), {"round_index": next_round - 1}, keep=5)


@given(place=places, file=st.sampled_from(["adapter.safetensors", "server.safetensors", "state.json", "sha256.json"]))
@many
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, place, file, caplog):
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    caplog.clear()
    two_checkpoints(tmp_path)
    damage(tmp_path / "checkpoints" / "round-000001" / file, place)
    found, record = load_latest(tmp_path)
    if file == "sha256.json" and found.next_round == 2:
        # Its last line break alone is gone: the digests are there, and so is all that they are of.
        assert not caplog.text
    else:
        assert (found.next_round, record["round_index"]) == (1, 0)
        assert "round-000001 was damaged on disk" in caplog.text
        assert "going on from the older checkpoint" in caplog.text
    assert adapter_sha256(found.adapter) == adapter_sha256(parts(found.next_round)["adapter"])


def test_where_no_checkpoint_is_whole_the_newest_is_named(tmp_path):
    two_checkpoints(tmp_path)
    for name in ("round-000000", "round-000001"):
        (tmp_path / "checkpoints" / name / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(ResumeError, match=r"round-000001 was damaged on disk \(adapter.safetensors changed\), and no"):
        load_latest(tmp_path)


def test_a_checkpoint_that_lacks_a_file_or_has_one_more_is_not_used(tmp_path):
    two_checkpoints(tmp_path)
    newest = tmp_path / "checkpoints" / "round-000001"
    (newest / "server.safetensors").unlink()
    assert load_latest(tmp_path)[0].next_round == 1
    shutil.copy(newest / "adapter.safetensors", tmp_path / "checkpoints" / "round-000000" / "server.safetensors")
    with pytest.raises(ResumeError, match="does not hold the files"):
        load_latest(tmp_path)


@given(place=places)
@many
def test_damaged_tokens_are_made_again(kit, tmp_path, place):
    shutil.rmtree(tmp_path / "tokens", ignore_errors=True)
    clients, tokenizer = kit.make_clients(sizes={"ann": 3}), kit.make_tokenizer()

    def cache():
        return TokenCache(clients, kit.trl_args("sft"), tokenizer, tmp_path / "tokens", loss_on="assistant")

    before = cache()["ann"]
    rows = before.rows[:]
    (path,) = (tmp_path / "tokens").glob("*.arrow")
    whole = path.read_bytes()
    damage(path, place)
    after = cache()["ann"]
    assert (after.rows[:], after.num_rows) == (rows, before.num_rows)
    assert path.read_bytes() == whole


@given(place=places)
@many
def test_damaged_memory_of_a_client_is_named_and_never_used(tmp_path, place):
    memory = ClientMemory(tmp_path)
    memory.save("ann", 3, parts(1))
    (path,) = tmp_path.rglob("round-000003.safetensors")
    counts = {"kept_step": 3, "oldest_step": NO_STEP}
    assert torch.equal(memory.load("ann", **counts)["control"]["c"], parts(1)["control"]["c"])
    damage(path, place)
    with pytest.raises(ResumeError, match=r"what client 'ann' remembers, was damaged on disk"):
        memory.load("ann", **counts)


@given(place=places)
@many
def test_a_damaged_best_state_is_named_and_never_loaded(tmp_path, place):
    path = tmp_path / "checkpoints" / "best.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_sealed(path, codec.encode(parts(1)))
    assert torch.equal(load_best(tmp_path)["adapter"]["a"], parts(1)["adapter"]["a"])
    damage(path, place)
    with pytest.raises(ResumeError, match=r"best.safetensors, the state of the best round, was damaged"):
        load_best(tmp_path)


@given(content=st.binary(max_size=200), place=places)
@many
def test_what_is_sealed_comes_back_whole_or_not_at_all(tmp_path, content, place):
    path = tmp_path / "file"
    write_sealed(path, content)
    assert read_sealed(path) == content
    assert is_whole(path)
    damage(path, place)
    assert read_sealed(path) is None
    assert not is_whole(path)


@given(text=st.text(max_size=5), place=places)
@many
def test_records_survive_damage_to_other_lines(tmp_path, text, place):
    path = tmp_path / "rounds.jsonl"
    records = [{"round_index": index, "clients": [f"\u2028{text}"]} for index in range(4)]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    damage(path, place)
    mend_records(tmp_path, records[3])
    kept = path.read_bytes().split(b"\n")
    assert json.loads(kept[-2]) == records[3]
    assert kept[-1] == b""
    # One bit changes or joins at most two lines; a truncation may take all that the checkpoint does not know.
    same = sum(line.encode() in kept for line in lines)
    assert same >= (1 if place[2] else 2)


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"a: b: c", b"\xff\xfe"])
def test_a_damaged_config_is_one_clear_line(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_config(tmp_path)


KINDS = {
    "scaffold": ("sft", {"strategy": "scaffold"}),
    "dpo": ("dpo", {"strategy": "fedavg"}),
    "ditto": ("sft", {"strategy": "ditto"}),
}
SMALL = {"num_rounds": 3, "cohort_size": 2, "local_steps": 1}


def kept_files(run):
    folders = [run / "checkpoints", run / "client_memory", run / ".work" / "tokens"]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Runs that ended after their second round of three, and what each learns in the end; made once a kind."""
    made = {}

    def make(kit, name):
        if name not in made:
            task, method = KINDS[name]
            folder = tmp_path_factory.mktemp(name)
            clients = kit.make_clients("sft" if task == "sft" else "preference", {"ann": 3, "bob": 2})
            options = {**SMALL, **method, "clients": clients}
            whole = kit.make_trainer(folder / "whole", task, **options).train()
            kit.run_and_stop(folder / "cut", task, after_round=1, **options)
            made[name] = (folder, task, options, adapter_sha256(whole.adapter))
        return made[name]

    return make


def resume_damaged(kit, stopped, name, number, place):
    folder, task, options, expected = stopped(kit, name)
    run = folder / "damaged"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder / "cut", run)
    files = kept_files(run)
    damage(files[number % len(files)], place)
    trainer = kit.make_trainer(run, task, **options)
    try:
        learned = adapter_sha256(trainer.train(resume=True).adapter)
    except FedLLMError as error:
        learned, expected = None, str(error)
    assert learned == expected or files[number % len(files)].name in expected


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_resumed_run_ends_with_its_own_adapter_or_names_what_was_damaged(kit, stopped, name):
    folder, *_ = stopped(kit, name)
    num_files = len(kept_files(folder / "cut"))
    middle, last = (0.5, 3, False), (0.999, 0, False)
    for number in {0, num_files // 2, num_files - 1}:
        resume_damaged(kit, stopped, name, number, middle if number else last)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KINDS))
@given(number=st.integers(0, 1000), place=places)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)
def test_no_single_damage_gives_another_adapter(kit, stopped, name, number, place):
    resume_damaged(kit, stopped, name, number, place)


def test_what_the_reference_said_is_made_again_where_it_was_damaged(kit, stopped):
    folder, task, options, expected = stopped(kit, "dpo")
    run = folder / "references"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder / "cut", run)
    files = sorted((run / ".work" / "tokens").glob("*.reference.arrow"))
    assert len(files) == 2
    for path in files:
        damage(path, (0.6, 6, False))
    finished = kit.make_trainer(run, task, **options).train(resume=True)
    assert adapter_sha256(finished.adapter) == expected


def test_a_checkpoint_that_is_whole_and_cannot_be_read_is_another_versions(tmp_path):
    two_checkpoints(tmp_path)
    newest = tmp_path / "checkpoints" / "round-000001"
    (newest / "state.json").write_text("{}")
    digests = json.loads((newest / "sha256.json").read_text())
    digests["state.json"] = sha256(b"{}").hexdigest()
    (newest / "sha256.json").write_text(json.dumps(digests))
    with pytest.raises(ResumeError, match="round-000001 is whole, but this version cannot read it"):
        load_latest(tmp_path)


def test_odd_lines_of_what_was_made_are_passed_over(tmp_path):
    """Ids may hold what other programs take for the end of a line; a line that was damaged holds nothing."""
    from fedllm_train.run_files.personal import made_before, visited_clients

    (tmp_path / "a").mkdir()
    odd = "ann\u2028\x85bob"
    lines = [
        {"client_id": odd, "folder": "a"},
        {"client_id": "cyd", "folder": "gone"},
        {"client_id": "dan", "left_out": "x"},
    ]
    text = "\n".join(
        [*(json.dumps(line, ensure_ascii=False) for line in lines), '{"client_id": "eve", "fol', "[1]", "{}"]
    )
    (tmp_path / "made.jsonl").write_text(text)
    assert made_before(tmp_path) == {odd: {"folder": "a"}, "dan": {"left_out": "x"}}
    record = {"round_index": 0, "clients": [{"client_id": odd}], "left_out": [{"client_id": "cyd"}]}
    (tmp_path / "rounds.jsonl").write_bytes(json.dumps(record, ensure_ascii=False).encode() + b"\n\xff{broken\n")
    assert visited_clients(tmp_path / "rounds.jsonl") == {odd, "cyd"}
