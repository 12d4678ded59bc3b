"""Tables in XML: a damaged row costs itself."""

import pytest

from fedllm_data.errors import SourceError
from fedllm_data.source import Rejected
from fedllm_data.upstream.raw import ReadSettings
from tests.data.upstream.readers.damage import read

HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
ROWS = [f'  <row Id="{index}" Body="a &lt; b é" />\n' for index in range(5)]


def ids(content, **settings):
    items = read(content if isinstance(content, bytes) else content.encode(), "Posts.xml", **settings)
    return [None if isinstance(item, Rejected) else item.fields["Id"] for item in items]


@pytest.mark.parametrize(
    "bad",
    [
        '  <row Id="2 Body="a" />\n',
        '  <row Id="2" Body="a < b" />\n',
        '  <row Id="2" Body="a" \n',
        '  <row Id="2" Body="a" Body="b" />\n',
        '  <row Id="2" Body="&nothing;" />\n',
        '  <row Id="2" Body="\x01" />\n',
    ],
)
def test_a_damaged_row_costs_itself(bad):
    content = HEAD + "".join([*ROWS[:2], bad, *ROWS[3:]]) + "</posts>\n"
    assert ids(content) == ["0", "1", None, "3", "4"]


def test_a_file_that_is_cut_off_keeps_its_rows(caplog):
    whole = HEAD + "".join(ROWS)
    assert ids(whole[:-10]) == ["0", "1", "2", "3", None]
    assert ids(whole + "  <row") == ["0", "1", "2", "3", "4", None]
    assert caplog.text == ""
    assert ids(whole) == ["0", "1", "2", "3", "4"]
    assert "damaged after its 5 rows" in caplog.text


def test_the_declared_encoding_counts_and_another_is_refused():
    content = HEAD + "".join(ROWS) + "</posts>\n"
    declared = content.replace("utf-8", "latin-1")
    assert ids(declared.encode("latin-1")) == list("01234")
    assert ids(declared.encode("latin-1").replace(b'"2"', b'"2')) == ["0", "1", None, "3", "4"]
    assert ids(content.replace("utf-8", "utf-16").encode("utf-16")) == list("01234")
    with pytest.raises(SourceError, match="import it with --encoding cp1252"):
        ids(content.encode("latin-1"))
    assert ids(content.encode("latin-1"), settings=ReadSettings(encoding="cp1252")) == list("01234")
