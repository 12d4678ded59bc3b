"""What `fedllm-train machines` prints, and the tables of the guide."""

import json
from pathlib import Path

import pytest

from fedllm_eval.machines.client_table import client_table
from fedllm_eval.machines.profile_listing import MACHINES_PAGE, with_tables
from fedllm_eval.machines.profiles import DEVICES, LINES, PROFILES
from fedllm_train.cli import main

ROOT = Path(__file__).parents[3]


def test_the_tables_of_the_guide_are_current():
    page = (ROOT / MACHINES_PAGE).read_text(encoding="utf-8")
    assert page == with_tables(page), "run python -m fedllm_eval.machines.profile_listing"


def test_the_table_that_the_guide_shows_is_read(tmp_path):
    page = (ROOT / MACHINES_PAGE).read_text(encoding="utf-8")
    shown = page.split("```text\n")[1].split("```")[0]
    file = tmp_path / "nodes.csv"
    file.write_text(shown, encoding="utf-8")
    table = client_table(str(file), ["north-clinic", "field-office", "somebody"], seed=0)
    assert table.machine("north-clinic").upload_mbit == 100
    assert table.machine("field-office").drop_out == 0.1
    assert table.machine("somebody").profile == "phone-4g"
    assert table.unknown == ("south-clinic",)


@pytest.mark.parametrize("name", [*PROFILES, *LINES, *DEVICES, "starlink+a100"])
def test_everything_listed_can_be_asked_for(capsys, name):
    assert main(["machines", name]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name}: ")
    assert "(" in said.splitlines()[2]  # a source with its date, or the word assumption
    assert main(["machines", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == name


def test_the_whole_list_names_everything(capsys):
    assert main(["machines"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in [*PROFILES, *LINES, *DEVICES])
    assert main(["machines", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"profiles", "lines", "devices", "line_energy", "egress"}
