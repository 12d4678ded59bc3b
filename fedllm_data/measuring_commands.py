"""The subcommands of `fedllm-data` that measure: `codebook`, `profile` and `report`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.arguments import pairs_of
from fedllm_data.command_words import counted, dry_run_text
from fedllm_data.errors import ConfigError
from fedllm_data.rehearsal import rehearsing
from fedllm_data.terminal import row_progress

if TYPE_CHECKING:
    from fedllm_data.codebook import Codebook
    from fedllm_data.features.judges import Judges

__all__ = ["make_codebook_file", "profile_repo", "report_on_repo"]


def make_codebook_file(arguments: argparse.Namespace) -> None:
    """Do the work of `fedllm-data codebook`."""
    from fedllm_data.codebook import write_codebook
    from fedllm_data.codebook.making import CodebookSettings, make_codebook
    from fedllm_data.profiles import codebook_sample, open_splits

    given: dict[str, Any] = {"encoder": arguments.encoder, "max_clusters": arguments.clusters}
    settings = CodebookSettings(
        min_rows=arguments.min_rows,
        scorers=_judges(arguments).listed,
        parsers=pairs_of(arguments.parser, "--parser"),
        seed=arguments.seed,
        **{name: value for name, value in given.items() if value is not None},
    )
    datasets, _ = open_splits(arguments.repo, revision=arguments.revision)
    sample = codebook_sample(arguments.repo, datasets, arguments.revision)
    if arguments.dry_run:
        num_rows = sum(each.rows.num_rows for each in sample)
        origin = f"{arguments.repo}, split {', '.join(each.split for each in sample)}: {counted(num_rows, 'row')}"
        made = {"encoder": settings.encoder, "clusters": settings.max_clusters, "min rows": settings.min_rows}
        print(dry_run_text(arguments, "make a codebook", [origin], made, holds="a codebook"))
        return
    book = make_codebook(sample, settings)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_codebook(book, arguments.out)
    origin = "the public split" if sample[0].split == "public" else "the pool of all clients' rows"
    print(f"codebook: {arguments.out}, made from {origin}; its digest is {book.digest}")


def profile_repo(arguments: argparse.Namespace) -> None:
    """Do the work of `fedllm-data profile`."""
    from fedllm_data.codebook import read_codebook
    from fedllm_data.profile_files import profile_clients

    with row_progress() as progress, rehearsing(when=arguments.dry_run):
        written = profile_clients(
            arguments.repo,
            arguments.out,
            read_codebook(arguments.codebook),
            clients=arguments.client,
            split=arguments.split,
            revision=arguments.revision,
            judges=_judges(arguments),
            progress=lambda count: progress("read", count),
        )
        few = written.num_merged_rows
        merged = f", {counted(few, 'row')} of small clients merged" if few else ""
        print(f"profiles: {counted(len(written.clients), 'client')}{merged} in {arguments.out}")
        return
    reads = [arguments.repo, f"{arguments.codebook}: the codebook", *map(str, arguments.scores)]
    clients = ", ".join(arguments.client or ()) or "all"
    print(dry_run_text(arguments, "profile clients", reads, {"clients": clients}, holds="one profile a client"))


def report_on_repo(arguments: argparse.Namespace) -> None:
    """Do the work of `fedllm-data report`."""
    if (arguments.repo is None) == (arguments.profiles is None):
        raise ConfigError("name a client repo, or --profiles DIR with what its clients wrote: one of the two")
    if arguments.compare is not None:
        _compare(arguments)
        return
    codebook = None
    if arguments.codebook is not None:
        from fedllm_data.codebook import read_codebook

        codebook = read_codebook(arguments.codebook)
    if arguments.profiles is not None:
        _report_profiles(arguments, codebook)
        return
    # Into a client repo itself, the report is part of it: under the corpus's name, and the card is written again.
    facts = arguments.out / "build.json"
    is_own = Path(arguments.repo).is_dir() and arguments.out.resolve() == Path(arguments.repo).resolve()
    name = json.loads(facts.read_text(encoding="utf-8")).get("name") if is_own and facts.is_file() else None
    if name is not None and arguments.split is not None:
        raise ConfigError(f"{arguments.repo} holds the report of all its splits; give --out another folder")
    settings = {
        "split": arguments.split,
        "seed": arguments.seed,
        "name": name,
        "codebook": codebook,
        "language": arguments.language,
    }
    with rehearsing(when=arguments.dry_run):
        report, origin = _made_report(arguments, settings)
        if name is not None:
            from fedllm_data.cards.card import write_card

            write_card(arguments.out, report)
        _show_report(arguments, report)
        if origin is not None and not arguments.json:
            print(
                f"  taken from {origin}: it was made of the same rows, settings and versions (--again recomputes it)"
            )
        return
    _show_dry_report(arguments, [arguments.repo, *map(str, arguments.scores)])


def _made_report(arguments: argparse.Namespace, settings: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """The report of a repo, and where it was taken from if it lay there already."""
    from fedllm_data.report_reuse import take_report

    if not (arguments.again or arguments.scores or arguments.revision or arguments.dry_run):
        taken = take_report(arguments.repo, arguments.out, **settings)
        if taken is not None:
            return taken[1], taken[0]
    from fedllm_data.report import write_report

    with row_progress() as progress:
        report = write_report(
            arguments.repo,
            arguments.out,
            revision=arguments.revision,
            progress=lambda count: progress("read", count),
            judges=_judges(arguments),
            **settings,
        )
    return report, None


def _report_profiles(arguments: argparse.Namespace, codebook: "Codebook | None") -> None:
    if codebook is None:
        raise ConfigError("--profiles needs --codebook FILE, the one that the clients counted with")
    if arguments.scores or arguments.split or arguments.revision:
        raise ConfigError("profiles hold their scores and splits; leave out --scores, --split and --revision")
    if arguments.dry_run:
        _show_dry_report(arguments, [str(arguments.profiles)])
        return
    from fedllm_data.report import write_report_from_profiles

    report = write_report_from_profiles(
        arguments.profiles, arguments.out, codebook, seed=arguments.seed, language=arguments.language
    )
    _show_report(arguments, report)


def _show_dry_report(arguments: argparse.Namespace, reads: list[str]) -> None:
    holds = "heterogeneity.json, report.html, figures/"
    reads += [f"{arguments.codebook}: the codebook"] if arguments.codebook else []
    print(
        dry_run_text(
            arguments, "measure how different the clients are", reads, {"split": arguments.split}, holds=holds
        )
    )


def _show_report(arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    if arguments.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(f"report: {arguments.out / 'report.html'}")


def _compare(arguments: argparse.Namespace) -> None:
    from fedllm_data.reporting.compare_reports import write_comparison

    if arguments.repo is None or arguments.codebook or arguments.scores or arguments.split:
        raise ConfigError("--compare sets two finished reports side by side: name both folders, and nothing else")
    if arguments.dry_run:
        reads = [arguments.repo, arguments.compare]
        print(
            dry_run_text(
                arguments, "set two reports side by side", reads, {}, holds="comparison.json, comparison.html"
            )
        )
        return
    comparison = write_comparison(arguments.repo, arguments.compare, arguments.out, language=arguments.language)
    if arguments.json:
        print(json.dumps(comparison, indent=2, ensure_ascii=False))
    else:
        print(f"{comparison['summary']}\ncomparison: {arguments.out / 'comparison.html'}")


def _judges(arguments: argparse.Namespace) -> "Judges":
    from fedllm_data.features.judges import Judges
    from fedllm_data.scorers.score_file import read_scores

    return Judges(files=tuple(read_scores(path) for path in arguments.scores))
