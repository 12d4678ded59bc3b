"""The command `fedllm-data`: build, import, partition, check, profile, report on and publish client repos.

The flags are in `arguments.py`; here is what each subcommand does and prints.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.arguments import filters_of, make_parser, pairs_of
from fedllm_data.command_words import counted, dry_run_text
from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.measuring_commands import make_codebook_file, profile_repo, report_on_repo
from fedllm_data.rehearsal import rehearsing
from fedllm_data.terminal import row_progress, run_command

if TYPE_CHECKING:
    from fedllm_data.build import BuildResult
    from fedllm_data.source import Source

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return the exit code: 0 when the work was done, 2 on bad input.

    >>> main(["check", "no/such/folder"])
    2
    """
    arguments = _parser().parse_args(argv)
    return run_command(
        "fedllm-data", lambda: arguments.command(arguments), when_interrupted="an earlier output is as it was"
    )


def _parser() -> argparse.ArgumentParser:
    return make_parser(_COMMANDS)


def _list(arguments: argparse.Namespace) -> None:
    from fedllm_data.listing import corpora_json, corpora_lines, corpus_lines
    from fedllm_data.sources import SOURCES

    sources = [_source(arguments.name)] if arguments.name else list(SOURCES.values())
    if arguments.json:
        print(json.dumps(corpora_json(sources), indent=2, ensure_ascii=False))
    else:
        print("\n".join(corpus_lines(sources[0]) if arguments.name else corpora_lines(sources)))


def _build(arguments: argparse.Namespace) -> None:
    source = _source(arguments.name)
    options = pairs_of(arguments.set, "--set")
    path = None
    if arguments.source is not None:
        path = Path(arguments.source)
        if source.upstream == "generated":
            raise ConfigError(f"{source.name} is generated and reads no source; leave --source out")
        if not path.exists():
            if not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", arguments.source) or "hub_id" not in source.options:
                raise ConfigError(f"--source {arguments.source} does not exist; check the path, or give org/name")
            options["hub_id"], path = arguments.source, None
    from fedllm_data.build import build
    from fedllm_data.pipeline.salt import read_salt

    with row_progress() as progress, rehearsing(when=arguments.dry_run):
        result = build(
            source,
            arguments.out,
            source_path=path,
            seed=arguments.seed,
            filters=filters_of(arguments, source.filters),
            unfiltered=arguments.unfiltered,
            salt=read_salt(arguments.salt_file) if arguments.salt_file else None,
            scrub=arguments.scrub,
            overwrite=arguments.overwrite,
            memory_limit=arguments.memory,
            options=options,
            progress=progress,
            finish=_finisher(arguments, progress),
        )
        _show_build(arguments, result)
        return
    place = str(path or options.get("hub_id") or source.upstream)
    filters = "the preset" if filters_of(arguments, source.filters) is None else "the preset, with flags"
    settings = {"options": options, "filters": "none" if arguments.unfiltered else filters}
    print(dry_run_text(arguments, f"build {source.name}, {source.task} rows", [place], settings))


def _import(arguments: argparse.Namespace) -> None:
    from fedllm_data.importer import import_files
    from fedllm_data.pipeline.salt import read_salt
    from fedllm_data.source import Filters
    from fedllm_data.upstream.records import ReadSettings

    columns = pairs_of([pair for text in arguments.columns for pair in text.split(",")], "--columns")
    roles = pairs_of([pair for text in arguments.roles for pair in text.split(",")], "--roles")
    with row_progress() as progress, rehearsing(when=arguments.dry_run):
        result = import_files(
            arguments.files,
            arguments.out,
            task=arguments.task,
            client_column=arguments.client_column,
            columns=columns,
            reading=ReadSettings(delimiter=arguments.delimiter, encoding=arguments.encoding, sheet=arguments.sheet),
            name=arguments.name,
            language=arguments.language,
            roles=roles,
            max_rejected_fraction=arguments.max_rejected_fraction,
            shared_items=arguments.shared_items,
            licence=arguments.licence,
            attribution=arguments.attribution,
            gate=arguments.gate,
            seed=arguments.seed,
            filters=filters_of(arguments, Filters()),
            unfiltered=arguments.unfiltered,
            salt=read_salt(arguments.salt_file) if arguments.salt_file else None,
            scrub=arguments.scrub,
            overwrite=arguments.overwrite,
            memory_limit=arguments.memory,
            progress=progress,
            finish=_finisher(arguments, progress),
        )
        _show_build(arguments, result)
        return
    settings = {"client column": arguments.client_column, "columns": columns, "roles": roles}
    print(dry_run_text(arguments, f"import {arguments.task} rows", list(map(str, arguments.files)), settings))


def _partition(arguments: argparse.Namespace) -> None:
    from fedllm_data.partition.make import partition
    from fedllm_data.partition.rules import PartitionRule

    rule = PartitionRule(
        name=arguments.rule,
        alpha=arguments.alpha,
        column=arguments.column,
        skew=arguments.skew,
        num_clusters=arguments.num_clusters,
    )
    with row_progress() as progress, rehearsing(when=arguments.dry_run):
        result = partition(
            arguments.folder,
            arguments.out,
            rule,
            num_clients=arguments.clients,
            one_split=arguments.one_split,
            random_sizes=arguments.random_sizes,
            seed=arguments.seed,
            overwrite=arguments.overwrite,
            progress=progress,
            finish=_finisher(arguments, progress, parent=arguments.folder),
        )
        _show_build(arguments, result)
        return
    settings = {"rule": rule.name, **rule.parameters, "training clients": arguments.clients or "as many as now"}
    print(dry_run_text(arguments, f"deal the rows of {arguments.folder} out", [str(arguments.folder)], settings))


