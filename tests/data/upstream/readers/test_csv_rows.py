"""Quotes that do not match, escapes and separators: what is read, and how much a bad row costs."""

import csv
import io

import pytest

from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.source import Rejected
from fedllm_data.upstream.raw import ReadSettings
from fedllm_data.upstream.readers.csv_form import check_delimiter
from tests.data.upstream.readers.damage import read

HEAD = "who,q,r\n"


def split(items):
    """Rows by their fields, and the lines of rejected ones."""
    rows = [tuple(item.fields.values()) for item in items if not isinstance(item, Rejected)]
    return rows, [item.line for item in items if isinstance(item, Rejected)]


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ('u0,"5" nail?",r', '5" nail?'),
        ('u0,"say "hi" now",r', 'say "hi" now'),
        ('u0,"Why?" I ask.,r', '"Why?" I ask.'),
        ('u0,"say \\"hi\\", now",r', 'say "hi", now'),
        ('u0,"He said ""hi"" and "bye"",r', 'He said "hi" and "bye"'),
        ('u0,"a text, closed" ,r', "a text, closed"),
        ('u0,"open,r', None),
        ('u0,"open, with, commas,r', None),
        ("u0,one,too,many", None),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_bad_quote_among_five_thousand_rows_costs_one_row_at_most(bad, text, end):
    lines = [f"u{index % 9},q{index},r" for index in range(5_000)]
    lines[100] = bad
    lines[4_000] = 'u1,"well ""quoted""",r'
    items = read((HEAD + "\n".join(lines) + "\n").replace("\n", end).encode(), "rows.csv")
    rows, rejected = split(items)
    assert len(items) == 5_000
    assert rejected == ([] if text else [102])  # the header is line 1, row 101 is line 102
    assert rows[100][1] == (text or "q101")
    assert ("u1", 'well "quoted"', "r") in rows
    assert rows[-1] == ("u4", "q4999", "r")  # 4999 = 9 * 555 + 4


def test_rows_are_where_csv_and_duckdb_see_them():
    duckdb = pytest.importorskip("duckdb")
    text = HEAD + 'a,"5" nail?",r\nb,x,y\nc,"say "hi" now",z\nd,"two\nlines",z\n'
    rows, rejected = split(read(text.encode(), "rows.csv"))
    assert rejected == []
    plain = list(csv.reader(io.StringIO(text)))[1:]
    assert [(row[0], row[2]) for row in rows] == [(row[0], row[2]) for row in plain]
    relation = duckdb.read_csv(
        io.StringIO(text), header=True, delimiter=",", quotechar='"', strict_mode=False, all_varchar=True
    )
    assert rows == relation.fetchall()


@pytest.mark.parametrize(
    ("body", "rows", "rejected"),
    [
        # A quote that is never closed takes no row with it, also where the next rows are quoted, or quote nothing.
        ('a,"open,r\nb,x,""\nc,"",z\nd,"q",r\n', ["b", "c", "d"], [2]),
        ('a,q,"open\nb,x,y\nc,z,"w"\n', ["b", "c"], [2]),
        # It closes by chance where a quoted field begins with a line end or a comma, ...
        ('a,q,"open\nb,x,y\nc,z,"\nhello"\nd,1,2\n', ["b", "c", "d"], [2]),
        ('a,"open,r\nb,x,y\nc,",hello",r\nd,1,2\n', ["b", "c", "d"], [2]),
        # ... but a text that holds a table of as many columns is a text.
        ('a,q,"table:\nx,y,z\nd,e,f"\nb,1,2\n', ["a", "b"], []),
        ('a,"table:\nx,y,z\nd,e,f\n",r\nb,1,2\n', ["a", "b"], []),
        # A bad quote in a field of several lines: the field is read, or its lines are one rejected row.
        ('a,"one\n5" nail, big\nthree",r\nb,x,y\n', ["a", "b"], []),
        ('a,"first\nsecond,r\nb,x,y\n', ["b"], [2]),
        ('a,"first\nsecond\nthird', [], [2]),
        # Two bad rows one after the other are two rejected rows.
        ('a,"open,r\nb,"open,r\nc,x,y\n', ["c"], [2, 3]),
        ('a,"x" y,z,r\nb,"open,r\n', [], [2, 3]),
        ('a,"open\nb,"open\nc,"open\nd,x,y\n', ["d"], [2, 3, 4]),
    ],
)
def test_a_damaged_row_swallows_no_other(body, rows, rejected):
    found, lines = split(read((HEAD + body).encode(), "rows.csv"))
    assert [row[0] for row in found] == rows
    assert lines == rejected


