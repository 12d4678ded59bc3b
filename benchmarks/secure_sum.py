"""What a secure sum costs: CPU seconds and bytes of a client and of the server, beside a plain sum.

    python benchmarks/secure_sum.py [--values N] [--clients N] [--lost N]

All ends of one round are played in this process, on one thread, over no line: 16.8 million values, as a LoRA adapter
of rank 32 on a model of 7 billion parameters has, and ten clients, once with all of them and once with some that are
lost after they sent their shares, so that the server must take off the masks of their pairs. A client's vector is
drawn, put into whole numbers, masked and added; the sum is compared with the plain one of the whole numbers. Seconds
are CPU seconds of one client (medians over the clients) and of the server for the whole round; bytes are of messages.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.machine import write_result

ROUND = ("keys", "shares", "vector", "unmask")


def main() -> None:
    """Measure, compare and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=16_777_216, help="values of an update (16,777,216)")
    parser.add_argument("--clients", type=int, default=10, help="clients of the round (10)")
    parser.add_argument("--lost", type=int, default=3, help="clients lost while they train, in the second round (3)")
    given = parser.parse_args()
    rows = []
    measured(32, given.values, given.clients, 0)  # the first vectors wait for memory, which is none of the costs
    for bits in (32, 64):
        for num_lost in (0, given.lost):
            rows.append(measured(bits, given.values, given.clients, num_lost))
            print(rows[-1], flush=True)
    print(write_result("secure_sum", {"num_values": given.values, "num_clients": given.clients, "rounds": rows}))


def measured(bits: int, num_values: int, num_clients: int, num_lost: int) -> dict[str, Any]:
    """Return the cost of one round, whose sum is right."""
    import numpy as np

    from fedllm_train.privacy.secure_sum.client_side import SumClient
    from fedllm_train.privacy.secure_sum.client_state import ClientState
    from fedllm_train.privacy.secure_sum.fixed_point import SumSpec, encoded, most_fraction_bits
    from fedllm_train.privacy.secure_sum.server_side import SumServer

    weight, names = 100, [f"client-{number:03}" for number in range(num_clients)]
    fraction = most_fraction_bits(bits=bits, clip=1.0, max_clients=num_clients, max_weight=weight)
    common = {"bits": bits, "fraction_bits": fraction, "clip": 1.0, "max_clients": num_clients, "max_weight": weight}
    spec = SumSpec(**common, threshold=0.67, num_rounds=1)
    values = np.random.default_rng(0).standard_normal(num_values) * 1e-3
    whole, seconds = None, []
    for _ in range(5):
        whole, spent_here = timed(lambda: encoded(values, weight, spec)[0])
        seconds.append(spent_here)
    client_seconds: dict[str, list[float]] = {name: [] for name in ROUND}
    client_seconds["fixed point"] = seconds
    up: dict[str, list[int]] = {name: [] for name in ROUND}
    down: dict[str, list[int]] = {name: [] for name in ROUND}
    server, server_seconds = SumServer(spec, "ab" * 8, 0, {}), 0.0
    arriving = names[: num_clients - num_lost]
    with tempfile.TemporaryDirectory() as place:
        clients = {
            name: SumClient(ClientState(Path(place, name)), spec, run="ab" * 8, client_id=name) for name in names
        }

        def exchange(what: str, asked: list[str], ask: Callable[[str], bytes], take: Callable[..., Any]) -> float:
            spent = 0.0
            for name in asked:
                question, of_server = timed(lambda name=name: ask(name))
                answer, of_client = timed(lambda name=name, question=question: answers(what, clients[name], question))
                _, taken = timed(lambda name=name, answer=answer: take(name, answer))
                spent += of_server + taken
                client_seconds[what].append(of_client)
                down[what].append(len(question))
                up[what].append(len(answer))
            return spent

        def answers(what: str, client: Any, question: bytes) -> bytes:
            if what == "vector":
                return client.masked(0, server.train_header(), whole.copy()).tobytes()
            return getattr(client, what)(0, question)

        server_seconds += exchange("keys", names, lambda name: server.keys_request(), server.take_keys)
        server_seconds += exchange("shares", names, lambda name: server.shares_request(), server.take_shares)
        server_seconds += exchange(
            "vector",
            arriving,
            lambda name: server.train_header().to_bytes(),
            lambda name, answer: server.take_vector(name, answer, num_values),
        )
        server_seconds += exchange("unmask", arriving, server.unmask_request, server.take_open)
        total, last = timed(server.total)
    plain = np.zeros_like(whole)
    _, plain_seconds = timed(lambda: [plain.__iadd__(whole) for _ in arriving])
    assert (total == plain).all(), "the sum is not that of the whole numbers"
    return {
        "bits": bits,
        "num_lost": num_lost,
        "client_cpu_seconds": {name: round(median(found), 4) for name, found in client_seconds.items()},
        "client_cpu_seconds_in_all": round(sum(median(found) for found in client_seconds.values()), 3),
        "server_cpu_seconds": round(server_seconds + last, 3),
        "server_cpu_seconds_at_the_end": round(last, 3),
        "plain_sum_cpu_seconds": round(plain_seconds, 3),
        "upload_bytes": {name: int(median(found)) for name, found in up.items()},
        "download_bytes": {name: int(median(found)) for name, found in down.items()},
    }


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what some work gives, and its CPU seconds."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def secure_sum_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return a row for each round that was measured.

    >>> seconds = {"client_cpu_seconds_in_all": 1.5, "server_cpu_seconds": 2.0, "plain_sum_cpu_seconds": 0.1}
    >>> sizes = {"upload_bytes": {"vector": 4_000_000, "keys": 500}, "download_bytes": {"shares": 2_000}}
    >>> secure_sum_rows({"rounds": [{"bits": 32, "num_lost": 0, **seconds, **sizes}]})
    [['32', '0', '1.50', '2.00', '0.10', '4.0', '0.5', '2.0']]
    """
    rows = []
    for each in result["rounds"]:
        beside = sum(size for name, size in each["upload_bytes"].items() if name != "vector")
        rows.append(
            [
                str(each["bits"]),
                str(each["num_lost"]),
                f"{each['client_cpu_seconds_in_all']:.2f}",
                f"{each['server_cpu_seconds']:.2f}",
                f"{each['plain_sum_cpu_seconds']:.2f}",
                f"{each['upload_bytes']['vector'] / 1e6:.1f}",
                f"{beside / 1e3:.1f}",
                f"{sum(each['download_bytes'].values()) / 1e3:.1f}",
            ]
        )
    return rows


if __name__ == "__main__":
    main()
