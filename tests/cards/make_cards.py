"""Make the folder `cards/`: the card of every corpus, and of a run, as they are published.

    make cards                                    # renders all cards again, of what is kept of corpora and runs
    python -m tests.cards.make_cards --build      # builds the corpora first (real files: FEDLLM_SHARED_DATA)
    python -m tests.cards.make_cards --from RUN   # takes a finished run of a generated corpus as the example

A corpus is built where its upstream files are at hand, else from records in its published schema that are filled with
generated text; such a card says so below its title, and its clients are not compared. What a card shows is kept in
`cards/datasets/contents/NAME.json`, so that a change of words shows at once: `tests/cards/test_cards.py` renders all
cards again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedllm_data.cards.card import CardContents, read_contents, render_card
from fedllm_data.sources import SOURCES
from fedllm_train.run_files.run_card import write_run_card
from tests.cards.filled_schemas import FILLED

__all__ = ["CARDS", "REAL_FILES", "built_contents", "card_text", "kept_contents", "real_folder", "run_card"]

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "cards"
REAL_FILES = {
    "fed-oasst": "sft/oasst1/en-validation.jsonl",
    "fed-oasst-pa": "sft/oasst1/en-validation.jsonl",
    "fed-stackexchange": "sft/stackexchange/beer.stackexchange.com/Posts.xml",
    "fed-stackexchange-pa": "sft/stackexchange/beer.stackexchange.com/Posts.xml",
    "fed-mqm": "pref/wmt_mqm/mqm_ted_zhen.tsv",
    "fed-realhumaneval": "sft/realhumaneval/chat_data.csv",
}
"""Corpus -> its upstream file below the folder of real files."""
KEPT_OF_AXIS = ("question", "verdict", "sentence", "chance", "means", "headline", "p_holm", "measures")
FILLED_NOTE = (
    "> **An example.** The corpus was not at hand: this card was made from {num_rows} rows in its published schema, "
    "filled with generated text. Licence, terms, filters and columns are the corpus's, numbers are not.\n"
)
OF_RUN = ("config.yaml", "rounds.jsonl", "scores/results.md")


def real_folder() -> Path:
    """Return where real upstream files are looked for."""
    return Path(os.environ.get("FEDLLM_SHARED_DATA", ROOT.parent / "shared" / "data"))


def built_contents(name: str, folder: Path) -> CardContents | None:
    """Build a corpus below a folder and return what its card shows; None if its real files are not at hand."""
    out, flags = folder / name, []
    if name in REAL_FILES:
        source = real_folder() / REAL_FILES[name]
        if not source.is_file():
            return None
        flags = ["--source", str(source)]
    elif name in FILLED:
        flags = ["--source", str(FILLED[name](folder / f"{name}-upstream")), "--no-report"]
    if SOURCES[name].ids_must_be_hashed:
        salt = folder / "salt"
        salt.write_text("00" * 32 + "\n")
        flags += ["--salt-file", str(salt)]
    # In a process of its own: tests make reports of fewer draws.
    program = "import sys; from fedllm_data.cli import main; sys.exit(main(sys.argv[1:]))"
    if subprocess.run([sys.executable, "-c", program, "build", name, *flags, "--out", str(out)], cwd=ROOT).returncode:
        raise SystemExit(f"{name} could not be built")
    return _without_people(read_contents(out))


def card_text(name: str, contents: CardContents) -> str:
    """Return the card of a corpus as `cards/datasets/NAME.md` holds it."""
    text = render_card(contents, called=name)
    if name not in FILLED:
        return text
    title = f"# {name}\n"
    num_rows = sum(split["num_rows"] for split in contents.facts["splits"].values())
    return text.replace(title, f"{title}\n{FILLED_NOTE.format(num_rows=num_rows)}", 1)


def kept_contents(name: str) -> CardContents:
    """Return what `cards/datasets/contents/NAME.json` holds."""
    kept = json.loads((CARDS / "datasets" / "contents" / f"{name}.json").read_text(encoding="utf-8"))
    return CardContents(**kept | {"figures": tuple(kept["figures"])})


def run_card(folder: Path, scratch: Path) -> str:
    """Return the card of a run whose records lie in a folder, without writing into it.

    It is rendered from the records alone: a corpus that happens to lie where the run's did would tell more.
    """
    copy = scratch / folder.name
    shutil.copytree(folder, copy)
    with chdir(scratch):
        return write_run_card(copy).read_text(encoding="utf-8")


def _render_run(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        (folder / "README.md").write_text(run_card(folder, Path(scratch)), encoding="utf-8")


def _without_people(contents: CardContents) -> CardContents:
    """What a card shows of a report is said of all clients together; figures and page are left with the dataset."""
    report: dict[str, Any] | None = None
    if contents.report is not None:
        axes = contents.report["axes"].items()
        report = {
            "config": contents.report["config"],
            "axes": {name: {key: axis[key] for key in KEPT_OF_AXIS if key in axis} for name, axis in axes},
        }
    return CardContents(facts=contents.facts, report=report, info=contents.info)


def main(argv: Sequence[str] | None = None) -> None:
    """Take a run, or build, and render."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="run", type=Path, help="a finished run whose clients are generated")
    parser.add_argument("--build", action="store_true", help="build the corpora first")
    arguments = parser.parse_args(argv)
    if arguments.run is not None:
        place = CARDS / "runs" / arguments.run.name
        shutil.rmtree(place, ignore_errors=True)
        for name in OF_RUN:
            if (arguments.run / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(arguments.run / name, place / name)
        _render_run(place)
        return
    if arguments.build:
        _build()
    for name in SOURCES:
        (CARDS / "datasets" / f"{name}.md").write_text(card_text(name, kept_contents(name)), encoding="utf-8")
    for config in CARDS.glob("runs/*/config.yaml"):
        _render_run(config.parent)


def _build() -> None:
    """Build the corpora and keep what their cards show."""
    kept = CARDS / "datasets" / "contents"
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in SOURCES:
            contents = built_contents(name, Path(scratch))
            if contents is None:
                print(f"{name}: its files are not at {real_folder()}; what is kept of it stays")
                continue
            text = json.dumps(asdict(contents), indent=1, ensure_ascii=False)
            (kept / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
