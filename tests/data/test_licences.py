"""Licences in any spelling are the Hub's identifiers or `other`, and their terms are found either way."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.cards.card_words import obligation_words
from fedllm_data.licences import HUB_LICENCES, is_non_commercial, licence_terms, read_licence

COMMONS = [name for name in HUB_LICENCES if name.startswith("cc-by")]


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("CC BY NC 4.0", "cc-by-nc-4.0"),
        ("cc_by_nc_4.0", "cc-by-nc-4.0"),
        ("CC-BY-NC v4.0", "cc-by-nc-4.0"),
        (
            "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0)",
            "cc-by-nc-sa-4.0",
        ),
        ("https://creativecommons.org/licenses/by-nc-nd/4.0/legalcode", "cc-by-nc-nd-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("CC BY-SA-NC 4.0", "cc-by-nc-sa-4.0"),
        ("CC0", "cc0-1.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("The MIT License", "mit"),
        ("GPLv3", "gpl-3.0"),
        ("GPLv3+", "gpl-3.0"),
        ("ＣＣ ＢＹ 4.0", "cc-by-4.0"),
        ("GNU General Public License v3.0 or later", "gpl-3.0"),
        ("GPL-3.0-or-later", "gpl-3.0"),
        ("Open Database License", "odbl"),
        ("ODC-BY 1.0", "odc-by"),
        ("Llama 3.1", "llama3.1"),
        ("", "unknown"),
        # Nothing is guessed: no version, a version or a licence that the Hub does not list.
        ("CC BY-NC", "other"),
        ("CC BY-SA 2.5", "other"),
        ("Acme internal data terms", "other"),
        ("public domain", "other"),
    ],
)
def test_a_spelling_is_the_identifier(text, identifier):
    found = read_licence(text)
    assert found.identifier == identifier
    assert found.name == (text if identifier == "other" else "")
    assert (found.slug == "") == (identifier != "other")


@given(
    st.sampled_from(HUB_LICENCES),
    st.sampled_from(["-", "_", " ", "  ", " - "]),
    st.sampled_from([str.upper, str.lower, str.title]),
    st.sampled_from(["", " License", " licence"]),
)
def test_every_identifier_survives_case_separators_and_the_word_licence(identifier, separator, case, word):
    assert read_licence(case(identifier.replace("-", separator)) + word).identifier == identifier


@given(
    st.sampled_from(COMMONS),
    st.sampled_from([" ", "-", "_", ""]),
    st.booleans(),
    st.sampled_from(["", " International", " Unported", " Generic"]),
    st.randoms(use_true_random=False),
)
def test_creative_commons_in_words_or_letters_in_any_order_of_its_parts(identifier, separator, in_words, port, random):
    *parts, version = identifier.removeprefix("cc-").split("-")
    rest = parts[1:]
    random.shuffle(rest)
    words = {"by": "Attribution", "nc": "NonCommercial", "nd": "NoDerivatives", "sa": "ShareAlike"}
    spelt = [words[part] if in_words else part.upper() for part in ["by", *rest]]
    text = f"{'Creative Commons' if in_words else 'CC'}{separator}{separator.join(spelt)} {version}{port}"
    assert read_licence(text).identifier == identifier, text
    assert licence_terms(text) == set(parts) & {"nc", "nd", "sa"}


@pytest.mark.parametrize("parts", [p for n in range(3) for p in itertools.combinations(("NC", "ND", "SA"), n)])
@pytest.mark.parametrize("tail", ["", " 9.9", " 3.0 IGO", "-2.0-jp"])
def test_terms_are_found_where_there_is_no_identifier(parts, tail):
    text = "-".join(["CC-BY", *parts]) + tail
    assert licence_terms(text) == {part.lower() for part in parts}


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("for non commercial use only", {"nc"}),
        ("No commercial use is permitted", {"nc"}),
        ("not to be used for any commercial purpose", {"nc"}),
        ("nicht-kommerziell", {"nc"}),
        ("非営利目的に限る", {"nc"}),
        ("research only", {"nc"}),
        ("fair-noncommercial-research-license", {"nc"}),
        ("Lizenz: nicht kommerziell", {"nc"}),
        ("commercial use prohibited", {"nc"}),
        ("Commercial use is strictly forbidden", {"nc"}),
        ("commercial usage not allowed", {"nc"}),
        ("Commercial use requires prior written permission", {"nc"}),
        ("Usage commercial interdit", {"nc"}),
        ("aucune utilisation commerciale", {"nc"}),
        ("kein kommerzieller Gebrauch", {"nc"}),
        ("Nutzung zu gewerblichen Zwecken untersagt", {"nc"}),
        ("Sin fines comerciales", {"nc"}),
        ("prohibido el uso comercial", {"nc"}),
        ("uso commerciale vietato", {"nc"}),
        ("commerciële doeleinden zijn niet toegestaan", {"nc"}),
        ("ＣＣ ＢＹ-ＮＣ 4.0", {"nc"}),
        ("NC", {"nc"}),
        ("acme_non_commercial_2", {"nc"}),
        ("AcmeNonCommercial", {"nc"}),
        ("commercial_use_prohibited", {"nc"}),
        ("Reconocimiento-SinObraDerivada", {"nd"}),
        ("GPL v3 or any later version", {"sa"}),
        ("GPLv3+", {"sa"}),
        ("commercial use is allowed", set()),
        ("free for commercial use, no warranty", set()),
        ("use, including commercial use, requires attribution", set()),
        ("no fee for private or public use", set()),
        ("apple-amlr", {"nc"}),
        ("No derivatives", {"nd"}),
        ("share alike", {"sa"}),
        ("odbl", {"sa"}),
        ("GPL-3.0", {"sa"}),
        ("commercial and non-commercial use are allowed", set()),
        ("non-commercial or commercial use", set()),
        ("South Dakota (ND) records of Example SA", set()),
        ("mit", set()),
        ("Researcher.org Data License is not the word", set()),
    ],
)
def test_terms_in_words(text, terms):
    assert licence_terms(text) == terms
    assert is_non_commercial(text) == ("nc" in terms)
    # A card names it by its slug, and is compared with what build.json says.
    found = read_licence(text)
    assert licence_terms(found.slug or found.identifier) == terms


def test_what_a_licence_asks_is_said_in_any_spelling():
    assert obligation_words("CC BY NC 4.0") == obligation_words("cc-by-nc-4.0")
    assert obligation_words("MIT License") == obligation_words("mit") == "keep the copyright notice and the licence"
    asked = obligation_words("CC-BY-NC-ND 3.0 IGO")
    assert re.search("no commercial purpose; pass on no changed version; read the licence", asked)
