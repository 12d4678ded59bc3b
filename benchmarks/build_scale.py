"""A million conversations of 20,000 people: what building, opening and reading them costs, next to the usual ways.

1. Builds of a tenth of the rows and of all of them, with the same clients, each in a process of its own: seconds a
   stage, peak memory, disk. Once plain (exact duplicates alone) and once with language detection and near-duplicates.
2. Every client of the train split opened once by `load_clients`, next to `datasets.Dataset.filter` for each client (a
   sample, extrapolated) and next to flwr-datasets' partitioning by natural id, in an environment of its own; the same
   files, every way in a process of its own, medians over the repeats. See `open_clients.py` for what counts as what.
3. Bytes that travel to read one client from the Hub (on loopback, counted at the server).

CPU seconds unless a name says wall. Everything lies in a temporary folder, removed at the end.

Run:  python benchmarks/build_scale.py                     (about 25 minutes; writes results/build_scale.json)
      python benchmarks/build_scale.py --rows 20000 --clients 400 --result ""          (a small run, printed only)
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from generated import Corpus, generated_source, upstream_rows, write_upstream
from hub_range_read import loopback_hub, measure, median_of
from machine import memory_bytes, write_result

HERE = Path(__file__).parent
PARTS = ("build", "open", "hub")
VARIANTS = {"plain": (False, None), "languages": (True, None), "near_duplicates": (False, 0.8), "curated": (True, 0.8)}
"""Whether the language detector is asked, and the threshold of near-duplicates."""
NUM_READ = 40
FLWR = "flwr-datasets"


def main() -> None:
    """Run the parts that were asked for, print the ratios and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="conversations of the large corpus")
    parser.add_argument("--clients", type=int, default=20_000, help="clients of both corpora")
    parser.add_argument("--small-rows", type=int, help="conversations of the small corpus (a tenth)")
    parser.add_argument("--parts", default=",".join(PARTS), help="of build,open,hub; the latter two need one build")
    parser.add_argument(
        "--variants", default="plain,curated", help=f"of {','.join(VARIANTS)}; the reads use the first"
    )
    parser.add_argument("--filter-sample", type=int, default=4, help="clients for which Dataset.filter is measured")
    parser.add_argument("--repeats", type=int, default=3, help="processes for each way to open clients, but filter")
    parser.add_argument("--flwr-python", help="Python of an environment that has flwr-datasets; else one is made")
    parser.add_argument("--memory", default="256MB", help="of `fedllm-data import --memory`")
    parser.add_argument("--result", default="build_scale", help='name of the result file; "" writes none')
    parser.add_argument("--one-build", help=argparse.SUPPRESS)
    parser.add_argument("--one-hub", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_build:
        answer(build_once(**json.loads(arguments.one_build)))
    elif arguments.one_hub:
        answer(read_from_hub(arguments.one_hub))
    else:
        with TemporaryDirectory(prefix="build-scale-") as place:
            document = run_parts(arguments, Path(place))
        if arguments.result:
            print(f"written: {write_result(arguments.result, document)}")
        else:
            print(json.dumps(document, indent=2))


def run_parts(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Generate both corpora and do with them what `--parts` says."""
    parts, variants = arguments.parts.split(","), arguments.variants.split(",")
    if not set(parts) <= set(PARTS) or not set(variants) <= set(VARIANTS):
        raise SystemExit(f"--parts takes {','.join(PARTS)} and --variants {','.join(VARIANTS)}")
    sizes = [arguments.small_rows or arguments.rows // 10, arguments.rows]
    document: dict[str, Any] = {"memory_limit": arguments.memory, "corpora": [], "builds": []}
    for num_rows in sizes if "build" in parts else sizes[1:]:
        upstream = place / f"upstream-{num_rows}"
        document["corpora"].append(write_upstream(Corpus(num_rows=num_rows, num_clients=arguments.clients), upstream))
        for variant in variants if "build" in parts else variants[:1]:
            settings = {"upstream": str(upstream), "out": str(place / f"{variant}-{num_rows}"), "variant": variant}
            command = ["--one-build", json.dumps({**settings, "memory": arguments.memory})]
            built, disk_bytes = run_child([sys.executable, __file__, *command], watched=place)
            document["builds"].append(
                {"variant": variant, "num_rows": num_rows, **built, "peak_disk_bytes": disk_bytes}
            )
            print(in_words(document["builds"][-1]), flush=True)
    if "build" in parts:
        document["peak_ratio"] = peak_ratios(document["builds"], sizes)
        print(f"peak memory for {sizes[1] / sizes[0]:.0f} times the rows: {document['peak_ratio']}")
    repo = place / f"{variants[0]}-{sizes[1]}"
    if "open" in parts:
        document["open"] = open_in_several_ways(arguments, repo, place)
    if "hub" in parts:
        document["hub"], _ = run_child([sys.executable, __file__, "--one-hub", str(repo)])
        print(json.dumps(document["hub"], indent=2))
    return document


def build_once(upstream: str, out: str, variant: str, memory: str) -> dict[str, Any]:
    """Build in this process: seconds of every stage, peak memory, and what came out."""
    from fedllm_data.build import build
    from fedllm_data.source import Filters

    stages: dict[str, list[float]] = {}
    last = (time.perf_counter(), time.process_time())

    def progress(stage: str, count: int) -> None:
        nonlocal last
        now = (time.perf_counter(), time.process_time())
        spent = stages.setdefault(stage, [0.0, 0.0])
        spent[:] = [spent[0] + now[0] - last[0], spent[1] + now[1] - last[1]]
        last = now

    is_detected, near_duplicates = VARIANTS[variant]
    source = generated_source("build-scale", lambda: upstream_rows(Path(upstream)), is_detected=is_detected)
    filters = Filters(near_duplicates=near_duplicates)
    start = time.perf_counter()
    facts = build(source, Path(out), filters=filters, memory_limit=memory, progress=progress).facts
    progress("clients table, digests, build.json", 0)
    return {
        "wall_seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(sum(cpu for _, cpu in stages.values()), 2),
        "stages": {
            name: {"wall_seconds": round(wall, 2), "cpu_seconds": round(cpu, 2)}
            for name, (wall, cpu) in stages.items()
        },
        "peak_bytes": memory_bytes("VmHWM"),
        "num_output_bytes": sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file()),
        "num_clients": facts["clients"]["num_clients"],
        "splits": facts["splits"],
        "counts": facts["counts"],
    }


def peak_ratios(builds: list[dict[str, Any]], sizes: list[int]) -> dict[str, float]:
    """Peak memory of the large build over that of the small one, by variant."""
    peaks = {(build["variant"], build["num_rows"]): build["peak_bytes"] for build in builds}
    variants = dict.fromkeys(build["variant"] for build in builds)
    return {name: round(peaks[name, sizes[1]] / peaks[name, sizes[0]], 3) for name in variants}


def in_words(built: dict[str, Any]) -> str:
    """One line on a build, and one a stage."""
    memory, output, disk = (built[f"{name}_bytes"] / 2**20 for name in ("peak", "num_output", "peak_disk"))
    lines = [
        f"{built['variant']}, {built['num_rows']:,} rows: {built['wall_seconds']:.0f} s, "
        f"CPU {built['cpu_seconds']:.0f} s; MiB: peak memory {memory:.0f}, output {output:.0f}, disk {disk:.0f}"
    ]
    for name, spent in built["stages"].items():
        lines.append(f"    {name:<36}{spent['wall_seconds']:>9.2f} s   CPU {spent['cpu_seconds']:>9.2f} s")
    return "\n".join(lines)


def open_in_several_ways(arguments: argparse.Namespace, repo: Path, place: Path) -> dict[str, Any]:
    """Open every client once by `load_clients` and by flwr-datasets, and a sample by filter."""
    import pyarrow.parquet as pq

    parts = [pq.read_table(path, columns=["client_id"])[0] for path in sorted(repo.glob("data/train-*.parquet"))]
    every = sorted({client_id for part in parts for client_id in part.unique().to_pylist()})
    sample = every[:: max(1, len(every) // arguments.filter_sample)][: arguments.filter_sample]
    flwr_python = arguments.flwr_python or flwr_environment(place / "flwr")
    ways = {
        "load_clients": (sys.executable, every, arguments.repeats),
        "filter": (sys.executable, sample, 1),
        "filter_column": (sys.executable, sample, 1),
        "natural_id": (flwr_python, every, arguments.repeats),
        "natural_id_shuffled": (flwr_python, every, arguments.repeats),
    }
    results: dict[str, dict[str, Any]] = {}
    for way, (python, client_ids, repeats) in ways.items():
        chosen = place / "chosen.json"
        chosen.write_text(json.dumps(client_ids))
        command = [python, str(HERE / "open_clients.py"), way, str(repo)]
        environment = {**os.environ, "HF_HOME": str(place / f"home-{way}")}
        first, _ = run_child([*command, "--first"], environment)
        opened = [run_child([*command, "--clients", str(chosen)], environment)[0] for _ in range(repeats)]
        result = {name: round(statistics.median(run[name] for run in opened), 6) for name in opened[0]}
        once = result["load_seconds"] + result["index_seconds"]
        scale = len(every) / len(client_ids)
        result |= {name: value for name, value in first.items() if name.startswith("first_load")}
        result["is_extrapolated"] = scale > 1
        result["every_client_seconds"] = round(once + scale * result["open_seconds"], 3)
        results[way] = result
        print(f"{way}: {json.dumps(result)}", flush=True)
    ours = results["load_clients"]
    ratios = {
        way: {
            name: round(result[name] / ours[name], 2)
            for name in ("every_client_seconds", "to_first_client_seconds", "peak_bytes_opened")
        }
        for way, result in results.items()
    }
    print(f"over load_clients: {json.dumps(ratios, indent=2)}")
    return {
        "num_clients": len(every),
        "ways": results,
        "over_load_clients": ratios,
        "flwr_versions": versions_in(flwr_python),
    }


def flwr_environment(folder: Path) -> str:
    """Install flwr-datasets into an environment of its own, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    if subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "-qq", "install", FLWR]).returncode:
        raise SystemExit(f"{FLWR} cannot be installed here; leave the part open out of --parts")
    return python


