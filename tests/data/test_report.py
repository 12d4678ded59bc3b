import json
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from fedllm_data.build import build
from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.errors import FedLLMError, ReportError
from fedllm_data.report import dump_json, heterogeneity_report, write_report
from fedllm_data.sources import SOURCES

HOSTILE = "<script>alert('x')</script>/../../{{ 7 * 7 }}"
FEW = {"num_null": 99, "num_bootstrap": 49}


def _rows(ids: list[str], seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for index, client_id in enumerate(ids):
        for _ in range(int(rng.integers(2, 30))):
            messages = [
                {"role": "user", "content": "word " * int(rng.integers(1, 20))},
                {"role": "assistant", "content": "word " * int(rng.integers(1, 30 * (1 + index)))},
            ]
            language = str(rng.choice(["en", "fr", "de"])) if index else "en"
            rows.append({"client_id": client_id, "language": language, "messages": messages})
    return rows


def _clients(ids: list[str], split: str = "train", seed: int = 0) -> ClientDataset:
    return ClientDataset.from_dataset(datasets.Dataset.from_list(_rows(ids, seed)), name="fed-test", split=split)


def _client_repo(place):
    """A folder with the files that a report reads: train and unseen rows, and public ones that it must not."""
    folder = place / "fed-test"
    (folder / "data").mkdir(parents=True)
    for seed, (split, ids) in enumerate(
        {"train": [HOSTILE, "b", "c", "d", "e"], "unseen": ["x", "y"], "public": ["public"]}.items()
    ):
        table = _clients(ids, split, seed).rows.data.table
        pq.write_table(table, folder / f"data/{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def client_repo(tmp_path):
    return _client_repo(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with a report that tests may look at, and what `write_report` returned."""
    place = tmp_path_factory.mktemp("report")
    return place / "out", write_report(_client_repo(place), place / "out")


def test_report_covers_the_rows_of_all_clients_and_no_public_row(written, client_repo, tmp_path):
    document = written[1]
    assert document["splits"] == ["train", "unseen"]
    assert document["num_clients"] == 7
    assert "public" not in document["clients"]["client_id"]
    assert document["name"] == "fed-test"
    assert write_report(client_repo, tmp_path / "unseen", split="unseen")["clients"]["client_id"] == ["x", "y"]


@pytest.mark.usefixtures("no_page")
def test_the_filter_of_the_build_reaches_the_null_of_a_whole_report(client_repo, tmp_path):
    (client_repo / "build.json").write_text('{"filters": {"min_rows": 2}}')
    assert write_report(client_repo, tmp_path / "out")["config"]["min_client_rows"] == 2
    assert write_report(client_repo, tmp_path / "out", split="unseen")["config"]["min_client_rows"] == 1
    quantity = '"partition": {"rule": "quantity", "parameters": {"skew": 1.0}, "parent": {"name": "fed-test"}}'
    for cut in (quantity, '"split_counts": {"num_unseen_rows_dropped": 3}'):
        (client_repo / "build.json").write_text(f'{{"filters": {{"min_rows": 2}}, {cut}}}')
        assert write_report(client_repo, tmp_path / "out")["config"]["min_client_rows"] == 1
    (client_repo / "build.json").write_text("{}")
    with pytest.raises(ReportError, match=r"build.json of .* names no filters.min_rows: build the repo again"):
        write_report(client_repo, tmp_path / "out")


def test_files_are_those_of_the_axes_and_no_client_id_names_one(written):
    out, document = written
    lacking = {name for name, axis in document["axes"].items() if axis["verdict"] == "not enough data"}
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
    assert found == [
        "codebook.json",
        "figures",
        *sorted(
            f"figures/{name}.{kind}"
            for name in ("overview", "similarity", *(axis for axis in document["axes"] if axis not in lacking))
            for kind in ("svg", "png")
        ),
        "heterogeneity.json",
        "report.html",
    ]
    for path in (out / "figures").glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_same_seed_and_rows_write_the_same_bytes_anywhere(written, client_repo, tmp_path):
    write_report(client_repo, tmp_path / "out")
    for path in written[0].rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(written[0])).read_bytes()


def test_json_file_is_the_returned_document_and_names_no_place_on_this_machine(written):
    out, document = written
    text = (out / "heterogeneity.json").read_text()
    assert json.loads(text) == document
    assert str(out.parent) not in text + (out / "report.html").read_text()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [
            value for name, value in attrs if name in ("src", "href", "xlink:href") and not value.startswith("#")
        ]


def test_page_escapes_client_ids_and_loads_nothing(written):
    page = (written[0] / "report.html").read_text()
    tags = _Tags()
    tags.feed(page)
    assert tags.tags.count("script") == 3  # the data, the choice of language and our own; none is loaded from anywhere
    assert [address for address in tags.addresses if not address.startswith("data:")] == []
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page  # shown as it is, not evaluated
    assert tags.tags.count("figure") == sum(
        axis["verdict"] != "not enough data" for axis in written[1]["axes"].values()
    )


def test_an_earlier_report_is_replaced_and_figures_without_data_go(client_repo, tmp_path):
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    (out / "figures/quantity.svg").write_text("old")
    (out / "notes.txt").write_text("mine")
    one_client = tmp_path / "one-client"
    (one_client / "data").mkdir(parents=True)
    pq.write_table(_clients(["a"]).rows.data.table, one_client / "data/train-00000-of-00001.parquet")

    document = write_report(one_client, out)

    assert list((out / "figures").iterdir()) == []
    assert (out / "notes.txt").read_text() == "mine"
    assert document["summary"].startswith("One client alone: not enough data on quantity, language")
    assert "not enough data: 1 client, at least 2 are needed" in (out / "report.html").read_text()


def test_report_is_the_same_for_clients_in_another_order():
    rows = _rows(list("abcdef"))
    one, two = (
        heterogeneity_report(ClientDataset.from_dataset(datasets.Dataset.from_list(some)), **FEW)
        for some in (rows, rows[::-1])
    )
    assert one.to_json()["axes"] == two.to_json()["axes"]


def test_table_has_a_line_an_axis_or_a_line_a_measure():
    report = heterogeneity_report(_clients(list("abcdef")), **FEW)
    assert len(report.table().splitlines()) == 2 + len(report.axes)
    num_measures = sum(len(result.estimates) for result in report.axes.values())
    assert len(report.table(all_measures=True).splitlines()) == 2 + num_measures
    assert "| quantity | Coefficient of variation (ratio) |" in report.table()


def test_summary_says_in_which_axes_clients_differ():
    rows = [
        {"client_id": client_id, "language": client_id, "messages": [{"role": "user", "content": "hi"}, turn]}
        for client_id in ("en", "fr", "de")
        for turn in [{"role": "assistant", "content": "one two"}, {"role": "assistant", "content": "three"}] * 10
    ]
    report = heterogeneity_report(ClientDataset.from_dataset(datasets.Dataset.from_list(rows)), **FEW)
    some = {name: report.axes[name] for name in ("quantity", "language", "length")}
    assert replace(report, axes=some).summary() == (
        "The 3 clients differ in language more than chance explains; they do not differ in quantity and length more"
        " than chance explains."
    )


def test_clients_of_one_row_each_leave_only_quantity(tmp_path):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    rows = [{"client_id": f"c{index}", "language": "en", "messages": turns} for index in range(8)]
    folder = tmp_path / "repo"
    (folder / "data").mkdir(parents=True)
    table = ClientDataset.from_dataset(datasets.Dataset.from_list(rows)).rows.data.table
    pq.write_table(table, folder / "data/train-00000-of-00001.parquet")
    document = write_report(folder, tmp_path / "out")
    verdicts = {name: axis["verdict"] for name, axis in document["axes"].items()}
    assert verdicts == dict.fromkeys(verdicts, "not enough data") | {"quantity": "no more than chance"}
    assert document["clients"]["main_language"] == [None] * 8


def test_report_tells_generated_clients_with_heterogeneity_from_clients_without(tmp_path):
    sizes = {"num_clients": "60", "mean_rows": "15", "public_rows": "100"}
    flat = dict.fromkeys(("size_skew", "language_skew", "length_skew", "quality_skew", "topic_skew"), "0")
    verdicts = {}
    for name, options in {"skewed": sizes, "flat": sizes | flat}.items():
        build(SOURCES["fed-synth"], tmp_path / name, options=options)
        datasets = [load_clients(tmp_path / name, split) for split in ("train", "test", "unseen")]
        report = heterogeneity_report(datasets, num_null=119, num_bootstrap=1)  # the smallest p: 6 / 120, corrected
        verdicts[name] = {axis: result.verdict for axis, result in report.axes.items()}
    assert "preference" not in report.axes
    assert verdicts == {
        "skewed": dict.fromkeys(report.axes, "more than chance"),
        "flat": dict.fromkeys(report.axes, "no more than chance"),
    }


def test_measures_carry_everything_needed_to_read_them():
    document = heterogeneity_report(_clients(list("abcdef")), **FEW).to_json()
    for axis in document["axes"].values():
        assert axis["headline"] in axis["measures"]
        for measure in axis["measures"].values():
            assert measure["unit"]
            assert measure["meaning"]
            assert (measure["value"] is None) == (measure["reason"] is not None)
    assert document["config"]["tokenizer"] == "unicode-words"
    assert {len(column) for column in document["clients"].values()} == {6}


def test_json_text_keeps_what_it_is_given():
    value = {"a": {}, "b": [1, None, "é"], "c": {"d": [], "e": 0.1}}
    assert json.loads(dump_json(value)) == value


def test_splits_of_two_formats_are_refused():
    turn = [{"role": "user", "content": "hi"}]
    answers = {"chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]}
    pairs = ClientDataset.from_dataset(datasets.Dataset.from_list([{"client_id": "a", "prompt": turn, **answers}]))
    with pytest.raises(ReportError, match="fed-test mixes preference and sft rows"):
        heterogeneity_report([_clients(["a"]), pairs])


def test_no_split_and_impossible_settings_are_refused():
    with pytest.raises(ReportError, match="no split to report on"):
        heterogeneity_report([])
    with pytest.raises(ReportError, match="num_null=0"):
        heterogeneity_report(_clients(["a"]), num_null=0)


def test_a_file_in_place_of_the_output_folder_is_refused(client_repo, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ReportError, match="out is a file: give a folder for the report"):
        write_report(client_repo, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_that_is_no_client_repo_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FedLLMError, match="is no client repo"):
        write_report(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()
