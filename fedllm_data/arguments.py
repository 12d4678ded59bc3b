"""The flags of `fedllm-data`, and what they mean for the functions behind it."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedllm_data.command_line.one_line_parser import NEEDED, OneLineParser, ShowVersion, add_command
from fedllm_data.command_line.shared_commands import add_shared_commands
from fedllm_data.errors import ConfigError
from fedllm_data.reporting.language_flag import add_language
from fedllm_data.schema import UNDETERMINED
from fedllm_data.source import Filters

__all__ = ["filters_of", "make_parser", "pairs_of"]


def make_parser(commands_by_name: Mapping[str, Callable[[argparse.Namespace], None]]) -> OneLineParser:
    """Return the parser of the command line; the parsed `command` is the function that does the work.

    Args:
        commands_by_name: the function of every subcommand.

    >>> names = "list build import partition organisations check codebook profile report publish".split()
    >>> make_parser(dict.fromkeys(names, print)).parse_args(["check", "clients"]).repo
    'clients'
    """
    parser = OneLineParser(prog="fedllm-data", description="Build, check, measure and publish client repos.")
    parser.add_argument("--version", action=ShowVersion)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = add_command(commands, "list", does="show the corpora that can be built")
    listing.add_argument("name", nargs="?", metavar="NAME", help="one corpus, with everything that is known of it")
    listing.add_argument("--json", action="store_true", help="print JSON instead of a table")
    listing.set_defaults(command=commands_by_name["list"])

    build = add_command(
        commands,
        "build",
        does="build the client repo of a corpus",
        writes=True,
        shown=(
            ("A corpus that is generated here", "fedllm-data build fed-synth --out fed-synth"),
            (
                "A smaller one, without its report",
                "fedllm-data build fed-synth --out small --set num_clients=20 --no-report",
            ),
            (
                "Clients with ten rows or more, twenty clients at most",
                "fedllm-data build fed-synth --out large --min-rows 10 --max-clients 20",
            ),
        ),
    )
    build.add_argument("name", metavar="NAME", help="a corpus of `fedllm-data list`")
    needed, upstream = build.add_argument_group(NEEDED), build.add_argument_group("where the rows come from")
    _add_out(needed)
    upstream.add_argument(
        "--source", metavar="PLACE", help="a local copy (file or folder), or a Hub dataset to stream"
    )
    upstream.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the corpus; may be repeated"
    )
    _add_output_options(build)
    build.set_defaults(command=commands_by_name["build"])

    importing = add_command(
        commands,
        "import",
        does="make a client repo of your own files",
        writes=True,
        shown=(
            (
                "Tickets with their own names of columns",
                "fedllm-data import tickets.csv --task sft --client-column agent --columns "
                "instruction=question,response=answer --out tickets",
            ),
            (
                "The same, semicolons and an encoding of Windows",
                "fedllm-data import windows.csv --task sft --client-column agent --columns "
                "instruction=question,response=answer --delimiter ';' --encoding cp1252 --out windows",
            ),
            (
                "Nobody is to be named: hashed ids, addresses and numbers replaced",
                "fedllm-data import tickets.csv --task sft --client-column agent --columns "
                "instruction=question,response=answer --salt-file salt --scrub --out private",
            ),
        ),
    )
    importing.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="CSV, TSV, JSON, Parquet, Arrow or xlsx"
    )
    needed = importing.add_argument_group(NEEDED)
    _add_out(needed)
    needed.add_argument("--task", required=True, choices=("sft", "preference"), help="what the rows are for")
    needed.add_argument(
        "--client-column",
        required=True,
        metavar="COL",
        help="the column that names the client; metadata.user is user within metadata",
    )
    reading = importing.add_argument_group("how the files are read")
    reading.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="TARGET=COL,...",
        help="what your columns are called, such as instruction=question,response=answer; instruction=title+body joins"
        " two columns, input= leaves one out, group=thread_id keeps every thread in one split,"
        " organisation=hospital writes clients as HOSPITAL:CLIENT, for `fedllm-data organisations`",
    )
    reading.add_argument(
        "--roles",
        action="append",
        default=[],
        metavar="NAME=ROLE,...",
        help="what the roles of your messages mean, such as customer=user,agent=assistant",
    )
    reading.add_argument(
        "--max-rejected-fraction",
        type=float,
        default=0.1,
        metavar="F",
        help="stop where one reason rejects more than this fraction of the rows (0.1); 1 never stops",
    )
    reading.add_argument("--delimiter", metavar="C", help="what separates the columns of a .csv or .tsv: ; or tab")
    reading.add_argument("--encoding", metavar="NAME", help="encoding of texts that are not UTF-8, such as cp1252")
    reading.add_argument("--sheet", metavar="NAME", help="which sheet of a workbook (.xlsx) with several to read")
    corpus = importing.add_argument_group("what the corpus is, for the card and the Hub")
    corpus.add_argument("--name", metavar="NAME", help="name of the corpus; by default that of the output folder")
    reading.add_argument("--language", metavar="CODE", help="language of rows without a language column (en)")
    reading.add_argument(
        "--shared-items",
        action=argparse.BooleanOptionalAction,
        help="clients judge or answer the same items, so equal rows of two clients are no duplicates (the default for"
        " preference rows, not for sft)",
    )
    corpus.add_argument("--licence", default="", metavar="ID", help="such as cc-by-4.0, for the card")
    corpus.add_argument("--attribution", default="", metavar="TEXT", help="whom to credit, for the card")
    corpus.add_argument("--gate", default="", metavar="TEXT", help="what readers on the Hub must agree to")
    _add_output_options(importing)
    importing.set_defaults(command=commands_by_name["import"])

    partition = add_command(
        commands, "partition", does="deal the same rows out to artificial clients, as a control", writes=True
    )
    partition.add_argument("folder", type=Path, metavar="DIR", help="a client repo")
    partition.add_argument("--rule", required=True, choices=("iid", "dirichlet", "quantity", "clusters"))
    partition.add_argument("--out", required=True, type=Path, metavar="DIR", help="the client repo to make")
    partition.add_argument("--clients", type=int, metavar="K", help="training clients; by default as many as now")
    partition.add_argument("--alpha", type=float, metavar="A", help="dirichlet, clusters: small is uneven, large even")
    partition.add_argument("--column", metavar="C", help="dirichlet: the column that is dealt out unevenly (language)")
    partition.add_argument("--skew", type=float, metavar="S", help="quantity: 0 gives equal sizes")
    partition.add_argument("--num-clusters", type=int, metavar="C", help="clusters: how many, of the rows' embeddings")
    partition.add_argument(
        "--one-split",
        action="store_true",
        help="all rows go to train: the control for a report over the whole corpus, with nothing held out. Without it"
        " rows keep their split, so unseen clients share out what unseen people wrote: the control to train on",
    )
    partition.add_argument(
        "--random-sizes",
        action="store_true",
        help="each row goes to a client drawn at random, as chance on axis quantity has it; otherwise clients keep"
        " their sizes, or are equal with --clients",
    )
    partition.add_argument("--seed", type=int, default=0, metavar="N", help="seeds the partition (0)")
    _add_overwrite(partition)
    partition.add_argument("--no-report", action="store_true", help="leave out the report and the full card")
    partition.add_argument("--json", action="store_true", help="print build.json instead of a summary")
    partition.set_defaults(command=commands_by_name["partition"])

    organisations = add_command(
        commands,
        "organisations",
        does="group people: the same rows, one client a site or company",
        writes=True,
    )
    organisations.add_argument("folder", type=Path, metavar="DIR", help="a client repo of people")
    organisations.add_argument("--out", required=True, type=Path, metavar="DIR", help="the client repo to make")
    organisations.add_argument(
        "--members",
        type=Path,
        metavar="FILE",
        help="a table with the columns client_id and organisation; without it the organisation is what stands before"
        " the first colon of a client's id, as in SITE:USER",
    )
    organisations.add_argument("--seed", type=int, default=0, metavar="N", help="seeds the report (0)")
    _add_overwrite(organisations)
    organisations.add_argument("--no-report", action="store_true", help="leave out the report and the full card")
    organisations.add_argument("--json", action="store_true", help="print build.json instead of a summary")
    organisations.set_defaults(command=commands_by_name["organisations"])

    check = add_command(commands, "check", does="say what is wrong with a client repo")
    check.add_argument("repo", metavar="DIR_OR_ID", help="a folder, or org/name on the Hub")
    check.add_argument("--revision", help="branch, tag or commit on the Hub")
    check.add_argument("--json", action="store_true", help="print JSON instead of lines")
    check.set_defaults(command=commands_by_name["check"])

    codebook = add_command(
        commands, "codebook", does="make the file that clients share before they profile their rows", writes=True
    )
    codebook.add_argument("repo", metavar="DIR_OR_ID", help="a client repo; its public split is used if it has one")
    codebook.add_argument("--out", required=True, type=Path, metavar="FILE", help="the codebook to write")
    codebook.add_argument("--revision", help="branch, tag or commit on the Hub")
    codebook.add_argument("--encoder", metavar="NAME", help="what embeds instructions, such as st:MODEL")
    codebook.add_argument("--clusters", type=int, metavar="N", help="clusters of instructions, at most")
    codebook.add_argument(
        "--min-rows", type=int, default=1, metavar="N", help="clients with fewer rows are merged into one profile (1)"
    )
    codebook.add_argument(
        "--parser",
        action="append",
        default=[],
        metavar="LANGUAGE=PIPELINE",
        help="an installed spaCy pipeline for verbs and objects, such as en=en_core_web_sm; may be repeated",
    )
    _add_scores(codebook)
    codebook.add_argument("--seed", type=int, default=0, metavar="N", help="seeds projections and clusters (0)")
    codebook.set_defaults(command=commands_by_name["codebook"])

    profile = add_command(
        commands, "profile", does="count what a report needs where the rows lie; no text leaves", writes=True
    )
    profile.add_argument("repo", metavar="DIR_OR_ID", help="a folder, or org/name on the Hub")
    profile.add_argument("--codebook", required=True, type=Path, metavar="FILE", help="what all clients share")
    profile.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the profiles")
    profile.add_argument("--client", action="append", metavar="ID", help="one client; may be repeated; by default all")
    profile.add_argument("--split", metavar="S", help="one split; by default all rows of all clients")
    profile.add_argument("--revision", help="branch, tag or commit on the Hub")
    _add_scores(profile)
    profile.set_defaults(command=commands_by_name["profile"])

    report = add_command(commands, "report", does="measure how different the clients are", writes=True)
    report.add_argument("repo", nargs="?", metavar="DIR_OR_ID", help="a folder, or org/name on the Hub")
    report.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the report")
    report.add_argument("--profiles", type=Path, metavar="DIR", help="what clients wrote, instead of a repo")
    report.add_argument("--codebook", type=Path, metavar="FILE", help="what makes features; by default made here")
    report.add_argument("--compare", metavar="DIR", help="set the report in DIR_OR_ID beside that of another folder")
    report.add_argument("--split", metavar="S", help="one split; by default all rows of all clients")
    report.add_argument("--seed", type=int, default=0, metavar="N", help="seeds the null and the bootstrap (0)")
    report.add_argument("--revision", help="branch, tag or commit on the Hub")
    report.add_argument(
        "--again",
        action="store_true",
        help="compute it even if DIR (after a build) or --out holds it, made of the same rows, settings and versions",
    )
    _add_scores(report)
    report.add_argument("--json", action="store_true", help="print the figures as JSON as well")
    add_language(report)
    report.set_defaults(command=commands_by_name["report"])

    publish = add_command(commands, "publish", does="publish a client repo on the Hub, in one commit", writes=True)
    publish.add_argument("folder", type=Path, metavar="DIR", help="a client repo")
    publish.add_argument("--repo", required=True, metavar="ORG/NAME", help="the dataset on the Hub")
    visibility = publish.add_mutually_exclusive_group()
    visibility.add_argument(
        "--private", action="store_true", help="make a new repo private, which imported data is without this, too"
    )
    visibility.add_argument("--public", action="store_true", help="make a new repo public, of imported data as well")
    publish.add_argument("--yes", action="store_true", help="publish client ids although they look like people")
    publish.add_argument("--tag", help="name this version, such as v1.0")
    publish.add_argument("--message", help="title of the commit")
    publish.add_argument(
        "--gated",
        default="auto",
        choices=("auto", "manual"),
        help="where the card states a gate: whoever agrees gets in at once (auto), or when you say so (manual)",
    )
    publish.add_argument("--json", action="store_true", help="print JSON instead of a line")
    publish.set_defaults(command=commands_by_name["publish"])
    add_shared_commands(commands, "fedllm-data", lambda: make_parser(commands_by_name), _completions)
    return parser


def _completions() -> dict[str, list[str]]:
    """What arguments can be completed with that their parser does not know."""
    from fedllm_data.schema import SPLITS
    from fedllm_data.sources import SOURCES

    corpora, splits = list(SOURCES), list(SPLITS)
    return {"build name": corpora, "list name": corpora, "report split": splits, "profile split": splits}


def _add_scores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scores",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="scores of the rows, as `fedllm-eval quality` writes them; may be repeated",
    )


def filters_of(arguments: argparse.Namespace, preset: Filters) -> Filters | None:
    """Return the preset with what the flags change; None if no flag changes anything.

    Raises:
        ConfigError: if a language is none.

    >>> flags = dict.fromkeys(("min_rows", "max_rows", "max_clients", "min_turns", "max_turns", "max_chars",
    ...     "keep_toxic", "languages", "near_duplicates"))
    >>> filters_of(argparse.Namespace(**flags | {"languages": "en,fr"}), Filters(min_rows=5)).languages
    ('en', 'fr')
    """
    given: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("min_rows", "max_rows", "max_clients", "min_turns", "max_turns", "max_chars", "keep_toxic")
        if getattr(arguments, name) is not None
    }
    if arguments.languages is not None:
        words = [word.strip() for word in arguments.languages.split(",")]
        given["languages"] = () if words == ["all"] else tuple(_code_of(word) for word in words)
    if arguments.near_duplicates is not None:
        given["near_duplicates"] = arguments.near_duplicates or None
    return replace(preset, **given) if given else None


def _code_of(word: str) -> str:
    from fedllm_data.pipeline.language_detection import language_code

    code = language_code(word)
    if code == UNDETERMINED and word != UNDETERMINED:
        raise ConfigError(f"--languages {word[:40]!r} is no language; write codes such as en,fr, or all")
    return code


def pairs_of(texts: list[str], flag: str) -> dict[str, str]:
    """Return NAME=VALUE texts as a mapping.

    Raises:
        ConfigError: if a text has another form, or names something twice.

    >>> pairs_of(["a=1", "b=x=y"], "--set")
    {'a': '1', 'b': 'x=y'}
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise ConfigError(f"{flag} {text[:60]!r} is not of the form NAME=VALUE; correct it")
        if name.strip() in pairs:
            raise ConfigError(f"{flag} names {name.strip()[:60]!r} twice; leave one out")
        pairs[name.strip()] = value.strip()
    return pairs


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a folder made here that holds another dataset, or a report that is not made again",
    )


