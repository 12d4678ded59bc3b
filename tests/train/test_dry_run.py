"""`fedllm-train ... --dry-run`: the plan in words, refusals as ever, no weights loaded and nothing written."""

import json

import pytest

from fedllm_train.cli import main


@pytest.fixture
def clients(kit, tmp_path, monkeypatch):
    """A client repo of five clients in an otherwise empty working folder; the model is nowhere."""
    kit.build_repo(tmp_path / "clients")
    monkeypatch.chdir(tmp_path)
    return "clients"


def command(clients, *more):
    return ["sft", "--data", clients, "--model", "org/model", "--out", "run", "--use-cpu", "--dry-run", *more]


def test_a_dry_run_shows_the_resolved_plan_and_needs_no_model(clients, tmp_path, capsys):
    flags = "--strategy scaffold --cohort-size 2 --local-steps 3 --learning-rate 1e-3 --lora-r 4 --num-rounds 7"
    assert main(command(clients, *flags.split(), "--per-device-train-batch-size", "2")) == 0
    lines = {line[2:15].strip(): line[17:] for line in capsys.readouterr().out.splitlines()}
    assert lines["reads"].startswith("clients: 5 training clients, ")
    assert lines["writes"] == "run: config.yaml, rounds.jsonl, checkpoints/, adapter/, README.md"
    assert lines["cohort"] == "2 of 5 clients a round (uniform)"
    assert lines["local work"] == "3 steps a visit"
    assert lines["rows a step"] == "2"
    assert lines["learning rate"] == "0.001, falling to 5e-05"
    assert lines["adapter"] == "lora, r 4, lora_alpha 32"
    assert (lines["down"], lines["up"]) == ("adapter + control variate", "adapter + change of control variate")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clients"]


def test_a_private_dry_run_says_what_epsilon_will_be_spent(clients, capsys):
    pytest.importorskip("dp_accounting")
    private = "--cohort-rule poisson --cohort-size 2 --dp-clip 0.1 --dp-noise-multiplier 1 --dp-delta 1e-2"
    assert main(command(clients, *private.split(), "--num-rounds", "3")) == 0
    assert "at delta 0.01, unit: client" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--cohort-size 99", "--cohort-size is 99 but"),
        ("--cohort-size 2 --strategy fedpro", "did you mean fedprox?"),
        ("--cohort-size 2 --max-steps 5", "use --local-steps"),
        ("--cohort-size 2 --load-in-4bit", "--load-in-4bit needs an NVIDIA GPU"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would_refuse(clients, tmp_path, capsys, flags, said):
    assert main(command(clients, *flags.split())) == 2
    error = capsys.readouterr().err
    assert said in error
    assert [line for line in error.splitlines() if line.startswith("fedllm-train: error: ")] == error.splitlines()[-1:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clients"]


def test_a_dry_run_of_publishing_sends_nothing_and_changes_nothing(kit, clients, tmp_path, monkeypatch, capsys):
    kit.make_model().save_pretrained("base")
    kit.make_tokenizer().save_pretrained("base")
    argv = "--cohort-size 2 --num-rounds 1 --local-steps 1 --max-length 64 --activation-checkpointing False".split()
    assert main([*(word.replace("org/model", "base") for word in command(clients, *argv) if word != "--dry-run")]) == 0
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    monkeypatch.setattr("fedllm_train.run_files.publish_run.push_folder", None)  # not called
    capsys.readouterr()
    assert main(["publish", "run", "--repo", "org/x", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("dry run: publish run\n")
    assert "org/x on the Hub: the adapter" in shown
    assert "visibility  private" in shown
    assert main(["publish", "run", "--repo", "org/x", "--public", "--include-clients", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["dry_run"]["settings"]
    assert told == {"visibility": "public", "names": "clients by name"}
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before


def test_a_dry_run_of_publishing_refuses_what_is_no_run(tmp_path, capsys):
    assert main(["publish", str(tmp_path / "no"), "--repo", "org/x", "--dry-run"]) == 2
    assert str(tmp_path / "no") in capsys.readouterr().err


def test_a_dry_run_says_that_a_model_that_is_not_here_must_be_on_the_hub(clients, kit, capsys):
    assert main(command(clients, "--cohort-size", "2")) == 0
    assert "org/model: the base model; no folder here, so it must be on the Hub" in capsys.readouterr().out
    kit.make_model().save_pretrained("base")
    argv = [word.replace("org/model", "base") for word in command(clients, "--cohort-size", "2")]
    assert main(argv) == 0
    assert "base: the base model\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("org/model/", "model 'org/model/' is neither a folder here nor a Hub id"),
        ("clients", "model 'clients' cannot be loaded (it holds no config.json); give a folder with config.json"),
        ("made", "model 'made' cannot be loaded (it holds no config.json); it is a run's folder: name the run's base"),
    ],
)
def test_a_dry_run_refuses_what_can_be_no_base(clients, tmp_path, capsys, model, said):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "config.yaml").write_text("task: sft\n")
    argv = [word.replace("org/model", model) for word in command(clients, "--cohort-size", "2")]
    assert main(argv) == 2
    assert said in capsys.readouterr().err
    assert main([word for word in argv if word != "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_a_run_of_all_weights_is_named_by_its_model(clients, tmp_path, capsys):
    (tmp_path / "full" / "model").mkdir(parents=True)
    (tmp_path / "full" / "config.yaml").write_text("task: sft\n")
    (tmp_path / "full" / "model" / "config.json").write_text("{}")
    argv = [word.replace("org/model", "full") for word in command(clients, "--cohort-size", "2")]
    assert main(argv) == 2
    assert "its model is full/model" in capsys.readouterr().err
    assert main(command(clients, "--cohort-size", "2", "--adapter", "full")) == 2
    assert "is a run that trained all weights; name full/model as --model instead" in capsys.readouterr().err


def test_resume_without_a_run_is_said_to_begin_one(clients, capsys):
    assert main(command(clients, "--cohort-size", "2", "--resume")) == 0
    shown = capsys.readouterr()
    assert "into run; loading" in shown.err
    assert "newest checkpoint" not in shown.out


def test_a_dry_run_of_publishing_refuses_what_is_no_hub_id(kit, clients, tmp_path, capsys):
    made = tmp_path / "made"
    (made / "adapter").mkdir(parents=True)
    (made / "adapter" / "adapter_config.json").write_text("{}")
    (made / "config.yaml").write_text("data:\n  name: tickets\n")
    assert main(["publish", "made", "--repo", "no-namespace", "--dry-run"]) == 2
    assert "'no-namespace' is not a Hub repo id" in capsys.readouterr().err


def test_a_dry_run_of_a_tiny_model_refuses_what_the_command_refuses(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("not made here")
    for more in (["--dry-run"], []):
        assert main(["tiny", "--shipped", "--out", str(tmp_path / "mine"), *more]) == 2
        assert "holds files that were not made here" in capsys.readouterr().err
    assert main(["tiny", "--shipped", "--out", str(tmp_path / "new"), "--dry-run"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
