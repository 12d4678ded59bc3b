"""The quickstart's commands, in miniature: every step runs, and the page is there at the end."""

from pathlib import Path

import pytest

from fedllm_data.errors import ConfigError
from fedllm_train.models.shipped_base import read_recipe
from fedllm_train.quickstart import steps as quickstart
from fedllm_train.quickstart.commands import steps

DECISION = "decision/decision.html"


def test_every_step_runs_and_the_page_is_written(quickstart_run, tmp_path):
    assert quickstart_run.exit_code == 0
    assert "[16/16]" in quickstart_run.printed
    assert "heldout_loss" in quickstart_run.printed
    out = quickstart_run.folder
    assert (out / "summary.html").read_text().startswith("<!doctype html>")
    for name in ("fed-synth/README.md", "report/report.html", "base/model.safetensors", "runs/dpo/adapter", DECISION):
        assert (out / name).exists(), name


def test_the_base_that_comes_along_serves_its_own_corpus_and_another_seed_trains_one(tmp_path):
    def base_step(seed):
        (step,) = [(what, does) for what, does in steps(Path("q"), seed=seed) if does.startswith("fedllm-train tiny")]
        return step

    what, does = base_step(read_recipe()["seed"])
    assert does == "fedllm-train tiny --shipped --out q/base"
    # The step says how to make it again: by the command that other seeds run.
    assert what.endswith("by fedllm-train tiny --data q/fed-synth --out q/base --seed 0")
    assert base_step(3)[1] == "fedllm-train tiny --data q/fed-synth --out q/base --seed 3"


def test_its_own_folder_is_made_anew_and_somebody_elses_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "steps", lambda out, seed=0: [])
    (tmp_path / "own").mkdir()
    quickstart.run_steps(tmp_path / "own")
    (tmp_path / "own" / "earlier").touch()
    quickstart.run_steps(tmp_path / "own")
    assert not (tmp_path / "own" / "earlier").exists()
    with pytest.raises(ConfigError, match="was not made by the quickstart"):
        quickstart.run_steps(tmp_path)


def test_a_failing_step_ends_with_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quickstart, "steps", lambda out, seed=0: [("fail", "fedllm-data check no/such/folder")])
    assert quickstart.main(["--out", str(tmp_path / "q")]) == 2
    assert "step 1 of the quickstart failed" in capsys.readouterr().err
