"""Client tables: every form, every mistake with its place, draws, and what is conserved."""

import json
import math
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.client_ids import canonical_id, is_missing
from fedllm_data.errors import ConfigError
from fedllm_eval.machines.client_table import client_table, write_client_table
from fedllm_eval.machines.machine import Machine, Windows
from fedllm_eval.machines.profiles import profile_of
from fedllm_eval.machines.table_entries import NUMBERS

IDS = ["ann", "bob", "eve"]
ROWS = [
    {"client_id": "ann", "download_mbit": 50.0, "upload_mbit": 10.0, "flops": 1e12, "drop_out": 0.1},
    {"client_id": "bob", "profile": "phone-4g", "memory_gb": 6.0},
    {"client_id": "eve", "download_mbit": 8.0, "upload_mbit": 1.0, "latency_ms": 600.0, "windows": "22:00-06:00"},
]


def save(folder, suffix, rows):
    file = folder / f"nodes{suffix}"
    names = list(dict.fromkeys(name for row in rows for name in row))
    if suffix == ".csv":
        lines = [",".join(names)]
        lines += [",".join(str(row.get(name, "")) for name in names) for row in rows]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]), file)
    elif suffix == ".json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    else:
        file.write_text(yaml.safe_dump(rows, sort_keys=False), encoding="utf-8")
    return file


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json", ".yaml", ".yml"])
def test_every_kind_of_file_gives_the_same_machines(tmp_path, suffix):
    table = client_table(str(save(tmp_path, suffix, ROWS)), IDS, seed=0)
    assert table.machine("ann") == Machine(download_mbit=50.0, upload_mbit=10.0, flops=1e12, drop_out=0.1)
    bob = table.machine("bob")
    assert (bob.download_mbit, bob.memory_gb, bob.profile) == (35.96, 6.0, "phone-4g")
    nights = Windows(((0.0, 21600.0), (79200.0, 86400.0)), 86400.0)
    assert table.machine("eve").windows == nights
    assert table.machine("eve").flops is None
    sources = table.sources()
    assert sources[0].date == "as stated"
    assert re.fullmatch(r"the file nodes\.\w+, sha256 [0-9a-f]{16}", sources[0].source)
    assert {each.name for each in sources[1:]} == {"phone-4g: mobile", "phone-4g: phone"}


def test_a_mapping_by_client_and_a_trace_of_fedscale(tmp_path):
    trace = {"active": [10, 200], "inactive": [100, 250], "finish_time": 300, "duration": 140, "model": "CPH1801"}
    (tmp_path / "t.json").write_text(json.dumps({"ann": {"flops": 1e9, **trace}, "*": {"flops": 2e9}}))
    table = client_table(str(tmp_path / "t.json"), IDS, seed=0)
    assert table.machine("ann").windows == Windows(((10.0, 100.0), (200.0, 250.0)), 300.0)
    assert (table.machine("ann").flops, table.machine("eve").flops) == (1e9, 2e9)
    (tmp_path / "t.yaml").write_text("'007':\n  active: [0, 50]\n  inactive: [20]\n  finish_time: 60\n")
    windows = client_table(str(tmp_path / "t.yaml"), ["007"], seed=0).machine("007").windows
    assert windows == Windows(((0.0, 20.0), (50.0, 60.0)), 60.0)  # open at the end of the period


def test_numbers_win_over_the_profile_and_the_default_row_fills_what_is_empty(tmp_path):
    rows = [
        {"client_id": "*", "profile": "phone-5g", "drop_out": 0.2, "upload_mbit": 3.0},
        {"client_id": "ann", "upload_mbit": 7.0},
        {"client_id": "bob", "profile": "laptop-home", "flops": 5e9},
    ]
    table = client_table(str(save(tmp_path, ".csv", rows)), IDS, seed=0)
    assert [table.machine(name).upload_mbit for name in ("eve", "ann")] == [3.0, 7.0]
    bob = table.machine("bob")  # its own profile stands over the default row's line, which has no say any more
    assert (bob.upload_mbit, bob.flops, bob.drop_out, bob.profile) == (52.84, 5e9, 0.2, "laptop-home")


