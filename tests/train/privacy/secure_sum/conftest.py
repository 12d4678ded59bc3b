"""Some clients of a secure sum for every test."""

import pytest

from tests.train.privacy.secure_sum.parties import Parties, spec_of


@pytest.fixture
def parties(tmp_path):
    return Parties(tmp_path, spec_of(), ["ann", "bob", "cyd", "dan", "eve", "fay"])
