r"""No page, table or record breaks on half a surrogate pair, which JSON and names of files may hold.

What is JSON reads back equal; pages and Markdown, which no program reads back, show U+FFFD in its place.
"""

import io
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedllm_data.terminal import run_command
from fedllm_eval.compare import compare_results
from fedllm_eval.comparing.comparison_files import write_comparison
from fedllm_eval.reporting.results_folder import write_results
from fedllm_eval.results import read_results
from fedllm_eval.running.assemble import make_results
from fedllm_eval.running.finished_parts import FinishedPart, FinishedParts
from tests.eval.test_results import client_scores

# Characters of file names, halves of surrogate pairs among them.
NAMES = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=6).filter(
    lambda name: name not in (".", "..")
)


def named(name, losses=(1.0, 2.0, 4.0)):
    about = {"name": name, "base": name, "base_revision": None, "adapter_sha256": None, "revision": None}
    data = {"name": name, "revision": "abc", "num_clients": 9, "num_rows": 99}
    return make_results([client_scores(losses=losses, policy=about, dataset=data, notes=(f"note on {name}",))])


@settings(max_examples=15, deadline=None)
@given(NAMES)
@example("\ud83d")
@example("run\udcff")
@example("\x85")
@example("a\u2028b")
def test_results_of_any_name_are_written_and_read_back(name):
    with TemporaryDirectory() as place:
        results = named(name)
        write_results(results, Path(place, "out"))
        assert read_results(Path(place, "out")).summary == results.summary
        for file in ("results.md", "results.html"):
            assert Path(place, "out", file).read_bytes().decode("utf-8")
        index = yaml.safe_load(Path(place, "out", "model-index.yaml").read_text(encoding="utf-8"))
        assert index["model-index"][0]["name"] == name


def test_a_comparison_of_any_names_is_written(tmp_path):
    folders = []
    for place, losses in (("a", (1.0, 2.0, 4.0)), ("b", (1.5, 2.5, 4.25))):
        write_results(named(f"{place}\ud83d", losses), tmp_path / place)
        folders.append(tmp_path / place)
    write_comparison(compare_results(folders), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    for file in ("comparison.md", "comparison.html"):
        assert (tmp_path / "out" / file).read_bytes().decode("utf-8")


def test_parts_of_any_name_are_kept_and_found_again(tmp_path):
    made = []

    def make():
        made.append(1)
        return FinishedPart({"a": "\ud83d"})

    for _ in range(2):
        part = FinishedParts(tmp_path).get("suite \ud83d", {"file": "x\udcff"}, make)
        assert part.record == {"a": "\ud83d"}
    assert len(made) == 1  # the second time it was there


@pytest.mark.parametrize("text", ["run\udcff", "é\ud83d"])
def test_what_a_command_prints_may_hold_half_a_pair(monkeypatch, text):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    assert run_command("fedllm-eval", lambda: print(json.dumps(text, ensure_ascii=False)), when_interrupted="") == 0
    sys.stdout.flush()
    # The escape that stands in its place is that of JSON: what was printed as JSON still is.
    assert json.loads(raw.getvalue().decode("utf-8")) == text
