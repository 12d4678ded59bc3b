"""The commands that a card shows do what it says, on the published corpus and with a small model."""

import re
import shlex
from pathlib import Path

import pytest

from fedllm_data.arguments import make_parser
from fedllm_data.hub.publish import publish
from tests.hub.server import LoopbackHub
from tests.hub.test_publish_run import load_kit

pytest.importorskip("trl", reason="TRL is not installed: pip install fedllm-commons[train]")

COMMANDS = "list build import partition organisations check codebook profile report publish".split()


def commands_of(card: str, program: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in re.findall(rf"^{program} .*$", card, flags=re.MULTILINE)]


def test_training_and_scoring_by_the_published_id(
    hub: LoopbackHub, client_repo: Path, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedllm_eval.cli import main as evaluate
    from fedllm_train.cli import main as train

    publish(client_repo, repo_id)
    kit = load_kit()
    model = kit.make_model()
    model.config.max_position_embeddings = 256  # rotary positions: there are no weights to match
    model.save_pretrained(tmp_path / "model")
    kit.make_tokenizer().save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    card = (client_repo / "README.md").read_text()
    [command], [scoring] = commands_of(card, "fedllm-train"), commands_of(card, "fedllm-eval")
    assert command[0] == ("dpo" if client_repo.name == "preference" else "sft")
    assert command[command.index("--data") + 1] == scoring[scoring.index("--data") + 1] == repo_id
    place = command.index("--model") + 1
    assert command[place] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    command[place] = str(tmp_path / "model")
    assert train(command) == 0
    assert len((tmp_path / command[command.index("--out") + 1] / "rounds.jsonl").read_text().splitlines()) == 5
    assert evaluate(scoring) == 0
    assert (tmp_path / scoring[scoring.index("--out") + 1] / "results.json").is_file()


@pytest.mark.parametrize(
    ("facts", "command"),
    [
        ({"is_preset": True}, "fedllm-data build fed-oasst --seed 0 --out DIR"),
        (
            {"is_preset": True, "source_files": [{"name": "x"}], "scrubbed": {}, "client_ids": {"hashed": True}},
            "fedllm-data build fed-oasst --source FILE --salt-file SALT --scrub --seed 0 --out DIR",
        ),
        (
            {"filters": {"unfiltered": True, "min_rows": 1}, "options": {"hub_id": "org/a", "unfiltered": "true"}},
            "fedllm-data build fed-oasst --set hub_id=org/a --seed 0 --unfiltered --out DIR",
        ),
        (
            {
                "filters": {
                    "min_rows": 3,
                    "max_rows": 9,
                    "max_clients": 8,
                    "languages": ["de", "en"],
                    "min_turns": 1,
                    "max_turns": 2,
                    "max_chars": 500,
                    "keep_toxic": True,
                    "near_duplicates": 0.8,
                }
            },
            "fedllm-data build fed-oasst --seed 0 --min-rows 3 --max-rows 9 --max-clients 8 --min-turns 1 "
            "--max-turns 2 --max-chars 500 --languages de,en --near-duplicates 0.8 --keep-toxic --out DIR",
        ),
    ],
)
def test_the_build_command_of_a_card_is_one_the_parser_takes(facts: dict[str, object], command: str) -> None:
    from fedllm_data.arguments import filters_of
    from fedllm_data.cards.card_words import build_command
    from fedllm_data.sources import SOURCES

    plain = {"name": "fed-oasst", "seed": 0, "options": {}, "filters": {"min_rows": 2}, "source_files": []}
    assert build_command(plain | facts) == command
    parsed = make_parser(dict.fromkeys(COMMANDS, print)).parse_args(shlex.split(command)[1:])
    filters = filters_of(parsed, SOURCES["fed-oasst"].filters)
    expected = facts.get("filters", {})
    assert isinstance(expected, dict)
    if filters is not None:
        for name, value in expected.items():
            assert getattr(filters, name) == (tuple(value) if name == "languages" else value)


def test_imports_and_partitions_have_no_build_command() -> None:
    from fedllm_data.cards.card_words import build_command

    plain = {"name": "tickets", "seed": 0, "options": {}, "filters": {"min_rows": 2}, "source_files": []}
    assert build_command(plain) is None
    assert build_command(plain | {"name": "fed-oasst", "partition": {"rule": "iid"}}) is None
