"""Upstream records with faults at random places, and what every source promises about them."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fedllm_data.build import build
from fedllm_data.check import check_repo
from fedllm_data.errors import SourceError

THOROUGH = settings.get_current_profile_name() == "thorough"


def fuzz(few, all_of_them):
    """A decorator for a property of a source: few examples in `make test`, all of them in `make test-slow`."""
    drawn = settings(
        max_examples=all_of_them if THOROUGH else few,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    return lambda test: pytest.mark.fuzz(drawn(test))


READ = fuzz(20, 100)
BUILD = fuzz(4, 25)

TEXTS = st.one_of(
    st.sampled_from(["", " \n", "\ud800", "nul\0", "How are you?", "Wie geht es dir?", "public", "{'a': 1}", "[1]"]),
    st.text(max_size=20),
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    TEXTS,
    st.recursive(
        st.none() | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "flagged", "x"]), inner),
        max_leaves=4,
    ),
)


def _places(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


@st.composite
def faulty(draw, records):
    """A record of the strategy with up to three faults: a value replaced, taken out or, in a list, doubled."""
    record = copy.deepcopy(draw(records))
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(record))
        if not places:
            break
        *path, key = draw(st.sampled_from(places))
        holder = record
        for step in path:
            holder = holder[step]
        fault = draw(st.sampled_from(["replace", "take out", "double"]))
        if fault == "replace" or (fault == "double" and isinstance(holder, dict)):
            holder[key] = draw(ODD)
        elif fault == "take out":
            del holder[key]
        else:
            holder.insert(key, copy.deepcopy(holder[key]))
    return record


def write_records(folder, records):
    path = Path(folder, "upstream.jsonl")
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def assert_every_record_is_accounted_for(source, records, options):
    """One item per record, at its line; nothing is raised."""
    with TemporaryDirectory() as place:
        items = list(source.read(write_records(place, records), 0, options))
    assert [item.line for item in items] == list(range(1, len(records) + 1))
    assert {item.file for item in items} <= {"upstream.jsonl"}


def assert_builds_or_says_why_not(source, records, unfiltered):
    """A repo that `check` accepts and whose counts add up, or the error that nothing is left."""
    settings = {"unfiltered": True} if unfiltered else {"filters": replace(source.filters, min_rows=1)}
    with TemporaryDirectory() as place:
        out = Path(place, "repo")
        try:
            result = build(source, out, source_path=write_records(place, records), salt=b"s" * 32, **settings)
        except SourceError as error:
            message = str(error)
        else:
            message = ""
        if message:
            assert "none" in message
            assert not out.exists()
            return
        assert check_repo(out) == []
        counts = result.facts["counts"]
        assert counts["num_valid"] + counts["num_rejected"] == len(records)
        assert len((out / "rejected.jsonl").read_text().splitlines()) == counts["num_rejected"]


def builds_soundly(source, path, repo):
    """Whether a sound repo comes out of a file, or the error says that no rows are left."""
    try:
        build(source, repo, source_path=path, unfiltered=True)
    except SourceError as error:
        return "none" in str(error)
    return check_repo(repo) == []