def _organisations(arguments: argparse.Namespace) -> None:
    from fedllm_data.organisations import group_by_organisation

    with row_progress() as progress, rehearsing(when=arguments.dry_run):
        result = group_by_organisation(
            arguments.folder,
            arguments.out,
            members=arguments.members,
            overwrite=arguments.overwrite,
            progress=progress,
            finish=_finisher(arguments, progress, parent=arguments.folder),
        )
        _show_build(arguments, result)
        return
    reads = [str(path) for path in (arguments.folder, arguments.members) if path is not None]
    print(dry_run_text(arguments, f"group the clients of {arguments.folder} by organisation", reads, {}))


def _finisher(
    arguments: argparse.Namespace, progress: Callable[[str, int], None], parent: Path | None = None
) -> Callable[[Path, dict[str, Any]], None] | None:
    """What adds report and card to a new client repo before it is put in place; None if neither is wanted.

    The report of a partition has its parent's codebook, so that the figures of both can be compared.
    """
    if arguments.no_report:
        return None

    def add(folder: Path, facts: dict[str, Any]) -> None:
        from fedllm_data.cards.card import write_card
        from fedllm_data.report import parent_codebook, write_report

        progress("measuring heterogeneity", sum(split["num_rows"] for split in facts["splits"].values()))
        codebook = parent_codebook(parent) if parent else None
        report = write_report(folder, folder, seed=arguments.seed, name=facts["name"], codebook=codebook)
        write_card(folder, report)

    return add


def _show_build(arguments: argparse.Namespace, result: "BuildResult") -> None:
    """Say what was made."""
    from fedllm_data.build_words import row_lines

    if arguments.json:
        print(json.dumps(result.facts, indent=2, ensure_ascii=False))
        return
    facts = result.facts
    num_clients = facts["clients"]["num_clients"]
    print(f"{facts['name']}: {counted(num_clients, 'client')}, {counted(sum(result.num_rows.values()), 'row')}")
    for split, counts in facts["splits"].items():
        clients = "" if split == "public" else f" of {counted(counts['num_clients'], 'client')}"
        print(f"  {split:<7}{counts['num_rows']:>10,} rows{clients}")
    counts = facts["counts"] | {name: n for name, n in facts["split_counts"].items() if name.endswith("_dropped")}
    for name, count in counts.items():
        if count == 0 or name in ("num_valid", "num_kept"):
            continue
        print(f"  {name.removeprefix('num_').replace('_', ' ')}: {count:,}")
    for line in row_lines(facts):
        print(f"  {line}")
    for reason, count in list(facts["rejected_reasons"].items())[:5]:
        print(f"    {count:>8,}  {reason}")
    if "import" in facts and not facts["partition"]:
        from fedllm_data.importing.import_notes import import_lines

        for line in import_lines(facts["import"]):
            print(f"  {line}")
    if result.num_rejected:
        print(f"  every rejected row: {result.folder / 'rejected.jsonl'}")
    print(f"  folder: {result.folder}" if arguments.no_report else f"  report: {result.folder / 'report.html'}")


def _check(arguments: argparse.Namespace) -> None:
    from fedllm_data.check import check_repo

    problems = check_repo(arguments.repo, arguments.revision)
    if arguments.json:
        print(json.dumps({"repo": arguments.repo, "problems": problems}, indent=2, ensure_ascii=False))
    else:
        for problem in problems:
            print(problem)
    if problems:
        raise ConfigError(
            f"{arguments.repo} has {counted(len(problems), 'problem')}, listed on standard output; build it again"
        )
    if not arguments.json:
        print(f"{arguments.repo} is a sound client repo")


def _publish(arguments: argparse.Namespace) -> None:
    from fedllm_data.hub.publish import preview, publish

    private = True if arguments.private else False if arguments.public else None
    if arguments.dry_run:
        plan = preview(arguments.folder, arguments.repo, private=private, allow_personal_ids=arguments.yes)
        print(json.dumps(asdict(plan), indent=2, ensure_ascii=False) if arguments.json else "\n".join(plan.lines()))
        return
    result = publish(
        arguments.folder,
        arguments.repo,
        private=private,
        allow_personal_ids=arguments.yes,
        tag=arguments.tag,
        message=arguments.message,
        gated=arguments.gated,
    )
    if arguments.json:
        names = ("repo_id", "revision", "url", "is_unchanged")
        said = {name: getattr(result, name) for name in names} | {"lines": result.lines()}
        print(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        print("\n".join([f"{result.url} is at {result.revision}", *result.lines()]))


def _source(name: str) -> "Source":
    from fedllm_data.sources import SOURCES

    if name not in SOURCES:
        raise ConfigError(
            f"there is no corpus {name[:60]!r}; {did_you_mean(name, SOURCES)}choose one of {', '.join(SOURCES)}"
        )
    return SOURCES[name]


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "list": _list,
    "build": _build,
    "import": _import,
    "partition": _partition,
    "organisations": _organisations,
    "check": _check,
    "codebook": make_codebook_file,
    "profile": profile_repo,
    "report": report_on_repo,
    "publish": _publish,
}


if __name__ == "__main__":
    sys.exit(main())