def _add_out(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--out", required=True, type=Path, metavar="DIR", help="the client repo to make")


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seeds the splits and generated rows (0)")
    _add_overwrite(parser)
    filters = parser.add_argument_group("what to leave out; each overrides the preset of the corpus")
    filters.add_argument("--min-rows", type=int, metavar="N", help="clients with fewer rows")
    filters.add_argument("--max-rows", type=int, metavar="N", help="rows of a client above N")
    filters.add_argument("--max-clients", type=int, metavar="N", help="all but the N clients with the most rows")
    filters.add_argument("--languages", metavar="CODES", help="rows in other languages than these (en,fr), or: all")
    filters.add_argument("--min-turns", type=int, metavar="N", help="conversations with fewer user messages")
    filters.add_argument("--max-turns", type=int, metavar="N", help="conversations with more user messages")
    filters.add_argument("--max-chars", type=int, metavar="N", help="rows with more characters in all")
    filters.add_argument("--keep-toxic", action="store_true", default=None, help="keep what upstream calls toxic")
    filters.add_argument(
        "--near-duplicates",
        type=float,
        metavar="T",
        help="rows whose prompt and answers are at least this similar to another row's (Jaccard, 0 to 1; 0 keeps all)",
    )
    filters.add_argument("--unfiltered", action="store_true", help="nothing: keep every client and every valid row")
    people = parser.add_argument_group("protection of the people behind the rows")
    people.add_argument(
        "--salt-file", type=Path, metavar="FILE", help="hash client ids with this secret; made where missing, keep it"
    )
    people.add_argument(
        "--scrub", action="store_true", help="replace e-mail addresses, phone numbers, IP addresses and keys"
    )
    parser.add_argument(
        "--memory", default="256MB", metavar="SIZE", help="what to hold before spilling to disk (256MB)"
    )
    parser.add_argument(
        "--no-report", action="store_true", help="leave out the heterogeneity report and the full card"
    )
    parser.add_argument("--json", action="store_true", help="print build.json instead of a summary")
