"""README's way by command, run from the first line to the last: from a table of tickets to a published adapter.

The commands are taken from README as they stand. Three things are changed: the model is a toy made on the spot,
rounds and steps are fewer, and the chat is given its question. Publishing goes through the real client to the Hub on
loopback.
"""

import csv
import re
import shlex
from pathlib import Path

import pytest

import fedllm_data.cli
import fedllm_eval.cli
import fedllm_train.cli
from fedllm_data.clients import load_clients
from tests.hub.server import LoopbackHub

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PROGRAMS = {
    "fedllm-data": fedllm_data.cli.main,
    "fedllm-train": fedllm_train.cli.main,
    "fedllm-eval": fedllm_eval.cli.main,
}
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMALLER = {"--num-rounds 20": "--num-rounds 2", "--local-steps 10": "--local-steps 2"}


def way() -> list[str]:
    block = next(
        block for block in re.findall(r"^```\n(.*?)^```", README, re.M | re.S) if "fedllm-data import" in block
    )
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def write_tickets(path: Path) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["agent", "question", "answer", "ticket"])
        for agent in range(24):
            for number in range(6):
                name, colour = f"agent-{agent:02d}", ("red", "blue")[number % 2]
                question = f"How do I reset device {agent}-{number}?"
                table.writerow(
                    [name, question, f"Hold the {colour} button for {agent + number} seconds.", f"T{number}"]
                )


def test_the_way_leads_from_import_to_publish():
    words = [shlex.split(command)[:2] for command in way()]
    wanted = [
        ["fedllm-data", "import"],
        ["fedllm-data", "check"],
        ["fedllm-train", "sft"],
        ["fedllm-eval", "run"],
        ["fedllm-eval", "run"],
        ["fedllm-eval", "compare"],
        ["fedllm-eval", "decide"],
        ["fedllm-train", "publish"],
        ["fedllm-train", "chat"],
    ]
    assert words == wanted


def test_the_commands_of_the_readme_run(
    tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from fedllm_train.models.tiny import TOY, train_tiny

    monkeypatch.chdir(tmp_path)
    write_tickets(Path("tickets.csv"))
    for command in (" ".join(command.split()) for command in way()):
        for full, small in SMALLER.items():
            command = command.replace(full, small)
        if MODEL in command and not Path("base").exists():
            train_tiny(load_clients("tickets").rows, "base", config=TOY)
        program, *words = shlex.split(command.replace(MODEL, "base"))
        if words[0] == "chat":
            words += ["--prompt", "How do I reset device 3?", "--max-new-tokens", "8"]
        assert PROGRAMS[program](words) == 0, (command, capsys.readouterr().err[-2000:])
    # What README says lies there to be opened.
    pages = (
        "tickets/report.html",
        "scores/tickets/results.html",
        "comparison/comparison.html",
        "decision/decision.html",
    )
    assert all(f"`{page}`" in README for page in pages)
    assert all(Path(page).is_file() for page in pages)
    assert Path("runs/tickets/adapter/adapter_model.safetensors").is_file()
    assert "me/tickets-adapter" in capsys.readouterr().out
