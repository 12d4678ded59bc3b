"""The steps of `make federation`: three sites with rows of their own, a server without any, and the line between them.

Every step is a command that is printed first, as its owner would give it. The same runs are made on one machine, too,
and their adapters compared by SHA-256.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from fedllm_data.errors import ConfigError, WorkerError
from fedllm_data.terminal import run_command
from fedllm_eval.running.finished_parts import file_digest
from fedllm_train.engines.flower.processes import flwr_environment, free_port
from fedllm_train.federation.page import write_page

__all__ = ["SITES", "TASKS", "Federation", "main"]

SITES = ("north", "south", "west")
TASKS = {"sft": "fed-synth", "dpo": "fed-synth-pa"}
"""Task -> the corpus that the sites share out."""
_CLIENTS = 36
_TRAINING = {
    "sft": "--num-rounds 4 --cohort-size 6 --local-steps 4 --learning-rate 3e-3 --max-length 128 --lora-r 8",
    "dpo": "--num-rounds 3 --cohort-size 6 --local-steps 4 --learning-rate 1e-3 --max-length 128",
}
_COMMON = "--bf16 False --use-cpu --strategy fedavg --wire int8 --seed 0"
_MIN_ROWS = 2


class Federation:
    """The folder of one federation, and the processes that belong to it."""

    def __init__(self, out: Path, line: str, env: Path | None) -> None:
        """Take the folder, the line (`flower` or `sockets`) and Flower's environment."""
        self.out, self.line, self.env = out, line, env
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.has_server = False
        self.seconds: dict[str, float] = {}
        self.begun = time.monotonic()

    def command(self, title: str, words: str, *, log: str) -> None:
        """Run a command of ours, and end with its last lines if it fails."""
        print(f"\n[{title}]\n$ {words}", flush=True)
        started = time.monotonic()
        done = subprocess.run(self._program(words), cwd=self.out, capture_output=True, check=False, env=_variables())
        said = (done.stdout + done.stderr).decode(errors="replace")
        with (self.out / "logs" / f"{log}.log").open("a", encoding="utf-8") as file:
            file.write(f"$ {words}\n{said}\n")
        self.seconds[title] = time.monotonic() - started
        if done.returncode:
            last = " / ".join(said.strip().splitlines()[-3:])
            raise WorkerError(f"{words.split()[0]} {words.split()[1]} failed: {last[-600:]}")
        print(f"({self.seconds[title]:.0f} s)", flush=True)

    def start_workers(self, task: str) -> None:
        """Let each site's worker serve the rows that it has for a task."""
        for site in SITES:
            words = (
                f"fedllm-train worker --data sites/{site}/{TASKS[task]} --model base --policy sites/{site}/worker.yaml"
            )
            words += f" --socket sites/{site}.sock --folder sites/{site}/worker"
            print(f"$ {words}    (at {site})", flush=True)
            with (self.out / "logs" / f"worker-{site}.log").open("ab") as log:
                self.workers[site] = subprocess.Popen(
                    self._program(words), cwd=self.out, stdout=log, stderr=log, env=_variables()
                )
        end = time.monotonic() + 120
        while not all((self.out / "sites" / f"{site}.sock").exists() for site in SITES):
            if time.monotonic() > end or any(each.poll() is not None for each in self.workers.values()):
                raise WorkerError(f"a worker did not start; see {self.out / 'logs'}")
            time.sleep(0.2)

    def stop_workers(self) -> None:
        """End the workers, within an optimizer step."""
        for worker in self.workers.values():
            worker.terminate()
        for worker in self.workers.values():
            with suppress(subprocess.TimeoutExpired):
                worker.wait(30)
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        self.workers = {}

    def close(self) -> None:
        """End every process, whatever happened."""
        self.stop_workers()
        if self.has_server:
            for place in ("deployment", *(f"deployment/kits/{site}" for site in SITES)):
                with suppress(Exception):
                    subprocess.run(
                        self._program(f"fedllm-train deploy stop {place}"),
                        cwd=self.out,
                        check=False,
                        env=_variables(),
                        capture_output=True,
                    )

    def engine_flags(self) -> str:
        """The flags of a command that reaches the sites."""
        if self.line == "flower":
            return "--engine flower --deployment deployment"
        return "--engine sockets --deployment sites.yaml"

    @staticmethod
    def _program(words: str) -> list[str]:
        program, *rest = shlex.split(words)
        return [sys.executable, "-m", f"{program.replace('-', '_')}.cli", *rest]


def run(out: Path, line: str, env: Path | None) -> dict[str, Any]:
    """Make everything; return what the page shows.

    Args:
        out: an empty or new folder.
        line: `flower` or `sockets`.
        env: Flower's environment.
    """
    made = Federation(out, line, env)
    (out / "logs").mkdir(parents=True)
    try:
        _prepare(made)
        _connect(made)
        made.start_workers("sft")
        made.command("Who is there", f"fedllm-train sites list {made.engine_flags()}", log="sites")
        _profiles(made)
        facts = {"sft": _train(made, "sft")}
        made.stop_workers()
        made.start_workers("dpo")
        facts["dpo"] = _train(made, "dpo", "--adapter runs/sft")
        made.stop_workers()
        return write_page(out, line, made.begun, facts)
    finally:
        made.close()


