"""The command from end to end on a small repo, and one line for what cannot be done."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedllm_data.schema import SCHEMAS
from fedllm_eval.cli import main


@pytest.fixture(scope="module")
def repo(tmp_path_factory, preference_clients):
    """A preference repo with a test and an unseen split."""
    folder = tmp_path_factory.mktemp("repos") / "pairs"
    (folder / "data").mkdir(parents=True)
    rows = preference_clients.rows.to_list()
    for split in ("test", "unseen"):
        filled = [
            {**row, "row_id": f"{split}{i}", "language": "en", "chosen_model": None, "rejected_model": None}
            for i, row in enumerate(rows)
        ]
        table = pa.Table.from_pylist(filled, SCHEMAS["preference"])
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_run_then_compare(tmp_path, repo, make_run, model_folder, capsys):
    run = make_run(tmp_path / "run", start_seed=2)
    arguments = ["--data", str(repo), "--batch-size", "4"]
    assert main(["run", str(run), *arguments, "--out", str(tmp_path / "dpo")]) == 0
    printed = capsys.readouterr()
    assert "implicit_reward_accuracy" in printed.out
    assert "only 3 clients" in printed.out
    assert "test, policy: 10 of 10 sequences" in printed.err

    base = ["run", str(model_folder), *arguments, "--reference", str(run / "start_adapter")]
    assert main([*base, "--out", str(tmp_path / "base"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert list(summary["splits"]) == ["test", "unseen"]
    assert summary == json.loads((tmp_path / "base" / "results.json").read_text(encoding="utf-8"))

    compare = ["compare", str(tmp_path / "base"), str(tmp_path / "dpo"), "--out", str(tmp_path / "both"), "--json"]
    assert main(compare) == 0
    comparison = json.loads(capsys.readouterr().out)
    # The reference of the run is its start adapter, which was named for the base: implicit rewards are comparable.
    assert {item["score"] for item in comparison["comparisons"]} >= {"ranking_accuracy", "implicit_reward_margin"}
    assert (tmp_path / "both" / "comparison.md").is_file()


def test_sampling_options_reach_the_results(tmp_path, repo, model_folder, capsys):
    options = ["--splits", "unseen", "--max-clients", "2", "--max-rows", "1", "--max-length", "100", "--seed", "3"]
    assert main(["run", str(model_folder), "--data", str(repo), "--out", str(tmp_path / "out"), *options]) == 0
    summary = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert list(summary["splits"]) == ["unseen"]
    assert summary["splits"]["unseen"]["num_rows"] == 2
    assert summary["settings"] == {"max_length": 100, "max_clients": 2, "max_rows_per_client": 1, "seed": 3}
    assert "2 of 3 clients were sampled (seed 3)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "no/such/folder"}, "neither a folder here nor a Hub id"),
        ({"--data": "no/such/folder"}, "no folder no/such/folder here"),
        ({"--splits": "validation"}, "validation"),
        ({"--max-length": "4000"}, "128 positions"),
        ({"--max-clients": "0"}, "holds nothing"),
        ({"--beta": "0"}, "beta is 0"),
        ({"--batch-size": "0"}, "batch_size is 0"),
        ({"--reference": "no/such/folder"}, "neither a folder here nor a Hub id"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, repo, make_adapter, capsys, change, message):
    arguments = {"--data": str(repo), "--out": str(tmp_path / "out")} | change
    policy = arguments.pop("policy", None) or str(make_adapter(tmp_path / "adapter"))
    capsys.readouterr()  # what loading and saving the adapter printed
    flat = [part for pair in arguments.items() for part in pair]
    assert main(["run", policy, *flat]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedllm-eval: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_refused_before_the_work(tmp_path, repo, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    assert main(["run", "no/such/model", "--data", str(repo), "--out", str(tmp_path / "out")]) == 2
    assert "holds other files" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["run"], ["run", "x", "--data", "y", "--out", "z", "--seed", "one"], ["ran"]]
)
def test_wrong_arguments_are_one_line_too(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("fedllm-eval: error: ")
    assert error.count("\n") == 1


def test_list_names_every_score_and_module(capsys):
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert "heldout_loss" in listed["scores"]
    assert {"client_spread", "dpo_implicit_reward", "heldout_loss"} <= set(listed["evaluate_modules"])
    assert listed["suites"]["mt_bench"]["needs"] == ["judge", "items"]
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "ranking_accuracy_per_token" in printed
    assert "over_refusal" in printed


def test_one_command_prints_every_table_and_goes_on_where_it_was(tmp_path, repo, make_run, capsys):
    run = make_run(tmp_path / "run", start_seed=2)
    command = ["run", str(run), "--data", str(repo), "--out", str(tmp_path / "out"), "--base-too"]
    command += ["--suite", "over_refusal", "--max-items", "2", "--max-new-tokens", "2"]
    command += ["--switch", "over_refusal.refusal_list=prefix", "over_refusal.detect_language=false"]
    assert main(command) == 0
    printed = capsys.readouterr()
    for title in ("What each client gains", "Suites", "What training changed"):
        assert title in printed.out
    assert "base, test, policy: 10 of 10 sequences" in printed.err
    summary = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert summary["suites"]["over_refusal"]["policy"]["settings"]["refusal_list"] == "prefix"
    # The base's own implicit rewards are all 0: nothing to gain over.
    assert "implicit_reward_accuracy" not in {item["score"] for item in summary["gains"]}
    assert main(command) == 0
    again = capsys.readouterr()
    assert "6 finished parts were there" in again.err
    assert again.out == printed.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--suite", "vicuna"], "suite vicuna needs a judge"),
        (
            ["--suite", "over_refusal", "--switch", "refusal_list=prefix"],
            "names no suite; write it as SUITE.KEY=VALUE",
        ),
        (["--suite", "over_refusal", "--suite-items", "over_refusal"], "is not of the form NAME=PATH"),
        (["--judge", "recorded=x"], "no suite is run; name one by --suite"),
        (["--secrets", "x"], "add --audit"),
        (["--language-run", "de=a", "de=b"], "unrecognized arguments"),
    ],
)
def test_a_flag_that_lacks_something_is_one_line(tmp_path, repo, make_adapter, capsys, flags, message):
    command = ["run", str(tmp_path / "adapter"), "--data", str(repo), "--out", str(tmp_path / "out"), *flags]
    make_adapter(tmp_path / "adapter")
    capsys.readouterr()
    try:
        code = main(command)
    except SystemExit as stopped:
        code = stopped.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


DRY = {
    "run": (["run", "org/m", "--data", "REPO", "--out", "out", "--max-rows", "3"], "dry run: score org/m"),
    "audit": (["audit", "org/m", "--data", "REPO", "--out", "out", "--non-members", "test"], "dry run: audit org/m"),
    "quality": (["quality", "REPO", "--model", "org/m", "--out", "out.parquet"], "dry run: score rows by IFD and IRA"),
    "plant": (
        ["plant", "REPO", "--out", "out", "--secrets", "s", "--salt", "salt", "--num-canaries", "1"],
        "dry run: plant 1 secrets",
    ),
}


@pytest.mark.parametrize("name", DRY)
def test_a_dry_run_fetches_no_model_and_writes_nothing(name, tmp_path, monkeypatch, capsys):
    from fedllm_data.build import build
    from fedllm_data.sources import SOURCES

    monkeypatch.chdir(tmp_path)
    build(SOURCES["fed-synth"], tmp_path / "repo", options={"num_clients": "6", "public_rows": "20"})
    argv, said = DRY[name]
    assert main([{"REPO": "repo"}.get(word, word) for word in argv] + ["--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(said)
    assert shown.endswith("nothing was written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]
