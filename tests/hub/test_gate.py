"""Non-commercial rows go behind a gate before their first file arrives, and into no repo of anything else."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError

from fedllm_data.build import build
from fedllm_data.cards.card import write_card
from fedllm_data.clients import load_clients
from fedllm_data.errors import HubError, SchemaError
from fedllm_data.hub.publish import preview, publish
from fedllm_data.licences import read_licence
from fedllm_data.source import Source
from tests.hub.server import LoopbackHub

GATE = "I will use the rows for no commercial purpose\nand <b>not</b> try to find out who anybody is."


@pytest.fixture
def make_repo(tmp_path: Path, make_source: Callable[..., Source]) -> Callable[..., Path]:
    """A client repo under given terms."""

    def make(name: str, licence: str, gate: str = "") -> Path:
        folder = tmp_path / f"{name}-{licence}"
        build(replace(make_source("sft"), name=name, licence=licence, gate=gate), folder)
        write_card(folder)
        return folder

    return make


def writes(hub: LoopbackHub) -> list[str]:
    """What was asked to change anything, in order."""
    return [
        kind
        for request in hub.requests
        for kind in ("create", "settings", "PUT /cdn", "commit")
        if re.search(rf"{kind}\b", f"{request.method} {request.path}") and request.method != "GET"
    ]


def test_the_gate_is_set_before_the_first_file_arrives(
    hub: LoopbackHub, make_repo: Callable[..., Path], repo_id: str
) -> None:
    folder = make_repo("fed-nc", "cc-by-nc-4.0", GATE)
    gated_at_commit = []
    hub.before("POST", "/commit/", lambda: gated_at_commit.append(hub.repo(repo_id).gated))
    publish(folder, repo_id)
    assert gated_at_commit == ["auto"]
    order = list(dict.fromkeys(writes(hub)))
    assert order == ["create", "settings", "PUT /cdn", "commit"]
    assert HfApi().repo_info(repo_id, repo_type="dataset").gated == "auto"
    with pytest.raises(GatedRepoError):
        hf_hub_download(repo_id, "build.json", repo_type="dataset", token="hf_of_somebody_else")
    # The publisher reads on, also to compare the next version.
    assert len(load_clients(repo_id)) == len(load_clients(folder))
    hub.requests.clear()
    assert publish(folder, repo_id).is_unchanged
    assert writes(hub) == ["create"]  # asked again whether it exists, and nothing else


def test_requests_are_answered_by_hand_where_that_is_asked_for(
    hub: LoopbackHub, make_repo: Callable[..., Path], repo_id: str
) -> None:
    folder = make_repo("fed-nc", "cc-by-nc-4.0", GATE)
    publish(folder, repo_id, gated="manual")
    assert hub.repo(repo_id).gated == "manual"
    publish(folder, repo_id)
    assert hub.repo(repo_id).gated == "manual"  # a gated repo stays as it is


@pytest.mark.parametrize("status", [400, 403])
def test_without_the_gate_nothing_is_committed(
    hub: LoopbackHub, make_repo: Callable[..., Path], repo_id: str, status: int
) -> None:
    folder = make_repo("fed-nc", "cc-by-nc-4.0", GATE)
    hub.fail("PUT", "/settings", status=status)
    with pytest.raises(HubError, match=rf"refuses to gate {repo_id} \({status}\).*nothing was committed.*/settings"):
        publish(folder, repo_id)
    assert len(hub.repo(repo_id).commits) == 1
    assert hub.blobs == {}
    publish(folder, repo_id)
    assert hub.repo(repo_id).gated == "auto"


def test_a_setting_that_does_not_take_is_noticed(
    hub: LoopbackHub, make_repo: Callable[..., Path], repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HfApi, "update_repo_settings", lambda *args, **kwargs: None)
    with pytest.raises(HubError, match="is not gated although the Hub took the setting"):
        publish(make_repo("fed-nc", "cc-by-nc-4.0", GATE), repo_id)
    assert hub.blobs == {}


def test_a_private_repo_needs_no_gate_yet_and_the_publisher_is_told(
    hub: LoopbackHub, make_repo: Callable[..., Path], repo_id: str
) -> None:
    result = publish(make_repo("fed-nc", "cc-by-nc-4.0", GATE), repo_id, private=True)
    assert hub.repo(repo_id).gated is False
    assert result.lines()[-1] == (
        f"the repo is private; before you open it, enable access requests at {result.url}/settings"
    )


def test_a_free_corpus_with_a_gate_is_gated_too_and_one_without_is_open(
    hub: LoopbackHub, make_repo: Callable[..., Path], repo_id: str
) -> None:
    publish(make_repo("fed-asks", "odc-by", GATE), f"{repo_id}-a")
    publish(make_repo("fed-open", "odc-by"), f"{repo_id}-b")
    assert (hub.repo(f"{repo_id}-a").gated, hub.repo(f"{repo_id}-b").gated) == ("auto", False)


def test_a_non_commercial_corpus_without_gating_text_is_not_published(
    hub: LoopbackHub, make_repo: Callable[..., Path], repo_id: str
) -> None:
    folder = make_repo("fed-nc", "cc-by-nc-sa-4.0")
    with pytest.raises(SchemaError, match=r"cc-by-nc-sa-4.0 forbids commercial use.* extra_gated_prompt") as caught:
        publish(folder, repo_id)
    assert "\n" not in str(caught.value)
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: cc-by-nc-sa-4.0", "license: mit"))
    with pytest.raises(SchemaError, match=r"the card names the licence 'mit' and build.json 'cc-by-nc-sa-4.0'"):
        publish(folder, repo_id)
    card.write_text("---\nlicense: [\n---\n")
    with pytest.raises(SchemaError, match="front matter is no YAML") as caught:
        publish(folder, repo_id)
    assert "\n" not in str(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("fed-free", "cc-by-4.0"), ("fed-nc", "cc-by-nc-4.0")),
        (("fed-nc", "cc-by-nc-4.0"), ("fed-free", "cc-by-4.0")),
        (("fed-nc", "cc-by-nc-4.0"), ("fed-nc", "cc-by-4.0")),
        (("fed-nc", "cc-by-nc-4.0"), ("fed-other-nc", "cc-by-nc-4.0")),
    ],
    ids=lambda terms: "-".join(terms),
)
def test_non_commercial_rows_share_a_repo_with_nothing_else(
    hub: LoopbackHub, make_repo: Callable[..., Path], repo_id: str, first: tuple[str, str], second: tuple[str, str]
) -> None:
    published = publish(make_repo(*first, GATE), repo_id)
    blobs = set(hub.blobs)
    with pytest.raises(HubError, match=rf"holds {first[0]} \({first[1]}\) and {second[0]} is {second[1]}: .*--repo"):
        publish(make_repo(*second, GATE), repo_id)
    assert hub.repo(repo_id).head == published.revision
    assert set(hub.blobs) == blobs


def test_files_that_no_card_names_are_not_overwritten_by_non_commercial_rows(
    hub: LoopbackHub, make_repo: Callable[..., Path], repo_id: str
) -> None:
    publish(make_repo("fed-free", "cc-by-4.0"), repo_id)
    repo = hub.repo(repo_id)
    repo.commit("theirs", {path: file for path, file in repo.files.items() if path != "README.md"})
    with pytest.raises(HubError, match=r"holds files without a name \(unknown\)"):
        publish(make_repo("fed-nc", "cc-by-nc-4.0", GATE), repo_id)
    # Free rows may follow free rows under another name.
    publish(make_repo("fed-renamed", "cc-by-4.0"), repo_id)


def test_the_card_asks_for_what_the_gate_says(make_repo: Callable[..., Path]) -> None:
    from huggingface_hub import DatasetCard

    folder = make_repo("fed-nc", "cc-by-nc-4.0", GATE)
    written = DatasetCard.load(folder / "README.md").data.to_dict()
    assert written["extra_gated_prompt"] == GATE
    assert written["extra_gated_heading"] == "Conditions of access to fed-nc"
    assert set(written["extra_gated_fields"].values()) == {"checkbox"}
    assert "I use the rows for no commercial purpose" in written["extra_gated_fields"]
    text = (folder / "README.md").read_text().split("\n---\n", 1)[1]
    assert "use it for no commercial purpose" in text
    assert "&lt;b&gt;not&lt;/b&gt; try" in text
    assert json.loads((folder / "build.json").read_text())["gate"] == GATE


@pytest.mark.parametrize("licence", ["Acme: terms", "commercial use prohibited", "cc-by-nc-4.0", ""])
def test_without_a_report_the_card_states_licence_and_gate_as_well(
    tmp_path: Path, make_source: Callable[..., Source], licence: str
) -> None:
    folder = tmp_path / "plain"
    gate = 'I "agree": {yes}\n---\nlicense: mit \U0001f600\x85'
    build(replace(make_source("sft"), name="fed-plain", licence=licence, gate=gate), folder)
    terms = preview(folder, "org/fed-plain").terms
    found = read_licence(licence)
    assert (terms.licence, terms.gate) == (found.slug or found.identifier, gate)


def test_a_gate_that_was_taken_out_of_the_card_is_missed(make_repo: Callable[..., Path]) -> None:
    card = make_repo("fed-asks", "odc-by", "Agree.") / "README.md"
    card.write_text(card.read_text().replace("extra_gated_prompt: Agree.\n", ""))
    with pytest.raises(SchemaError, match=r"build.json states what a reader must agree to.*report"):
        preview(card.parent, "org/fed-asks")