def _prepare(made: Federation) -> None:
    """Rows for three sites, and a base model for everybody."""
    made.command("The base model", "fedllm-train tiny --shipped --out base", log="prepare")
    for task, corpus in TASKS.items():
        made.command(
            f"Rows of all sites, for {task}",
            f"fedllm-data build {corpus} --out all/{corpus} --no-report --set num_clients={_CLIENTS}",
            log="prepare",
        )
    from fedllm_data.clients import load_clients

    for corpus in TASKS.values():
        ids = sorted(
            {client for split in ("train", "test") for client in load_clients(made.out / "all" / corpus, split)}
        )
        for number, site in enumerate(SITES):
            share_out(made.out / "all" / corpus, made.out / "sites" / site / corpus, set(ids[number :: len(SITES)]))
    for site in SITES:
        policy = {"approve": "auto", "max_rounds": 50, "min_rows": _MIN_ROWS, "profile": True}
        (made.out / "sites" / site / "worker.yaml").write_text(yaml.safe_dump(policy), encoding="utf-8")


def share_out(whole: Path, part: Path, ids: set[str]) -> None:
    """Write the client repo of one site: the rows and the table of its own clients, and nothing of the others.

    Args:
        whole: a client repo.
        part: a folder that does not exist.
        ids: the site's clients.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for path in sorted(whole.rglob("*")):
        target = part / path.relative_to(whole)
        if path.suffix != ".parquet" and path.name not in ("README.md", "NOTICE", "build.json"):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet" and not path.name.startswith("public"):
            table = pq.read_table(path)
            if "client_id" in table.column_names:
                table = table.filter(pc.is_in(table["client_id"], pa.array(sorted(ids))))
                if not table.num_rows:
                    continue
            pq.write_table(table, target)
        else:
            shutil.copyfile(path, target)


def _connect(made: Federation) -> None:
    """The line between server and sites."""
    if made.line == "sockets":
        (made.out / "sites.yaml").write_text(
            yaml.safe_dump({"sites": {site: f"sites/{site}.sock" for site in SITES}}), encoding="utf-8"
        )
        return
    made.command(
        "Keys, certificates and a kit for each site",
        f"fedllm-train deploy init deployment --server 127.0.0.1:{free_port()} --sites {','.join(SITES)}",
        log="deploy",
    )
    made.has_server = True
    flags = f"--env {made.env}"
    made.command("The server", f"fedllm-train deploy server deployment {flags}", log="deploy")
    for site in SITES:
        made.command(
            f"The relay of {site}",
            f"fedllm-train deploy site deployment/kits/{site} {flags} --socket sites/{site}.sock",
            log="deploy",
        )


def _profiles(made: Federation) -> None:
    """How different the sites' clients are, from counts that they send."""
    made.command("What all sites count with", "fedllm-data codebook all/fed-synth --out codebook.json", log="profiles")
    made.command(
        "Profiles of the sites",
        f"fedllm-train sites profile {made.engine_flags()} --codebook codebook.json --out profiles",
        log="profiles",
    )
    made.command(
        "The report of all sites",
        "fedllm-data report --profiles profiles --codebook codebook.json --out report",
        log="profiles",
    )


def _train(made: Federation, task: str, more: str = "") -> dict[str, Any]:
    """Train over the line and on one machine, and compare."""
    flags = " ".join(each for each in (_TRAINING[task], _COMMON, more) if each)
    made.command(
        f"{task.upper()} over the line",
        f"fedllm-train {task} {made.engine_flags()} --model base --out runs/{task} {flags}",
        log=task,
    )
    if task == "dpo":
        flags = flags.replace("--adapter runs/sft", "--adapter here/sft")
    made.command(
        f"{task.upper()} on one machine, for comparison",
        f"fedllm-train {task} --data all/{TASKS[task]} --model base --out here/{task} {flags}",
        log=task,
    )
    digests = [
        file_digest(made.out / place / task / "adapter" / "adapter_model.safetensors") for place in ("runs", "here")
    ]
    answer = "yes" if digests[0] == digests[1] else "NO"
    print(f"same adapter as on one machine: {answer} (sha256 {digests[0]})", flush=True)
    return {"sha256": digests[0], "is_same": digests[0] == digests[1], "bytes": _bytes_on_line(made.out)}


def _bytes_on_line(out: Path) -> dict[str, dict[str, int]]:
    """What went over the line by the sites' own records, by run: bodies into a site and out of it."""
    found: dict[str, dict[str, int]] = {}
    for path in out.glob("sites/*/worker/requests.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            each = found.setdefault(str(entry["run"]), {"in": 0, "out": 0})
            each["in"] += entry["bytes_in"]
            each["out"] += entry["bytes_out"]
    return found


def _variables() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the steps; return 0 if the adapters are those of one machine, 1 if not, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m fedllm_train.federation", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("federation"), help="folder of everything (federation)")
    parser.add_argument("--line", choices=("flower", "sockets"), default="flower", help="what carries it (flower)")
    parser.add_argument("--env", type=Path, default=Path("flwr-env"), help="Flower's environment (flwr-env)")
    given = parser.parse_args(argv)
    outcome: dict[str, Mapping[str, Any]] = {}

    def work() -> None:
        if given.out.exists() and any(given.out.iterdir()):
            raise ConfigError(f"{given.out} holds something; remove it (rm -r {given.out}), or choose another --out")
        env = None
        if given.line == "flower":
            env = flwr_environment(given.env)
        outcome["facts"] = run(given.out.resolve(), given.line, env)

    code = run_command("federation", work, when_interrupted="all its processes were ended")
    if code or "facts" not in outcome:
        return code
    return 0 if all(each["is_same"] for each in outcome["facts"].values()) else 1
