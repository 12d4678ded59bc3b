"""The one look and the columns say what the checks and Arrow say row by row, whatever the rows hold."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.pipeline.facts import facts_of, facts_of_rows
from fedllm_data.pipeline.row_columns import table_of_rows
from fedllm_data.schema import SCHEMAS, is_plain, row_problem
from fedllm_data.upstream.arrow_values import rows_of_batch

TEXTS = st.one_of(
    st.sampled_from(["Hi", "", "  ", "a\0b", "\ud800", "İ ß", "e\u0301", "\x1f", "🙂" * 50, "x" * 5_000]),
    st.text(st.characters(codec=None), max_size=12),
)
ROLES = st.sampled_from(["system", "user", "assistant", "user", "assistant", "tool", None, 3, ("user",), []])
ODD = st.one_of(
    st.none(),
    TEXTS,
    st.just([]),
    st.just({"role": "user"}),
    st.dictionaries(st.sampled_from(["role", "content", "weight"]), st.one_of(ROLES, TEXTS)),
)
MESSAGES = st.lists(st.one_of(st.fixed_dictionaries({"role": ROLES, "content": TEXTS}), ODD), max_size=5)
GOOD_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(str.strip)
many = settings(max_examples=300, derandomize=True, deadline=None, database=None)


@st.composite
def conversations(draw):
    turns = draw(st.integers(1, 3))
    roles = [*draw(st.sampled_from([[], ["system"]])), *["user", "assistant"] * turns]
    return [{"role": role, "content": draw(GOOD_TEXT)} for role in roles]


@many
@given(st.one_of(MESSAGES, conversations(), ODD))
def test_what_passes_the_one_look_has_no_problem_and_a_tuple_of_it_is_judged_alike(messages):
    row = {"client_id": "ann", "messages": messages}
    problem = row_problem(row, "sft")
    if is_plain(messages, "user", "assistant"):
        assert problem is None
    if isinstance(messages, list):
        # A tuple never takes the one look: the checks alone speak.
        assert row_problem(row | {"messages": tuple(messages)}, "sft") == problem


@many
@given(st.lists(st.tuples(conversations(), st.sampled_from(["ann", "Zoë", "7"]), st.booleans()), max_size=6))
def test_columns_are_what_arrow_makes_of_rows(drawn):
    rows = [
        {"client_id": who, "row_id": str(index), "language": "en", "messages": messages}
        | ({"detected_language": "fr"} if is_detected else {})
        for index, (messages, who, is_detected) in enumerate(drawn)
    ]
    table = table_of_rows(rows, SCHEMAS["sft"])
    assert table.equals(pa.Table.from_pylist(rows, schema=SCHEMAS["sft"]))
    for batch in table.to_batches():
        assert rows_of_batch(batch) == batch.to_pylist()
        assert rows_of_batch(batch.slice(1)) == batch.slice(1).to_pylist()


@many
@given(st.lists(st.tuples(conversations(), st.sampled_from([None, "thread"]), st.booleans()), min_size=1, max_size=6))
def test_facts_of_rows_together_are_those_of_each_alone(drawn):
    rows = [
        {"client_id": f"hash{index}", "language": "en", "messages": messages} | ({"row_id": "r"} if has_id else {})
        for index, (messages, _, has_id) in enumerate(drawn)
    ]
    upstream_ids, groups = [str(index) for index in range(len(rows))], [group for _, group, _ in drawn]
    together = facts_of_rows(rows, "sft", "fed", 3, upstream_ids=upstream_ids, groups=groups)
    for index, row in enumerate(rows):
        alone = facts_of(row, "sft", "fed", 3, upstream_id=upstream_ids[index], group=groups[index])
        assert {name: values[index] for name, values in together.items()} == alone


NESTED = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
MAYBE = st.lists(
    st.one_of(
        st.none(),
        st.lists(st.one_of(st.none(), st.fixed_dictionaries({"role": st.none(), "content": GOOD_TEXT})), max_size=3),
    ),
    max_size=5,
)


@many
@given(MAYBE, st.integers(0, 3))
def test_nulls_and_slices_of_nested_columns_read_as_arrow_reads_them(values, start):
    batch = pa.RecordBatch.from_arrays([pa.array(values, NESTED), pa.array(values, NESTED)], ["a", "b"]).slice(start)
    assert rows_of_batch(batch) == batch.to_pylist()
