"""What build.json states stands in the card and the NOTICE: filters, terms, sizes, people, languages, partitions."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from fedllm_data.cards.card import write_card
from fedllm_data.cards.card_words import (
    client_id_words,
    duplicate_words,
    filter_words,
    language_words,
    obligation_words,
    partition_words,
    scrub_words,
)
from fedllm_data.cards.notice import notice_text
from fedllm_data.errors import SchemaError

HOSTILE = "<script>x</script> | `code` [a](http://x.invalid)\n\n# {{ 7919 * 7907 }}"


@pytest.fixture
def card_of(client_repo: Path) -> Callable[..., str]:
    """The card of a repo whose build.json states something else."""

    def write(**changes: Any) -> str:
        path = client_repo / "build.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return write_card(client_repo).read_text()

    return write


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_filters_stand_in_words_with_their_reasons(card_of: Callable[..., str]) -> None:
    filters = {"unfiltered": False, "min_rows": 5, "max_rows": 1000, "languages": ["de", "te"], "keep_toxic": False}
    card = card_of(filters=filters | {"near_duplicates": 0.8}, filter_reasons="The paper | says nothing.")
    left_out = section(card, "What was left out, and why")
    for words in (
        "- Clients with fewer than 5 rows are left out.",
        "- Of a client at most 1,000 rows are kept, chosen by row id.",
        "- Rows in other languages than de, te are left out.",
        "- Rows that the source flags as toxic are left out.",
        "- Rows at least 0.8 similar to another one (Jaccard, prompt and answers) are left out.",
        "The paper \\| says nothing. Duplicates within a client and across clients are told apart",
    ):
        assert words in left_out


def test_all_that_was_removed_is_counted_under_a_name(card_of: Callable[..., str], client_repo: Path) -> None:
    counts = {
        "num_toxic": 1,
        "num_other_languages": 2,
        "num_wrong_turns": 3,
        "num_too_few_turns": 4,
        "num_too_many_turns": 5,
        "num_too_long": 6,
        "num_near_duplicates_in_client": 7,
        "num_near_duplicates_across_clients": 8,
        "num_clients_over_max": 9,
        "num_rows_of_clients_over_max": 10,
        "num_invented_later": 11,
    }
    card = card_of(counts=counts)
    table = dict(re.findall(r"^\| (.+) \| (\d+) \|$", section(card, "What was left out, and why"), flags=re.MULTILINE))
    assert table["removed: near-duplicates within a client"] == "7"
    assert table["removed: near-duplicates of another client's row"] == "8"
    assert table["clients left out because only the largest are kept"] == "9"
    assert table["invented later"] == "11"
    assert {"1", "2", "3", "4", "5", "6"} <= set(table.values())


def test_published_sizes_stand_beside_ours(card_of: Callable[..., str], client_repo: Path) -> None:
    sizes = [
        {
            "of": "FedLLM-Bench, Fed-Aya",
            "num_clients": 38,
            "num_rows": 25513,
            "reference": "arXiv:2406.04845",
        },
        {"of": "upstream", "num_clients": None, "num_rows": 202362, "reference": "its card"},
    ]
    card = card_of(sizes=sizes)
    assert "| FedLLM-Bench, Fed-Aya | 38 | 25,513 | arXiv:2406.04845 |" in card
    assert "| upstream | – | 202,362 | its card |" in card
    splits = json.loads((client_repo / "build.json").read_text())["splits"]
    num_rows = sum(split["num_rows"] for split in splits.values())
    assert f"| this repo | 24 | {num_rows} | build.json |" in card
    assert "| this repo |" not in card_of(sizes=[])


def test_hashed_ids_name_the_salt_by_its_fingerprint_alone(card_of: Callable[..., str]) -> None:
    assert "Client ids are those that the source publishes." in card_of(client_ids={"hashed": False})
    card = card_of(client_ids={"hashed": True, "salt_fingerprint": "0a1b2c3d"})
    assert "keyed hashes" in card
    assert "fingerprint 0a1b2c3d" in card


def test_the_card_tells_how_often_source_and_detector_disagree(card_of: Callable[..., str]) -> None:
    languages = {"detector": "py3langid", "num_from_upstream": 900, "num_detected": 100, "num_both": 800}
    card = card_of(languages=languages | {"num_disagreeing": 20})
    # 20 of 800 is 0.025.
    assert "On the 800 rows where both speak they disagree on 20 (a share of 0.025)" in card
    assert "No detector was asked." in card_of(languages=languages | {"detector": None})


def test_scrubbing_is_counted_and_its_limits_told(card_of: Callable[..., str]) -> None:
    assert "was not searched for personal data" in section(card_of(scrubbed=None), "Known limits")
    limits = section(card_of(scrubbed={"EMAIL": 1234, "IP": 0}), "Known limits")
    assert "Replaced by placeholders wherever a pattern found them: 1,234 e-mail addresses." in limits
    assert "none was found" in section(card_of(scrubbed={}), "Known limits")


def test_limits_of_the_source_follow_the_general_ones(card_of: Callable[..., str]) -> None:
    limits = section(card_of(limits=["Upstream removed | half of it."]), "Known limits")
    assert limits.rstrip().endswith("- Upstream removed \\| half of it.")
    assert "do not try to find out who a client is" in limits


def test_a_partition_says_what_it_is_a_control_of(card_of: Callable[..., str]) -> None:
    partition = {"rule": "dirichlet", "parameters": {"alpha": 0.1, "column": "language"}, "seed": 7, "parent": "org/a"}
    card = card_of(partition=partition)
    assert "**A control, not natural clients.** The clients of this repo are artificial" in card
    assert "the rows of org/a by the rule dirichlet (alpha 0.1, column language), seed 7" in card
    assert "artificial-partition" in DatasetCard(card).data.tags
    assert "The clients are artificial" in section(card, "Known limits")
    assert "made up and stand for nobody" in card_of(client_ids={"hashed": False, "artificial": True})
    assert "A control" not in card_of(partition=None)
    parent = {"name": "fed-oasst", "revision": "0123456789abcdef" * 4}
    assert "the rows of fed-oasst at 0123456789ab by the rule" in card_of(partition=partition | {"parent": parent})


def test_terms_stand_beside_the_licence(card_of: Callable[..., str]) -> None:
    card = card_of(terms="Outputs of models are under their makers' terms.")
    assert "| terms | Outputs of models are under their makers' terms. |" in section(card, "Where the rows come from")


def test_nothing_in_the_facts_can_break_out(card_of: Callable[..., str]) -> None:
    card = card_of(
        terms=HOSTILE,
        gate=HOSTILE,
        filter_reasons=HOSTILE,
        limits=[HOSTILE],
        sizes=[{"of": HOSTILE, "num_clients": 1, "num_rows": 1, "reference": HOSTILE}],
        languages={"detector": HOSTILE, "num_from_upstream": 1, "num_detected": 0, "num_both": 0},
        scrubbed={HOSTILE: 3},
        client_ids={"hashed": True, "salt_fingerprint": HOSTILE},
        partition={"rule": HOSTILE, "parameters": {HOSTILE: HOSTILE}, "seed": 0, "parent": HOSTILE},
    )
    DatasetCard(card, ignore_metadata_errors=False)
    body = re.sub(r"```.*?```", "", card.split("\n---\n", 1)[1], flags=re.DOTALL)
    assert set(re.findall(r"<(?!/)[^>]*>", body)) == {"<details>", "<summary>"}
    assert "](http://x.invalid)" not in body.replace("\\]", "")
    assert "62615533" not in body
    assert not re.search(r"(?<!\\)`code", body)
    for table in re.findall(r"(?:^\|.*\n)+", body, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_a_build_json_of_before_is_one_line(card_of: Callable[..., str], client_repo: Path) -> None:
    path = client_repo / "build.json"
    facts = json.loads(path.read_text())
    del facts["limits"]
    path.write_text(json.dumps(facts))
    with pytest.raises(SchemaError, match="lacks 'limits' for the card; build the folder again"):
        write_card(client_repo)


def test_the_notice_says_source_terms_and_changes(card_of: Callable[..., str], client_repo: Path) -> None:
    card_of(
        licence="cc-by-sa-4.0",
        terms="As published.",
        scrubbed={"EMAIL": 2},
        client_ids={"hashed": True, "salt_fingerprint": "ff00"},
        attribution="Ann\x00\nRevision: forged",
    )
    notice = (client_repo / "NOTICE").read_text()
    for words in (
        "Source:      org/upstream_corpus",
        "Revision:    0123abc",
        "Licence:     cc-by-sa-4.0 (https://creativecommons.org/licenses/by/4.0/)",
        "Asks for:    credit the source and say what you changed; share what you derive under the same licence",
        "Terms:       As published.",
        "Attribution: Ann Revision: forged",
        "- Replaced by placeholders",
        "2 e-mail addresses",
        "- Client ids are keyed hashes",
    ):
        assert " ".join(words.split()) in " ".join(notice.split())
    assert "\nRevision: forged" not in notice
    assert max(map(len, notice.splitlines())) <= 100
    assert notice_text({"name": "n"}).splitlines()[0] == "n"


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("", "not known: ask the source before you pass rows on"),
        ("apache-2.0", "keep the licence and the notices, and say what you changed"),
        ("cc0-1.0", "nothing"),
        ("cc-by-4.0", "credit the source and say what you changed"),
        (
            "cc-by-nc-sa-4.0",
            "credit the source and say what you changed; use it for no commercial purpose; "
            "share what you derive under the same licence",
        ),
        ("cc-by-nd-4.0", "credit the source and say what you changed; pass on no changed version"),
        ("odc-by", "name the source wherever the rows or what is made of them are shown"),
        ("other", "read the licence before you use the rows"),
        ("cc", "read the licence before you use the rows"),
    ],
)
def test_what_licences_ask(licence: str, words: str) -> None:
    assert obligation_words(licence) == words


def test_words_of_extremes() -> None:
    assert filter_words({"unfiltered": True, "min_rows": 1})[0].startswith("Nothing: every client")
    assert filter_words({"min_rows": 1, "keep_toxic": True}) == []
    assert "verdict of its own" in duplicate_words({"num_duplicates_across_clients_kept": 0})
    unfiltered = {"num_duplicates_across_clients_kept": 0, "num_duplicates_in_client_kept": 0}
    assert "told apart" in duplicate_words(unfiltered)
    assert client_id_words({}) == "Client ids are those that the source publishes."
    assert language_words({"detector": None}) == "Neither the source nor a detector says the language."
    assert scrub_words({}).startswith("Replaced by placeholders wherever a pattern found them: none was found.")
    assert "(size" not in partition_words({"rule": "x", "parameters": {"size": None}, "seed": 1, "parent": "p"})
