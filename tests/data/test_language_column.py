"""Languages on import: any name or code of one language is one code, other words cost nothing but themselves."""

import json
import unicodedata

import langcodes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langcodes.data_dicts import LANGUAGE_ALPHA3

from fedllm_data.arguments import filters_of, make_parser
from fedllm_data.clients import load_clients
from fedllm_data.errors import ConfigError
from fedllm_data.importer import import_files
from fedllm_data.language_column import are_languages
from fedllm_data.pipeline.language_detection import language_code
from fedllm_data.source import Filters

# Not Bihari, a family; Tagalog, whose name in CLDR is Filipino's; Nauru, which reads as a missing value.
TOLD = sorted({code for code in LANGUAGE_ALPHA3 if len(code) == 2} - {"bh", "na", "tl"})
FRENCH = ["fr", "fra", "fre", "FR", "fr-CA", "fr_FR.UTF-8", "French", "french", "Français", "franc\u0327ais", " fr "]


@st.composite
def spellings(draw):
    code = draw(st.sampled_from(TOLD))
    language = langcodes.get(code)
    spelling = draw(st.sampled_from([code, language.to_alpha3(), language.display_name("en")]))
    spelling = draw(st.sampled_from([str, str.upper, str.lower, str.title]))(spelling)
    spelling = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), spelling)
    if len(spelling) <= 3:
        spelling += draw(st.sampled_from(["", "-Latn", "_XX", "-001"]))
    return code, draw(st.sampled_from(["", " "])) + spelling + draw(st.sampled_from(["", "  "]))


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(spellings())
def test_any_spelling_of_a_language_is_one_code(case):
    code, spelling = case
    assert language_code(spelling) == language_code(code) != "und"


def test_codes_stand_for_themselves_but_for_old_ones_and_members():
    old = {"in": "id", "iw": "he", "ji": "yi", "jw": "jv", "mo": "ro", "sh": "sr", "tw": "ak"}
    assert {code: language_code(code) for code in TOLD} == {code: old.get(code, code) for code in TOLD}


@pytest.mark.parametrize(
    "word",
    [*"Go go Python Java JavaScript golang Kotlin C C++ C# R Rust SQL TypeScript nan NaN NA None null N/A 42".split(),
     "", " ", "formal", "English or French", "Danish pastry", "x" * 90],
)  # fmt: skip
def test_any_other_word_is_undetermined(word):
    assert language_code(word) == "und"


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(st.lists(st.sampled_from([*FRENCH, "de", "English", "pt-BR", "zh-Hans", "uk_UA"]), min_size=1))
def test_columns_of_languages_are_told_whatever_the_spelling(values):
    assert are_languages([*values, None, "nan", "und", ""])


@pytest.mark.parametrize(
    "values",
    [
        ["Go"],
        ["Go", "Python", "Rust"],
        ["python", "java", "javascript", "go", "php", "ruby"],  # CodeSearchNet
        ["Lua", "CSS", "Ada", "XML"],  # codes of Luba-Lulua, Costanoan, Adangme and a sign language
        ["formal", "informal"],
        ["nan", None, ""],
        [],
    ],
)
def test_columns_of_something_else_are_not(values):
    assert not are_languages(values)


def imported(tmp_path, values, column="language", **settings):
    rows = [
        {
            "who": f"w{i % 2}",
            "instruction": f"How does this thing number {i} work?",
            "response": "Like that.",
            column: value,
        }
        for i, value in enumerate(values)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    result = import_files([tmp_path / "rows.jsonl"], tmp_path / "repo", task="sft", client_column="who", **settings)
    found = [row for split in result.num_rows for row in load_clients(tmp_path / "repo", split).rows]
    by_number = {int(row["messages"][0]["content"].split()[5]): row["language"] for row in found}
    return [by_number.get(i) for i in range(len(values))], result.facts


def test_every_row_keeps_its_place_and_one_code_whatever_its_spelling(tmp_path):
    values = [*FRENCH, "English", "eng", "zh-Hans", "nan", None, 7, "Elvish"]
    languages, facts = imported(tmp_path, values)
    # The detector says `en` of the English rows that nobody marked.
    assert languages == ["fr"] * len(FRENCH) + ["en", "en", "zh", "en", "en", "en", "en"]
    assert facts["counts"]["num_rejected"] == 0
    assert facts["reading"]["language"]["is_used"]
    assert facts["reading"]["language"]["unknown"] == {"7": 1, "Elvish": 1}


def test_one_language_in_two_spellings_is_one_for_the_filter(tmp_path):
    languages, _ = imported(tmp_path, ["eng", "en", "English", "fra"] * 3, filters=Filters(languages=("en",)))
    assert languages == ["en", "en", "en", None] * 3


def test_programming_languages_are_left_alone_and_that_is_said(tmp_path):
    languages, facts = imported(tmp_path, ["Go", "Python", "Java", "Lua"] * 2)
    assert languages == ["en"] * 8
    assert not facts["reading"]["language"]["is_used"]
    assert facts["reading"]["language"]["values"] == ["Go", "Python", "Java", "Lua"]


def test_a_column_that_is_asked_for_is_used_whatever_it_holds(tmp_path):
    languages, facts = imported(tmp_path, ["Go", "Rust", "fr"], column="tongue", columns={"language": "tongue"})
    assert languages == ["en", "en", "fr"]
    assert facts["reading"]["language"]["unknown"] == {"Go": 1, "Rust": 1}


def test_the_preset_is_for_rows_that_say_nothing(tmp_path):
    languages, _ = imported(tmp_path, ["fr", "nan", None, "de"], language="Italian")
    assert languages == ["fr", "it", "it", "de"]
    with pytest.raises(ConfigError, match="--language 'Elvish' is no language"):
        imported(tmp_path, ["fr"], language="Elvish", overwrite=True)


def test_a_column_that_no_file_has_is_refused(tmp_path):
    for target in ("language", "group"):
        with pytest.raises(
            ConfigError, match=f"--columns {target}=zzz: no file has it: column 'zzz' is missing; the c"
        ):
            imported(tmp_path, ["fr"], columns={target: "zzz"})
        with pytest.raises(ConfigError, match=r"did you mean 'language'\? the columns are 'who', "):
            imported(tmp_path, ["fr"], columns={target: "langage"})


def test_languages_to_keep_are_named_in_any_way():
    names = "list build import partition organisations check codebook profile report publish".split()
    parser = make_parser(dict.fromkeys(names, print))
    arguments = parser.parse_args(["build", "fed-synth", "--out", "x", "--languages", "eng,French,zh-Hans,und"])
    assert filters_of(arguments, Filters()).languages == ("en", "fr", "zh", "und")
    arguments = parser.parse_args(["build", "fed-synth", "--out", "x", "--languages", "Elvish"])
    with pytest.raises(ConfigError, match="'Elvish' is no language"):
        filters_of(arguments, Filters())