def test_columns_of_the_clients_table():
    table = pa.table({"client_id": IDS, "num_rows": [1, 2, 3], "profile": ["clinic"] * 3, "watts": [None, 10.0, 20.0]})
    found = client_table("columns", IDS, table, seed=0)
    assert [found.machine(name).watts for name in IDS] == [450.0, 10.0, 20.0]
    with pytest.raises(ConfigError, match=r"has none of 'download_mbit'.*; it has client_id, num_rows"):
        client_table("columns", IDS, table.select(["client_id", "num_rows"]), seed=0)
    with pytest.raises(ConfigError, match="has no column client_id; add it"):
        client_table("columns", IDS, table.drop_columns(["client_id"]), seed=0)
    with pytest.raises(ConfigError, match="it has no columns"):
        client_table("columns", IDS, None, seed=0)


def test_a_mix_is_dealt_by_client_and_its_shares_come_out():
    many = [f"c{number}" for number in range(4000)]
    table = client_table("profiles:phone-4g=0.7,laptop-home=0.3", many, seed=3)
    dealt = Counter(table.machine(name).profile for name in many)
    # Binomial of 4000 at 0.7: standard deviation 29.
    assert abs(dealt["phone-4g"] - 2800) < 5 * 29
    again = client_table("profiles:phone-4g=0.7,laptop-home=0.3", many[:7], seed=3)
    assert [again.machine(name) for name in many[:7]] == [table.machine(name) for name in many[:7]]
    other = client_table("profiles:phone-4g=0.7,laptop-home=0.3", many, seed=4)
    assert [other.machine(name).profile for name in many[:60]] != [table.machine(name).profile for name in many[:60]]


def test_speeds_spread_around_the_profiles_own_as_their_median():
    many = [f"c{number}" for number in range(4001)]
    table = client_table("profile:phone-4g~0.6", many, seed=0)
    base = profile_of("phone-4g").machine
    logs = sorted(math.log(base.flops / table.machine(name).flops) for name in many)
    assert abs(logs[2000]) < 0.06  # the median of 4001 normal draws of sigma 0.6: standard error 0.012
    assert math.sqrt(sum(each**2 for each in logs) / 4001) == pytest.approx(0.6, abs=0.04)
    assert {table.machine(name).upload_mbit for name in many[:50]} == {base.upload_mbit}
    assert table.sources()[-1].numbers == {"sigma": 0.6}
    assert client_table("profile:phone-4g~0", many, seed=0).machine("c1").flops == base.flops


def test_the_mix_does_not_move_the_spread():
    one = client_table("profile:phone-4g~0.5", IDS, seed=0)
    two = client_table("profiles:phone-4g~0.5=1", IDS, seed=0)
    assert [one.machine(name) for name in IDS] == [two.machine(name) for name in IDS]


