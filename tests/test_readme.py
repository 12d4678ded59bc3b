"""What README and guides show in Python runs, and README stays short.

Its commands are read by the real parsers in `tests/docs/test_commands.py`, and run in `tests/hub/test_readme_way.py`.
"""

import re
import shlex
from pathlib import Path

from fedllm_data.build import build
from fedllm_data.sources import SOURCES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for language, block in BLOCKS
    if not language
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("fedllm-")
]


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    from fedllm_data.clients import load_clients
    from fedllm_train.models.tiny import TOY, train_tiny

    monkeypatch.chdir(tmp_path)
    build(SOURCES["fed-synth"], Path("quickstart/fed-synth"), options={"num_clients": "12"})
    train_tiny(load_clients("quickstart/fed-synth", "public").rows.select(range(200)), "quickstart/base", config=TOY)
    blocks = [block for language, block in BLOCKS if language == "python"]
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "heldout_loss" in printed
    assert Path("runs/readme/adapter/adapter_model.safetensors").is_file()


def test_the_python_of_the_guide_to_scores_runs(capsys):
    """Margins of rewards: 0.1 (1 - 0) against 0.1 (-1 - 1), so one of two pairs is ranked as people did."""
    guide = (ROOT / "docs" / "scores.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", guide, flags=re.MULTILINE | re.DOTALL)
    exec(compile(block, "docs/scores.md", "exec"), {})
    assert "0.5" in capsys.readouterr().out


def test_the_guide_to_training_shows_the_python_that_runs():
    block = next(block for language, block in BLOCKS if language == "python")
    assert block in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_readme_is_a_page_and_not_a_book():
    words = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL).split()
    assert len(words) < 1000
    assert "docs/pictures/flow-light.svg" in README


def test_every_program_is_shown():
    assert {shlex.split(command)[0] for command in COMMANDS} == {"fedllm-data", "fedllm-train", "fedllm-eval"}
