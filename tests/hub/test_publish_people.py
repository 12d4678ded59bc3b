"""Imported rows are published private and under ids that name nobody, unless that is asked for twice."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.cli import main
from fedllm_data.errors import ConfigError, HubError
from fedllm_data.hub.people import personal_ids
from fedllm_data.hub.publish import preview, publish

IDS = {
    "mail": ["ann@example.org", "bob@example.org", "cyd@example.org"],
    "names": ["Ann Miller", "Bob Stone", "Cyd Roe"],
    "numbers": ["u-017", "u-018", "u-019"],
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """One import for each kind of client ids, and one whose names were hashed."""
    place = tmp_path_factory.mktemp("imported")
    for kind, ids in IDS.items():
        rows = [
            {"who": ids[i % 3], "instruction": f"{i}? Mail me: ann@example.org", "response": f"{i}!"}
            for i in range(12)
        ]
        (place / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = ["import", str(place / f"{kind}.jsonl"), "--task", "sft", "--client-column", "who", "--no-report"]
        for name, more in ((kind, []), (f"{kind}-hashed", ["--salt-file", str(place / "salt")])):
            assert main([*command, "--out", str(place / name), *more]) == 0
    return place


def test_imported_rows_are_private_by_default(hub, imported, repo_id, capsys):
    publish(imported / "numbers", f"{repo_id}-a")
    assert hub.repo(f"{repo_id}-a").private
    assert main(["publish", str(imported / "numbers"), "--repo", f"{repo_id}-b", "--public"]) == 0
    assert not hub.repo(f"{repo_id}-b").private
    # A public repo that is there already is no place for them, unless it is asked for.
    with pytest.raises(HubError, match="exists and is public, and this is to be private"):
        publish(imported / "numbers", f"{repo_id}-b")
    result = publish(imported / "numbers", f"{repo_id}-a", private=False)
    assert "stays so" in result.lines()[-1]
    capsys.readouterr()


def test_a_public_corpus_is_as_visible_as_the_hub_makes_it(hub, client_repo, repo_id):
    publish(client_repo, repo_id)
    assert not hub.repo(repo_id).private


@pytest.mark.parametrize(("kind", "what"), [("mail", "3 like e-mail addresses"), ("names", "3 like names")])
def test_ids_that_look_like_people_are_not_published_unconfirmed(hub, imported, repo_id, kind, what, capsys):
    with pytest.raises(ConfigError, match=rf"look like people \({what}\).*--salt-file FILE.*--yes"):
        publish(imported / kind, repo_id)
    assert main(["publish", str(imported / kind), "--repo", repo_id]) == 2
    assert what in capsys.readouterr().err
    assert hub.requests == []
    assert main(["publish", str(imported / kind), "--repo", repo_id, "--yes"]) == 0
    assert hub.repo(repo_id).private
    publish(imported / f"{kind}-hashed", f"{repo_id}-hashed")


def test_a_dry_run_lists_files_visibility_and_people_and_sends_nothing(hub, imported, repo_id, capsys):
    folder = imported / "mail"
    before = (folder / "README.md").read_bytes()
    assert main(["publish", str(folder), "--repo", repo_id, "--dry-run"]) == 0
    said = capsys.readouterr().out
    local = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"rejected.jsonl"}
    assert all(name in said for name in local)
    assert "rejected.jsonl" not in said
    assert f"to {repo_id} as a private repo, licence unknown" in said
    assert "names people: 3 client ids that look like e-mail addresses" in said
    assert "names people: 12 e-mail addresses in texts" in said
    assert hub.requests == []
    assert (folder / "README.md").read_bytes() == before
    assert preview(folder, repo_id, private=False).lines()[0].endswith("as a public repo, licence unknown")
    assert main(["publish", str(folder), "--repo", repo_id, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["private"] is True
    assert plan["num_bytes"]["build.json"] == (folder / "build.json").stat().st_size


def test_no_path_of_this_machine_is_in_a_published_dataset(hub, imported, repo_id, tmp_path):
    folder = shutil.copytree(imported / "numbers", tmp_path / "copy")
    publish(folder, repo_id)
    for name, file in hub.repo(repo_id).files.items():
        assert str(imported).encode() not in file.content, name
        assert str(tmp_path).encode() not in file.content, name


@given(
    st.lists(
        st.from_regex(r"[0-9a-f]{8,40}|[0-9]{1,9}|[a-z]+[-_]?[0-9]+|[0-9a-f]{8}-[a-f][0-9a-f]{3}", fullmatch=True),
        max_size=9,
    )
)
def test_numbers_hashes_and_counters_name_nobody(ids):
    assert personal_ids([each for each in ids if any(char.isdigit() for char in each)]) == {}


@pytest.mark.parametrize(
    "client_id",
    ["ann.miller@mail.example", "+49 (30) 901820", "555-010-1234", "@ann_m", "Ann Miller", "Miller, Ann", "ann.miller",
     "Jean-Luc Picard", "José García", "王小明", "O'Brien, Pat", "محمد علي", "राम शर्मा", "สมชาย ใจดี", "דוד כהן",
     "佐藤 花子", "山田・一郎", "Ann <ann@mail.example>", "ann@localhost", "ann(at)mail.example", "192.168.0.1",
     "10.0.0.7"],
)  # fmt: skip
def test_what_looks_like_a_person(client_id):
    assert sum(personal_ids([client_id, "c-1", "c-2", "c-3"]).values()) == 1


@pytest.mark.parametrize(
    "names", [["ann", "bob"], ["ann miller", "bob stone"], ["ann_miller", "bob_stone"], ["علي", "सीता"]]
)
def test_most_ids_being_words_without_capitals_look_like_names(names):
    assert personal_ids([*names, "c-1"]) == {"names": 2}
    assert personal_ids([*names, "c-1", "c-2", "c-3"]) == {}