machine_numbers = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.floats(1e-3, 1e15) for name in NUMBERS if name != "drop_out"},
        "drop_out": st.floats(0, 0.99),
        "profile": st.sampled_from(["phone-4g", "clinic~0.3", "fixed+a100"]),
    },
)
names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6).filter(
    lambda text: text != "*"
)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(names, machine_numbers, min_size=1, max_size=6), st.lists(names, max_size=4), st.integers(0, 2**32)
)
def test_rows_are_a_clients_or_named_and_what_is_written_reads_back(tmp_path_factory, rows, elsewhere, seed):
    folder = tmp_path_factory.mktemp("tables")
    ids = [name for name in rows if name not in elsewhere]
    entries = {"*": {"flops": 1.0}} | rows
    (folder / "t.json").write_text(json.dumps(entries), encoding="utf-8")
    seen = [canonical_id(name) for name in rows]
    if len(set(seen)) < len(seen) or any(is_missing(name) for name in seen) or "*" in seen:
        with pytest.raises(ConfigError, match=r"a second time|no client_id"):
            client_table(str(folder / "t.json"), ids, seed=seed)
        return
    ids = [canonical_id(name) for name in ids]
    table = client_table(str(folder / "t.json"), ids, seed=seed)
    assert len(rows) == len(ids) + len(table.unknown)
    assert set(table.unknown) == set(seen) - set(ids)
    assert len(table.notes()) == bool(table.unknown)
    for name in ids:
        machine = table.machine(name)
        given_numbers = next(row for key, row in rows.items() if canonical_id(key) == name)
        assert all(getattr(machine, key) == value for key, value in given_numbers.items() if key != "profile")
    write_client_table(folder / "client_table.csv", table, ids)
    if ids:
        again = client_table(str(folder / "client_table.csv"), ids, seed=seed + 1)
        assert [again.machine(name) for name in ids] == [table.machine(name) for name in ids]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("client_id,upload_mbit\nann,fast\n", r"line 2, column 'upload_mbit' holds 'fast', which is no number"),
        ('client_id,upload_mbit\nann,"12,5"\n', r"line 2, column 'upload_mbit' holds '12,5'; write 12\.5, not 12,5"),
        ("client_id,upload_mbit\nann,12,5\n", r"line 2 has more values than there are columns; write 12\.5"),
        ("client_id,upload_mbit,flops\nann,12\n", r"line 2 has fewer values than there are columns"),
        ("client_id;upload_mbit\nann;12,5\n", r"parts its columns by semicolons"),
        ("client_id,upload_mbit\nann,-1\n", r"line 2, column upload_mbit is -1\.0; give a positive number"),
        ("client_id,upload_mbit\nann,inf\n", r"line 2, column 'upload_mbit' holds inf"),
        ("client_id,upload_mbit\nann,1_000\n", r"line 2, column 'upload_mbit' holds '1_000'"),
        ("client_id,drop_out\nann,1\n", r"line 2, column 'drop_out' is 1\.0; give a probability"),
        (
            "client_id,uplaod_mbit\nann,1\n",
            r"column 'uplaod_mbit' that is not used; did you mean column upload_mbit\? ",
        ),
        ("client_id,upload_mbit,upload_mbit\nann,1,2\n", r"has two columns 'upload_mbit'"),
        ("name,upload_mbit\nann,1\n", r"has no column client_id"),
        ("client_id,upload_mbit\nann,1\nann ,1\n", r"line 3 names client 'ann' a second time"),
        ("client_id,upload_mbit\n,1\n", r"line 2 has no client_id"),
        ("client_id,upload_mbit\nann,1\n", r"has no row for 2 of 3 clients, the first is 'bob'; add them, or one row"),
        ("client_id,profile\nann,phone4g\n", r"line 2: no profile is called 'phone4g'; did you mean phone-4g\? "),
        ("client_id,profile\nann,phone-4g~x\n", r"line 2: .*the spread 'x' is no sigma"),
        ("client_id,windows\nann,22-6\n", r"line 2: windows '22-6' cannot be read; write hours"),
        ("client_id,windows\nann,25:00-26:00\n", r"line 2: windows '25:00-26:00' leave the day"),
        ("", r"has no column client_id"),
        ("client_id,flops\n", r"has no entry; give one per client"),
    ],
)
def test_mistakes_in_a_file_are_named_with_line_and_column(tmp_path, content, says):
    file = tmp_path / "nodes.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        client_table(str(file), IDS, seed=0)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.json", '{"ann": {"flops": 1}, "ann": {}}', r"names 'ann' twice"),
        ("t.json", '[{"client_id": "ann", "flops": true}]', r"entry 1, column 'flops' holds True"),
        ("t.json", f'{{"ann": {{"flops": {10**400}}}}}', r"client 'ann', column 'flops' holds inf; write a finite"),
        ("t.json", f'{{"ann": {{"flops": -{"1" * 5000}}}}}', r"client 'ann', column 'flops' holds -inf; write a"),
        (
            *("t.json", f'{{"ann": {{"windows": {{"intervals": [[0, 1]], "period": {10**400}}}}}}}'),
            r"windows \(\(0\.0, 1\.0\),\) of period inf; give a positive period",
        ),
        (
            *("t.json", f'{{"ann": {{"windows": {{"intervals": [[0, {10**400}]], "period": 9}}}}}}'),
            r"the window 0 to inf overlaps another, is empty or leaves the period",
        ),
        (
            *("t.json", f'{{"ann": {{"active": [{10**400}], "inactive": [5], "finish_time": 9}}}}'),
            r"client 'ann': a trace has \d times active and \d inactive|client 'ann': the window inf to",
        ),
        ("t.json", "[" * 100_000, r"lists within lists too deep to be read"),
        ("t.yaml", "&a [*a]", r"line 1 names an entry that is part of itself; correct it"),
        ("t.yaml", "ann: {flops: 1}\nbob: &b\n  profile: *b\n", r"line 2 names an entry that is part of itself"),
        ("t.yaml", "a\0b", r"is no YAML \(unacceptable character #x0000: control characters are not allowed in "),
        ("t.json", "[3]", r"entry 1 is 3 and no entry"),
        ("t.json", "3", r"holds neither a list of entries nor a mapping"),
        ("t.json", "{", r"line 1 is no JSON"),
        ("t.json", '{"ann": {"client_id": "bob"}}', r"has a client_id of its own"),
        ("t.json", '{"ann": {"active": [1]}}', r"column 'active' that is not used"),
        ("t.json", '{"ann": {"active": [1, 2], "inactive": [5, 6, 7], "finish_time": 9}}', r"do not take turns"),
        ("t.json", '{"ann": {"active": [1, 4], "inactive": [5, 6], "finish_time": 9}}', r"window 4 to 6 overlaps"),
        ("t.json", '{"ann": {"active": ["x"], "inactive": [5], "finish_time": 9}}', r"a trace needs active and"),
        (
            "t.yaml",
            "- client_id: ann\n  flops: 1\n- client_id: bob\n  flops: x\n",
            r"line 3, column 'flops' holds 'x'",
        ),
        ("t.yaml", "ann: {flops: 1}\nann: {flops: 2}\n", r"line 2 names 'ann' twice"),
        ("t.yaml", "ann: [", r"is no YAML"),
        ("t.yaml", "", r"has no entry"),
        ("t.parquet", "no", r"is no Parquet file"),
        ("t.txt", "no", r"client_table is .*t\.txt'; give a file"),
    ],
)
def test_mistakes_in_json_yaml_and_parquet(tmp_path, name, content, says):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=says) as refused:
        client_table(str(tmp_path / name), IDS, seed=0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no/such.csv", r"no/such\.csv cannot be read"),
        ("profle:phone-4g", r"did you mean profile\? give a file"),
        ("profile:phone-3g", r"no profile is called 'phone-3g'; did you mean phone-[45]g\? "),
        ("profile:starlnk+a100", r"names a line 'starlnk' that there is not; did you mean starlink\? "),
        ("profile:starlink+a10", r"names a device 'a10' that there is not; did you mean a100\? "),
        ("profile:phone-4g~9", r"the spread '9' is no sigma from 0 to 3"),
        ("profiles:phone-4g=0.7,laptop-home=0.2", r"shares that sum to 0\.9; they must sum to 1"),
        ("profiles:phone-4g=70,laptop-home=30", r"'phone-4g=70' is not of the form NAME=SHARE"),
        ("profiles:phone-4g", r"'phone-4g' is not of the form NAME=SHARE"),
        ("profiles:phone-4g=0.5,phone-4g=0.5", r"names 'phone-4g' twice"),
    ],
)
def test_settings_that_cannot_be_read(text, says):
    with pytest.raises(ConfigError, match=says):
        client_table(text, IDS, seed=0)


def test_a_client_without_a_row_is_named(tmp_path):
    file = save(tmp_path, ".csv", ROWS)
    with pytest.raises(ConfigError, match="no row for client 'zoe'"):
        client_table(str(file), IDS, seed=0).machine("zoe")
    table = client_table(str(file), ["ann"], seed=0)
    assert table.unknown == ("bob", "eve")
    assert table.notes() == [
        f"{file} has rows of clients that are not in this split and are not used: 'bob' and 1 more"
    ]


def test_no_machine_needs_torch():
    source = Path(client_table.__code__.co_filename).parent
    assert not [file for file in source.glob("*.py") if "import torch" in file.read_text()]