def test_an_open_quote_over_rows_that_are_wrong_themselves_stands_for_none_of_them():
    body = 'a,"open\n' + "b,short\n" * 500 + 'c,closed"\nd,x,y\n'
    rows, rejected = split(read((HEAD + body).encode(), "rows.csv"))
    assert [row[0] for row in rows] == ["d"]
    assert len(rejected) >= 500


def test_a_file_that_escapes_by_backslashes_is_read_as_it_was_written():
    rows = [("a", 'say "hi", now', "C:\\dir"), ("b", "plain", "x\\y"), ("c", 'ends with "', "\\n stays")]
    text = io.StringIO()
    csv.writer(text, doublequote=False, escapechar="\\", lineterminator="\n").writerows([("who", "q", "r"), *rows])
    assert split(read(text.getvalue().encode(), "rows.csv")) == (rows, [])


def test_backslashes_stay_where_quotes_are_doubled():
    rows = [("a", 'a ""quoted"" \\"word\\"', "C:\\dir\\"), ("b", "x\\\\y", 'json: {"a": "\\"b\\""}')]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("who", "q", "r"), *rows])
    assert split(read(text.getvalue().encode(), "rows.csv")) == (rows, [])


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("who;q;r\nann;Hi, there;b, c\n", ("ann", "Hi, there", "b, c")),
        ("who\tq\tr\nann\tHi, there\tb; c\n", ("ann", "Hi, there", "b; c")),
        ("who|q|r\nann|Hi, there|b; c\n", ("ann", "Hi, there", "b; c")),
        ("sep=;\nwho;q;r\nann;Hi;b\n", ("ann", "Hi", "b")),
        # The header holds commas as well, the rows do not as often.
        ("id;question, or text;r\n1;Hi;b\n2;What, now;c\n", ("1", "Hi", "b")),
        # A separator in texts alone is none.
        ("who,q\nann,a;b;c\n", ("ann", "a;b;c")),
        ('who;q;r\nann;"a;""b"";c";"d,e"\n', ("ann", 'a;"b";c', "d,e")),
    ],
)
def test_the_separator_is_read_off_the_file(text, row):
    for name in ("rows.csv", "rows.tsv"):
        assert split(read(text.encode(), name))[0][0] == row


def test_two_separators_that_fit_are_refused_with_the_flag_that_tells():
    text = b"a;b|c;d\n1;2|3;4\n"
    with pytest.raises(SourceError, match=r"separated by ';' or '\|'; say which by --delimiter"):
        read(b"a;b|c\n1;2|3\n", "rows.csv")
    items = read(text, "rows.csv", settings=ReadSettings(delimiter="|"))
    assert split(items) == ([("1;2", "3;4")], [])
    assert [check_delimiter(name) for name in ("tab", "\\t", "semicolon", ";")] == ["\t", "\t", ";", ";"]
    for wrong in ("", ";;", '"', "\n", "é", "\\"):
        with pytest.raises(ConfigError, match="--delimiter"):
            check_delimiter(wrong)


def test_columns_without_a_name_are_kept_apart():
    items = read(b"who,q,,\nann,Hi,,\nbob,Oh,x,y\n", "rows.csv")
    assert [item.fields for item in items] == [
        {"who": "ann", "q": "Hi", "unnamed 3": "", "unnamed 4": ""},
        {"who": "bob", "q": "Oh", "unnamed 3": "x", "unnamed 4": "y"},
    ]
    with pytest.raises(SourceError, match="names the column 'q' twice"):
        read(b"who,q,q\n", "rows.csv")


def test_a_header_whose_quotes_do_not_match_is_refused():
    with pytest.raises(SourceError, match="quotes of its header line do not match"):
        read(b'who,"q,r\na,b,c\n', "rows.csv")


def test_a_tab_separated_file_with_one_bad_quote_keeps_the_quoting_of_the_others():
    text = 'who\tq\nann\t"a ""quoted"" word"\nbob\t"bad" end\ncy\t"tab ""x"""\n'
    assert split(read(text.encode(), "rows.tsv"))[0] == [
        ("ann", 'a "quoted" word'),
        ("bob", '"bad" end'),
        ("cy", 'tab "x"'),
    ]
