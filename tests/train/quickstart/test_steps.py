"""The quickstart's commands, in miniature: every step runs, and the page is there at the end."""

import re

import pytest

from fedllm_data.errors import ConfigError
from fedllm_train.quickstart import steps as quickstart

SMALLER = [
    (r"build (\S+) ", r"build \1 --set num_clients=14 --set mean_rows=8 --set public_rows=300 --no-report "),
    (r"tiny ", "tiny --steps 3 "),
    (r"--num_rounds \d+", "--num_rounds 2"),
    (r"--cohort_size \d+", "--cohort_size 2"),
    (r"--local_steps \d+", "--local_steps 2"),
]


def shrink(command):
    for pattern, replacement in SMALLER:
        command = re.sub(pattern, replacement, command)
    return command


def test_every_step_runs_and_the_page_is_written(tmp_path, monkeypatch, capsys):
    whole = quickstart.steps
    monkeypatch.setattr(
        quickstart, "steps", lambda out, seed=0: [(what, shrink(command)) for what, command in whole(out, seed=seed)]
    )
    out = tmp_path / "quick start"  # a path with a space in it
    assert quickstart.main(["--out", str(out), "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert "[14/14]" in printed
    assert "heldout_loss" in printed
    assert (out / "summary.html").read_text().startswith("<!doctype html>")
    for name in ("fed-synth/README.md", "report/report.html", "base/model.safetensors", "runs/dpo/adapter"):
        assert (out / name).exists(), name
    # Its own folder is made anew, somebody else's is not touched.
    with pytest.raises(ConfigError, match="was not made by the quickstart"):
        quickstart.run_steps(tmp_path)


def test_a_failing_step_ends_with_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quickstart, "steps", lambda out, seed=0: [("fail", "fedllm-data check no/such/folder")])
    assert quickstart.main(["--out", str(tmp_path / "q")]) == 2
    assert "step 1 of the quickstart failed" in capsys.readouterr().err
