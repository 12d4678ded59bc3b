"""What of the scored splits was trained on is counted exactly, in either row format, and said with the counts."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.importer import import_files
from fedllm_data.schema import SCHEMAS
from fedllm_eval.run import score_run
from fedllm_eval.running.origins import Origin, Origins, origins_of
from fedllm_eval.running.trained_on import ScoredSplits, TrainedOn, overlap_with

PLAIN = {"hashed": False, "salt_fingerprint": None}
SALTED = {"hashed": True, "salt_fingerprint": "aaaa"}


def row(task, client_id, prompt, number=0):
    asked = [{"role": "user", "content": prompt}]
    said = [{"role": "assistant", "content": f"answer {number}"}]
    common = {"client_id": client_id, "row_id": f"{client_id}-{number}", "language": "en", "detected_language": "en"}
    if task == "sft":
        return common | {"messages": asked + said}
    other = [{"role": "assistant", "content": f"no answer {number}"}]
    return common | {"prompt": asked, "chosen": said, "rejected": other, "chosen_model": None, "rejected_model": None}


def rows_of(task, pairs):
    return [row(task, client_id, prompt, number) for number, (client_id, prompt) in enumerate(pairs)]


def memory(task, pairs, split="test"):
    return ClientDataset.from_dataset(Dataset.from_list(rows_of(task, pairs)), split=split)


def repo(folder, task, splits, client_ids=None):
    (folder / "data").mkdir(parents=True)
    for split, pairs in splits.items():
        table = pa.Table.from_pylist(sorted(rows_of(task, pairs), key=lambda each: each["client_id"]), SCHEMAS[task])
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    if client_ids is not None:
        (folder / "build.json").write_text(json.dumps({"client_ids": client_ids}))
    return folder


def run_on(folder, dataset, *, revision=None, **config):
    clients = load_clients(dataset) if Path(dataset).is_dir() else None
    data = {"name": str(dataset), "revision": revision or clients.revision, "split": "train"}
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"task": "sft", "data": data, "start_adapter": None} | config))
    return folder


def look(run, dataset, *splits):
    """Notes by split of what a run was trained on."""
    scored = [load_clients(dataset, split) for split in splits]
    found = ScoredSplits(scored).trained_on(origins_of(run))
    return {split: [note for overlap in found[split] for note in overlap.notes(split)] for split in splits}


PAIRS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 12)), min_size=1, max_size=25)
TASKS = st.sampled_from(["sft", "preference"])


@settings(max_examples=30, deadline=None)
@given(PAIRS, PAIRS, TASKS, TASKS)
def test_a_drawn_overlap_gives_exactly_its_counts(scored, trained, scored_task, trained_task):
    # Case and spacing are no difference between prompts: training writes them in another way.
    here = memory(scored_task, [(client, f"What is {number}?") for client, number in scored])
    there = memory(trained_task, [(client, f"what  IS {number}? ") for client, number in trained])
    prompts, rows, clients = ({n for _, n in scored}, [n for _, n in scored], {c for c, _ in scored})
    known = {n for _, n in trained}
    found = overlap_with([here], there)[0]
    assert (found.num_prompts, found.num_rows, found.num_clients) == (len(prompts), len(rows), len(clients))
    assert found.num_prompts_trained_on == len(prompts & known)
    assert found.num_rows_trained_on == sum(n in known for n in rows)
    assert found.num_clients_trained_on == len(clients & {c for c, _ in trained})


def test_the_splits_of_one_dataset_give_no_warning(tmp_path):
    splits = {"train": [("a", "p1"), ("b", "p2")], "test": [("a", "p3")], "unseen": [("c", "p4")]}
    dataset = repo(tmp_path / "repo", "sft", splits, SALTED)
    run = run_on(tmp_path / "run", dataset)
    assert look(run, dataset, "test", "unseen") == {"test": [], "unseen": []}
    # A folder that was moved is found by its digest, where it is scored.
    moved = dataset.rename(tmp_path / "moved")
    assert look(run, moved, "test", "unseen") == {"test": [], "unseen": []}
    assert "2 of 2 prompts (2 of 2 rows) are also in split train" in look(run, moved, "train")["train"][0]


def test_other_rows_of_the_same_people_are_counted_split_by_split(tmp_path):
    sft = repo(tmp_path / "sft", "sft", {"train": [("a", "p1"), ("b", "p2"), ("c", "p3")]}, PLAIN)
    splits = {"test": [("a", "p2"), ("a", "p9")], "unseen": [("b", "P1"), ("d", "p3"), ("d", "p8")]}
    pairs = repo(tmp_path / "pairs", "preference", splits, PLAIN)
    notes = look(run_on(tmp_path / "run", sft), pairs, "test", "unseen")
    assert notes["test"] == [
        f"1 of 2 prompts (1 of 2 rows) are also in split train of {sft}, which was trained on: scores on them are no "
        "held-out scores"
    ]
    assert [note.split(" are ")[0].split(" have ")[0] for note in notes["unseen"]] == [
        "2 of 3 prompts (2 of 3 rows)",
        "1 of 2 clients",
    ]


def test_two_salts_are_said_and_nobody_is_matched(tmp_path):
    sft = repo(tmp_path / "sft", "sft", {"train": [("a", "p1")]}, PLAIN)
    scored = repo(tmp_path / "scored", "preference", {"unseen": [("a", "p2")]}, SALTED)
    run = run_on(tmp_path / "run", sft)
    (note,) = look(run, scored, "unseen")["unseen"]
    assert "the ids here are hashed (salt aaaa) and the ids there are not" in note
    assert "unseen may have been trained on" in note
    (found,) = ScoredSplits([load_clients(scored, "unseen")]).trained_on(origins_of(run))["unseen"]
    assert found.num_clients_trained_on is None
    # The data may be gone: what the run's config.yaml says of its ids is enough.
    gone = run_on(tmp_path / "gone", "no/such/data", revision="0" * 40)
    config = yaml.safe_load((gone / "config.yaml").read_text())
    config["data"]["client_ids"] = SALTED | {"salt_fingerprint": "bbbb"}
    (gone / "config.yaml").write_text(yaml.safe_dump(config))
    notes = look(gone, scored, "unseen")["unseen"]
    assert "another salt (aaaa here, bbbb there)" in notes[0]
    assert "not known" in notes[1]
    assert "no/such/data, which was trained on, cannot be read" in notes[1]


def test_a_changed_folder_and_clients_in_memory_are_named(tmp_path):
    sft = repo(tmp_path / "sft", "sft", {"train": [("a", "p1")]})
    other = repo(tmp_path / "other", "sft", {"test": [("a", "p1")]})
    notes = look(run_on(tmp_path / "run", sft, revision="f" * 64), other, "test")["test"]
    assert notes[0].startswith("1 of 1 prompts")
    assert notes[1].startswith(f"{sft} has changed since it was trained on")
    run = run_on(tmp_path / "memory", sft)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] |= {"name": "memory", "revision": None}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "has no revision to find it by" in look(run, other, "test")["test"][0]


def test_only_the_one_client_that_was_trained_counts(tmp_path):
    sft = repo(tmp_path / "sft", "sft", {"train": [("a", "p1"), ("b", "p2")]})
    other = repo(tmp_path / "other", "sft", {"test": [("x", "p1"), ("x", "p2")]})
    run = run_on(tmp_path / "run", sft, federated={"local_client": "b"})
    assert look(run, other, "test")["test"][0].startswith("1 of 2 prompts")


def test_earlier_runs_count_and_an_unknown_start_is_said(tmp_path, caplog):
    sft = repo(tmp_path / "sft", "sft", {"train": [("a", "p1")]})
    pairs = repo(tmp_path / "pairs", "preference", {"train": [("b", "p2")], "test": [("b", "p1")]})
    start = Origins((Origin(str(sft), load_clients(sft).revision, "train"),), True)
    run = run_on(tmp_path / "dpo", pairs, start_adapter="ab", earlier=start.as_record())
    assert look(run, pairs, "test")["test"][0].startswith("1 of 1 prompts")
    for name in ("start_adapter", "adapter"):
        (run / name).mkdir()
    assert origins_of(run / "start_adapter") == start
    assert origins_of(run / "adapter") == origins_of(run)
    assert origins_of(run).known[1:] == start.known
    old = run_on(tmp_path / "old", pairs, start_adapter="ab")
    assert not origins_of(old).is_complete
    TrainedOn([load_clients(pairs, "test")], {"policy": run, "personal": run})
    assert len([record for record in caplog.records if "1 of 1 prompts" in record.message]) == 1


def test_the_same_people_imported_twice_with_and_without_a_salt(tmp_path):
    # Twenty people ask four questions each, once with an answer and once with two; another seed, another split.
    asked = [(f"person{n % 20}", f"Question number {n}?") for n in range(80)]
    for name, task, extra in (
        ("sft", "sft", {"instruction": "{}", "response": "Yes {}"}),
        ("pairs", "preference", {"prompt": "{}", "chosen": "Yes {}", "rejected": "No {}"}),
    ):
        lines = [{"who": who, **{key: form.format(text) for key, form in extra.items()}} for who, text in asked]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        salted = {"salt": b"s" * 32, "seed": 1} if name == "pairs" else {}
        source = [tmp_path / f"{name}.jsonl"]
        import_files(source, tmp_path / name, task=task, client_column="who", unfiltered=True, **salted)
    trained = {row["messages"][0]["content"] for row in load_clients(tmp_path / "sft").rows}
    for split in ("test", "unseen"):
        prompts = {row["prompt"][0]["content"] for row in load_clients(tmp_path / "pairs", split).rows}
        assert prompts & trained
        notes = look(run_on(tmp_path / f"run-{split}", tmp_path / "sft"), tmp_path / "pairs", split)[split]
        assert notes[0].startswith(f"{len(prompts & trained)} of {len(prompts)} prompts ")
        assert "the ids here are hashed" in notes[1]
        assert len(notes) == 2


@pytest.mark.parametrize("content", ["[]", "data: 3", "data: {}", "data: {name: 3}", "a: [", "\x00"])
def test_a_config_that_says_nothing_knows_nothing(tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    found = origins_of(tmp_path)
    assert found is None or found.known == ()


def test_rows_without_a_user_have_no_prompt():
    said = [{"role": "assistant", "content": "hello"}]
    clients = ClientDataset.from_dataset(Dataset.from_list([{"client_id": "a", "messages": said}]))
    assert overlap_with([clients], clients)[0].num_prompts == 0


def test_results_page_and_terminal_say_it(tmp_path, make_run, caplog):
    sft = repo(tmp_path / "sft", "sft", {"train": [("a", "p1"), ("b", "p2")]}, PLAIN)
    scored = repo(tmp_path / "scored", "sft", {"test": [("a", "p3")], "unseen": [("c", "p2"), ("c", "p4")]}, SALTED)
    run = make_run(tmp_path / "run", task="sft")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = {"name": str(sft), "revision": load_clients(sft).revision, "split": "train"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    results = score_run(run, scored, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "results.json").read_text())
    assert summary == results.summary
    (overlap,) = summary["splits"]["unseen"]["trained_on"]
    assert (overlap["num_prompts"], overlap["num_prompts_trained_on"]) == (2, 1)
    assert summary["splits"]["test"]["trained_on"][0]["num_prompts_trained_on"] == 0
    said = "1 of 2 prompts (1 of 2 rows) are also in split train"
    for name in ("results.md", "results.html"):
        assert said in (tmp_path / "out" / name).read_text(), name
    assert any(said in record.message and record.levelname == "WARNING" for record in caplog.records)
    assert any("its clients cannot be matched" in note for note in summary["splits"]["test"]["notes"])
