"""`make federation`: rows are shared out whole, and the steps end in a page and no process."""

import subprocess
import sys

import pytest

from fedllm_data.clients import load_clients
from fedllm_data.repo import open_repo
from fedllm_train.federation.steps import SITES, main, share_out


def test_rows_are_shared_out_whole(kit, tmp_path):
    kit.build_repo(tmp_path / "all", sizes={f"client-{letter}": 6 for letter in "abcdefg"})
    (tmp_path / "all" / "rejected.jsonl").write_text('{"client_id": "client-a"}\n')
    ids = sorted({client_id for split in ("train", "test") for client_id in load_clients(tmp_path / "all", split)})
    for number, site in enumerate(SITES):
        share_out(tmp_path / "all", tmp_path / site, set(ids[number :: len(SITES)]))
    for split in ("train", "test"):
        whole = load_clients(tmp_path / "all", split)
        parts = [
            load_clients(tmp_path / site, split) for site in SITES if open_repo(tmp_path / site).split_files(split)
        ]
        assert sorted(client_id for part in parts for client_id in part) == list(whole)
        for part in parts:
            for client_id in part:
                assert part[client_id].to_list() == whole[client_id].to_list()
    tables = [load_clients(tmp_path / site).table.column("client_id").to_pylist() for site in SITES]
    assert not set(tables[0]) & set(tables[1])
    assert not any((tmp_path / site / "rejected.jsonl").exists() for site in SITES)


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["--out", str(tmp_path), "--line", "sockets"]) == 2
    assert "holds something" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "new"), "--env", str(tmp_path)]) == 2
    assert "no environment with Flower" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_over_sockets_it_ends_in_a_page_and_the_bits_of_one_machine(tmp_path):
    words = [sys.executable, "-m", "fedllm_train.federation", "--out", str(tmp_path / "f"), "--line", "sockets"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    assert done.stdout.count("same adapter as on one machine: yes (sha256 ") == 2
    page = (tmp_path / "f" / "federation.html").read_text(encoding="utf-8")
    assert page.count("Same adapter as on one machine") == 3
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert left == ""
