"""What a line to sites costs beside the work: seconds a round, peak memory of every process, bytes against the ledger.

    python benchmarks/remote_rounds.py [--flwr-env PATH] [--rounds N]

Sites are processes of their own that answer a message at once with one of the same length, so that a round is nothing
but the way there and back: 2 and 5 sites, one client each, 1 MB and 67 MB a message, over unix sockets and, with
`--flwr-env`, over Flower (SuperLink, a SuperNode a site, TLS and keys, all on this machine). Beside it the way of
FlowerTune's templates: a new process for every message that loads model and trainer, makes the visit and ends; ours
has both resident. Seconds of a round are wall seconds, medians over the rounds, since a round waits for other
processes; memory is each process's peak. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.machine import write_result

SIZES = {"1 MB": 1_000_000, "67 MB": 67_000_000}
SITES = (2, 5)
RUN = "ab" * 8


class Echo:
    """A worker that answers every visit with its own message."""

    def __init__(self, name: str) -> None:
        """Take the site's name, which is its only client's, too."""
        self.name = name

    def close(self) -> None:
        """There is nothing to end."""

    def answer(self, header: dict[str, Any], body: bytearray) -> tuple[dict[str, Any], bytes]:
        """Answer one request."""
        from fedllm_train.engines.remote import messages as m
        from fedllm_train.run_files.open_run import package_versions

        request = m.read_request(header)
        if request.kind == "hello":
            split = m.SplitFacts(task="sft", digest=None, rows={self.name: 1})
            versions = package_versions()
            told = m.SiteFacts(protocol=m.PROTOCOL, versions=versions, splits={"train": split}, ids=[self.name])
            return told.header(), b""
        if request.kind == "begin":
            return m.Ready(digests={}).header(), b""
        if request.kind != "work":
            return m.Stopped().header(), b""
        (piece,) = m.cut_body(body, request.lengths)
        (job,) = request.jobs
        key = m.job_key(RUN, job, piece)
        facts = {"num_steps": 0, "seconds": 0.0}
        result = m.Result(key=key, has_body=True, num_rows=1, facts=facts)
        return m.Done(results=[result], lengths=[len(piece)]).header(), bytes(piece)


def echo_site(name: str, path: str) -> None:
    """Serve an echo on a socket until the process is ended."""
    from fedllm_train.engines.remote.worker_server import listening, serve

    with listening(Path(path)) as server:
        serve(Echo(name), server)


def remote_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the table's rows of a result file."""
    return [
        [
            row["line"],
            str(row["sites"]),
            row["message"],
            f"{row['seconds_a_round']:.2f}",
            f"{row['server_cpu_seconds_a_round']:.2f}",
            ", ".join(f"{name} {value:,.0f}" for name, value in row["peak_mb"].items()),
            f"{row['line_bytes'] / 1e6:,.0f}",
            f"{row['ledger_bytes'] / 1e6:,.0f}",
        ]
        for row in result["rows"]
    ]


def rounds_over(line: Any, size: int, rounds: int) -> dict[str, Any]:
    """Run rounds over an open line and return what they took."""
    from fedllm_train.engines.engine import Task, replies_of
    from fedllm_train.engines.remote.messages import Begin
    from fedllm_train.engines.remote.remote_engine import RemoteEngine
    from fedllm_train.engines.remote.seats import RemoteOptions
    from fedllm_train.engines.remote.site_clients import clients_at_sites

    clients = clients_at_sites(line, seconds=180)

    def begins(site: str) -> tuple[Begin, bytes]:
        begin = Begin(run=RUN, spec={}, clients=[site], num_rounds=rounds, num_threads=1, lease_seconds=600.0)
        return begin, b""

    engine = RemoteEngine(line, clients.site_of, clients.sizes, begins, run=RUN, options=RemoteOptions())
    seconds, cpu, ledger = [], time.process_time(), 0
    with engine:
        for step in range(rounds):
            message = os.urandom(size)
            started = time.perf_counter()
            engine.submit(
                [
                    Task(run=RUN, step=step, client_id=name, seed=0, learning_rate=0.1, message=message)
                    for name in clients
                ]
            )
            replies = list(replies_of(engine))
            seconds.append(time.perf_counter() - started)
            assert all(reply.message == message for reply in replies)
            ledger += sum(len(message) + len(reply.message or b"") for reply in replies)
    return {
        "seconds_a_round": round(median(seconds), 3),
        "rounds": rounds,
        "server_cpu_seconds_a_round": round((time.process_time() - cpu) / rounds, 3),
        "ledger_bytes": ledger,
        "line_bytes": engine.bytes_on_line,
    }


def peaks(numbers: dict[str, int]) -> dict[str, float]:
    """Return the peak memory of processes in MB, by name."""
    found = {}
    for name, number in numbers.items():
        try:
            lines = dict(line.split(":", 1) for line in Path(f"/proc/{number}/status").read_text().splitlines())
            found[name] = round(int(lines["VmHWM"].split()[0]) / 1000, 1)
        except (OSError, KeyError):
            continue
    return found


def over_sockets(num_sites: int, size: int, rounds: int) -> dict[str, Any]:
    """Measure the line over unix sockets."""
    from fedllm_train.engines.remote.socket_line import SocketLine

    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        paths, sites = sites_in(place, num_sites, stack)
        with SocketLine(paths) as line:
            made = rounds_over(line, size, rounds)
        return made | {"peak_mb": peaks({"server": os.getpid(), "a site": sites[0].pid})}


