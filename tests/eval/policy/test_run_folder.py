"""A run folder is declared once: what is read back, of folders of either layout, and what of a broken one is said."""

import json

import pytest
import yaml

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.locate import locate
from fedllm_eval.policy.run_folder import (
    RUN_FORMAT,
    find_config,
    is_private_run,
    read_config,
    read_released_rounds,
    read_rounds,
    run_format,
    whole_lines,
)

LEDGER = {"download_bytes": 1, "upload_bytes": 1, "num_local_steps": 1, "client_seconds": 1.0}


def with_format(run, number):
    (run / "config.yaml").write_text(f"format: {number}\n" + (run / "config.yaml").read_text())
    return run


def test_folders_of_both_layouts_are_found_alike(tmp_path, make_run):
    old, new = make_run(tmp_path / "old"), with_format(make_run(tmp_path / "new"), RUN_FORMAT)
    assert (run_format(read_config(old)), run_format(read_config(new))) == (1, RUN_FORMAT)
    for run in (old, new):
        found = locate(run)
        assert (found.kind, found.adapter, found.beta) == ("run", run / "adapter", 0.1)
    assert locate(old).base == locate(new).base


def test_a_config_that_cannot_be_read_is_said_or_passed_over(tmp_path):
    for content, message in ((None, "not a run folder"), ("a: [", "not readable YAML"), ("[1]", "no settings")):
        if content is not None:
            (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(ConfigError, match=message):
            read_config(tmp_path)
        assert find_config(tmp_path) is None
        assert not is_private_run(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"privacy": {"epsilon": 3.0}}))
    assert is_private_run(tmp_path)


def test_rounds_are_read_strictly_and_releases_as_they_are(tmp_path):
    lines = [{"round_index": at, "clients": [], "ledger": LEDGER, "seconds": 1.0} for at in range(2)]
    (tmp_path / "releases.jsonl").write_text('{"round_index": 0}\n')
    assert read_released_rounds(tmp_path) == [{"round_index": 0}]
    with pytest.raises(ConfigError, match=r"no rounds\.jsonl"):
        read_rounds(tmp_path)
    (tmp_path / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_rounds(tmp_path) == read_released_rounds(tmp_path) == lines


def test_a_line_cut_short_yields_nothing(tmp_path):
    (tmp_path / "made.jsonl").write_bytes(b'{"client_id": "ann"}\n[1]\n\xff\n{"client_id": "bo')
    assert list(whole_lines(tmp_path / "made.jsonl")) == [{"client_id": "ann"}]