def versions_in(python: str) -> dict[str, str]:
    """The versions that matter in another environment."""
    names = (FLWR, "datasets", "pyarrow", "numpy")
    code = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
    versions: dict[str, str] = json.loads(subprocess.check_output([python, "-c", code], text=True))
    return versions


def read_from_hub(repo: Path) -> dict[str, Any]:
    """Publish the repo on the loopback Hub and read clients spread over all sizes from it."""
    with TemporaryDirectory() as place, loopback_hub(place) as hub:
        import pyarrow.parquet as pq

        from fedllm_data.cards.card import write_card
        from fedllm_data.clients import load_client, load_clients
        from fedllm_data.hub.publish import publish

        write_card(repo)
        publish(repo, "org/build-scale")
        paths = sorted(repo.glob("data/train-*.parquet"))
        footers = [pq.ParquetFile(path).metadata for path in paths]
        opened: list[Any] = []

        def open_streaming() -> int:
            opened.append(load_clients("org/build-scale", streaming=True))
            return len(opened[-1])

        def each(ids: list[str], read: Callable[[str], Any]) -> dict[str, float]:
            return median_of([measure(hub, lambda: read(client_id).num_rows) for client_id in ids])  # noqa: B023

        def streamed(ids: list[str]) -> dict[str, float]:
            clients = load_clients("org/build-scale", streaming=True)  # afresh: it may keep what it has read
            return each(ids, lambda client_id: clients[client_id])

        ways = {"open_streaming": measure(hub, open_streaming)}
        every = list(opened[0])
        chosen = every[:: max(1, len(every) // NUM_READ)][:NUM_READ]
        ways |= {
            "streaming_client": streamed(chosen),
            "streaming_next_client": streamed(every[len(every) // 2 :][:NUM_READ]),
            "load_client": each(chosen, lambda client_id: load_client("org/build-scale", client_id)),
        }
        text_bytes = [text_bytes_of(load_client(repo, client_id)) for client_id in chosen]
        file_bytes = sum(path.stat().st_size for path in paths)
        return {
            "train_files": {
                "num_bytes": file_bytes,
                "num_files": len(paths),
                "num_row_groups": sum(footer.num_row_groups for footer in footers),
                "footer_num_bytes": sum(footer.serialized_size for footer in footers),
                "num_clients": len(every),
            },
            "num_clients_read": len(chosen),
            "median_text_bytes_of_a_client": statistics.median(text_bytes),
            "ways": ways,
            "bytes_over_files": {name: round(way["num_bytes"] / file_bytes, 6) for name, way in ways.items()},
        }


def text_bytes_of(rows: Any) -> int:
    """Bytes of text in a client's rows."""
    return sum(len(message["content"].encode()) for messages in rows["messages"] for message in messages)


def answer(result: dict[str, Any]) -> None:
    """Print the result of a child for its parent."""
    print("RESULT " + json.dumps(result))


def run_child(
    command: list[str], environment: dict[str, str] | None = None, watched: Path | None = None
) -> tuple[dict[str, Any], int]:
    """Return what a child answers, and by how many bytes a watched folder grew at most meanwhile."""
    before = most = folder_bytes(watched) if watched else 0
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while True:
        try:
            output, errors = process.communicate(timeout=1.0)
            break
        except subprocess.TimeoutExpired:
            most = max(most, folder_bytes(watched)) if watched else 0
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if process.returncode or not lines:
        raise SystemExit(f"{' '.join(command)[:300]} failed:\n{errors[-3000:]}")
    return json.loads(lines[0].removeprefix("RESULT ")), most - before


def folder_bytes(folder: Path) -> int:
    """Bytes of all files under a folder that others are writing to."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total


if __name__ == "__main__":
    main()
