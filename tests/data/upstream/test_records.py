"""Tab-separated files with and without quoting."""

import pytest

from fedllm_data.source import Rejected
from fedllm_data.upstream.records import Record, read_records


@pytest.fixture
def read(tmp_path):
    def items(text):
        path = tmp_path / "rows.tsv"
        path.write_bytes(text.encode())
        return list(read_records(path))

    return items


def test_a_tsv_with_bare_quotes_is_read_as_it_stands(read):
    items = read('who\twhat\nann\t"Why?" I hear you ask.\nbob\t"Oh."\ncy\tplain\n')
    assert [(item.line, item.fields["what"]) for item in items] == [
        (2, '"Why?" I hear you ask.'),
        (3, '"Oh."'),
        (4, "plain"),
    ]


def test_a_tsv_whose_quotes_all_close_is_read_with_quoting(read):
    items = read('who\twhat\nann\t"a ""b"" c"\nbob\t"two\nlines"\ncy\tsays "no"\n')
    assert [(item.line, item.fields["what"]) for item in items] == [
        (2, 'a "b" c'),
        (3, "two\nlines"),
        (5, 'says "no"'),
    ]


def test_a_quoted_tsv_with_a_field_over_two_lines_stays_quoted_where_a_quote_is_damaged(read):
    items = read('who\twhat\nann\t"two\nlines"\nbob\t"bad" end\ncy\t"open\ndee\t"well"\n')
    assert [(item.line, item.fields["what"]) for item in items if isinstance(item, Record)] == [
        (2, "two\nlines"),
        (4, '"bad" end'),
        (6, "well"),
    ]
    assert [item.line for item in items if isinstance(item, Rejected)] == [5]
