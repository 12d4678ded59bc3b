"""Ids that differ in form alone are one client, and words for a missing id are none."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.client_ids import canonical_id, is_missing
from fedllm_data.clients import load_clients
from fedllm_data.importer import import_files, row_of
from fedllm_data.schema import row_problem

BLANKS = [
    "",
    " ",
    "\t",
    "\u00a0",
    "\u3000",
    "\n",
    "\ufeff",
    "\u200b",
    " \u200b ",
    "\u200f",
    "\u202a",
    "\u2069 ",
    "\xad",
]
FORMS = st.sampled_from(["NFC", "NFD"])
SEVERAL = settings(max_examples=200, derandomize=True, deadline=None, database=None)


@SEVERAL
@given(st.text(max_size=12), FORMS, FORMS, st.sampled_from(BLANKS), st.sampled_from(BLANKS))
def test_forms_of_one_id_are_one(text, one, other, before, after):
    first = canonical_id(unicodedata.normalize(one, text))
    second = canonical_id(before + unicodedata.normalize(other, text) + after)
    assert first == second == canonical_id(second)


@SEVERAL
@given(st.integers(-(2**53), 2**53))
def test_a_number_is_its_digits_whatever_its_type(number):
    assert canonical_id(number) == canonical_id(float(number)) == canonical_id(f" {number} ") == str(number)


@SEVERAL
@given(st.text("abcXYZ019 _-@.é", min_size=1), st.text("abcXYZ019 _-@.é", min_size=1))
def test_ids_that_differ_in_more_than_form_stay_apart(one, other):
    if one.strip() != other.strip():
        assert canonical_id(one) != canonical_id(other)


@pytest.mark.parametrize(
    "word",
    ["NaN", "nan", "None", "NONE", "null", "NULL", "N/A", "n/a", "NA", "<NA>", "#N/A", "NaT", "(null)", "[NULL]"],
)
@pytest.mark.parametrize("blanks", ["", " ", "\u00a0"])
def test_words_for_a_missing_id_are_none(word, blanks):
    assert is_missing(blanks + word + blanks)
    row = {"client_id": word, "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]}
    assert row_problem(row, "sft") == f"client_id: {word!r} stands for a missing id"


def test_a_float_that_has_lost_digits_is_no_id():
    one, other = 2**60 + 1, 2**60 + 2
    assert float(one) == float(other)
    assert canonical_id(float(one)) == float(one)
    row = row_of({"who": float(one), "instruction": "Q", "response": "A"}, "sft", "who")
    assert row_problem(row, "sft") == "client_id: must be a string, got float"
    assert (canonical_id(one), canonical_id(other)) == (str(one), str(other))


def test_marks_within_an_id_stay_and_one_of_marks_alone_is_missing():
    family, flag = "\U0001f469\u200d\U0001f467", "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "gbeng\x7f")
    assert [canonical_id(text) for text in (family, flag, "\u200f\u05d0\u05d1\u200f")] == [
        family,
        flag,
        "\u05d0\u05d1",
    ]
    assert is_missing("\xad")
    assert is_missing("\u200e \u200f")


def test_names_that_only_look_like_such_words_are_kept():
    assert not any(
        is_missing(name) for name in ("Nancy", "Nanna", "nullah", "Nonette", "na", "Na", "0", "-", "N", "A")
    )


def test_one_person_in_six_forms_is_one_client_and_missing_ids_are_named(tmp_path):
    people = [" ann ", "ann", "ann\u00a0", "Ame\u0301lie", "Amélie", "\ufeffAmélie"]
    missing = ["NaN", "None", "null", "N/A", "", "  ", None, float("nan")]
    rows = [{"who": who, "instruction": f"Q{i}", "response": "A"} for i, who in enumerate([*people, *missing])]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    settings = {"task": "sft", "client_column": "who", "max_rejected_fraction": 1}
    import_files([tmp_path / "rows.jsonl"], tmp_path / "repo", **settings)
    assert sorted(load_clients(tmp_path / "repo", "train")) == ["Amélie", "ann"]
    listed = [json.loads(line) for line in (tmp_path / "repo" / "rejected.jsonl").read_text().splitlines()]
    assert [item["line"] for item in listed] == list(range(7, 15))
    assert all(item["reason"].startswith("client_id: ") for item in listed)
    assert "'N/A' stands for a missing id" in listed[3]["reason"]


def test_a_salt_hashes_the_one_spelling(tmp_path):
    rows = [
        {"who": who, "instruction": f"Q{who}{i}", "response": "A"} for i in range(3) for who in ("Rene\u0301", " René")
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    facts = import_files(
        [tmp_path / "rows.jsonl"], tmp_path / "repo", task="sft", client_column="who", salt=b"s" * 32
    ).facts
    assert facts["clients"]["num_clients"] == 1


def test_row_ids_and_groups_have_one_spelling_too():
    fields = {"who": 7.0, "instruction": "Q", "response": "A", "id": " 3 ", "ticket": "T1 ", "none": "NaN"}
    columns = {"row_id": "id", "group": "ticket"}
    row = row_of(fields, "sft", "who", columns)
    assert (row["client_id"], row["row_id"], row["group"]) == ("7", "3", "T1")
    without = row_of(fields, "sft", "who", {"group": "none", "row_id": "none"})
    assert not {"group", "row_id"} & set(without)