def sites_in(place: str, num_sites: int, stack: ExitStack) -> tuple[dict[str, str], list[Any]]:
    """Start echo sites, which end with the stack."""
    paths = {f"s{number}": f"{place}/{number}.sock" for number in range(num_sites)}
    sites = []
    for name, path in paths.items():
        words = [sys.executable, __file__, "--echo", name, path]
        sites.append(stack.enter_context(subprocess.Popen(words)))
        stack.callback(sites[-1].terminate)
    while not all(Path(path).exists() for path in paths.values()):
        time.sleep(0.05)
    return paths, sites


def over_flower(num_sites: int, size: int, rounds: int, env: Path) -> dict[str, Any]:
    """Measure the line over Flower, everything on this machine."""
    from fedllm_train.cli import main
    from fedllm_train.engines.flower.deployment import read_deployment
    from fedllm_train.engines.flower.flower_line import flower_line
    from fedllm_train.engines.flower.processes import free_port, running

    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        paths, sites = sites_in(place, num_sites, stack)
        folder = Path(place, "d")
        commands = [["init", str(folder), "--server", f"127.0.0.1:{free_port()}", "--sites", ",".join(paths)]]
        commands += [["server", str(folder), "--env", str(env)]]
        commands += [
            ["site", str(folder / "kits" / name), "--env", str(env), "--socket", path] for name, path in paths.items()
        ]
        stack.callback(lambda: main(["deploy", "stop", str(folder)]))
        for name in paths:
            stack.callback(lambda name=name: main(["deploy", "stop", str(folder / "kits" / name)]))
        for words in commands:
            assert main(["deploy", *words]) == 0
        with flower_line(folder, env) as line:
            made = rounds_over(line, size, rounds)
            numbers = {"server": os.getpid(), "a site": sites[0].pid}
            numbers |= {
                f"Flower's {name}": number for name, number in running(read_deployment(folder).processes).items()
            }
            numbers |= {f"Flower's {name}": n for name, n in running(folder / "kits" / "s0" / "processes").items()}
            found = peaks(numbers) | peaks(relays())
        return made | {"peak_mb": found}


def relays() -> dict[str, int]:
    """The relay's processes at the server."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "flwr-serverapp" in words:
            found["Flower's relay"] = int(path.parent.name)
    return found


def visit_once(place: str) -> None:
    """Load model and trainer, make one visit, and end: what a process per message does."""
    from fedllm_data.clients import load_clients
    from fedllm_train.engines.engine import Task
    from fedllm_train.messages import codec

    trainer = trainer_of(place)
    host = trainer.loaded.host
    message = codec.encode({"adapter": trainer.start_adapter})
    client_id = next(iter(load_clients(f"{place}/data")))
    times = []
    for step in range(4):
        started = time.process_time()
        task = Task(run="ab", step=step, client_id=client_id, seed=1, learning_rate=1e-3, message=message)
        host.visit(task)
        times.append(time.process_time() - started)
    print(json.dumps({"resident": median(times[1:]), "whole": time.process_time() - sum(times[1:])}))


def trainer_of(place: str) -> Any:
    """A trainer on a small corpus, whose host makes the visit."""
    from peft import LoraConfig
    from trl import SFTConfig

    from fedllm_data.clients import load_clients
    from fedllm_train import FederatedConfig, FederatedTrainer

    return FederatedTrainer(
        f"{place}/base",
        FederatedConfig(output_dir=f"{place}/run", num_rounds=1, cohort_size=2, local_steps=5),
        load_clients(f"{place}/data"),
        SFTConfig(bf16=False, use_cpu=True, max_length=128, per_device_train_batch_size=4),
        LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )


def process_a_message() -> dict[str, Any]:
    """CPU seconds of a visit in a process of its own, with its imports and its model, and in one that stays."""
    from fedllm_data.cli import main as data
    from fedllm_train.cli import main as train

    with tempfile.TemporaryDirectory() as place:
        assert train(["tiny", "--shipped", "--out", f"{place}/base"]) == 0
        words = ["build", "fed-synth", "--out", f"{place}/data", "--no-report", "--set", "num_clients=12"]
        assert data(words) == 0
        found = []
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, __file__, "--visit", place], capture_output=True, check=True, env=one_thread()
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return {
        "process_cpu_seconds": round(median(each["whole"] for each in found), 2),
        "resident_cpu_seconds": round(median(each["resident"] for each in found), 3),
    }


def one_thread() -> dict[str, str]:
    """The environment with one thread for torch."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flwr-env", type=Path, help="an environment with Flower (fedllm-train deploy env)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--echo", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--visit", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.echo:
        echo_site(*given.echo)
        return
    if given.visit:
        visit_once(given.visit)
        return
    rows = []
    for name, size in SIZES.items():
        for num_sites in SITES:
            rows.append(
                {"line": "sockets", "sites": num_sites, "message": name, **over_sockets(num_sites, size, given.rounds)}
            )
            print(rows[-1], flush=True)
            if given.flwr_env is not None:
                measured = over_flower(num_sites, size, given.rounds, given.flwr_env.resolve())
                rows.append({"line": "Flower", "sites": num_sites, "message": name, **measured})
                print(rows[-1], flush=True)
    print(write_result("remote_rounds", {"rows": rows, "visit": process_a_message()}))


if __name__ == "__main__":
    main()
