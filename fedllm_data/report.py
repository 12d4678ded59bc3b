"""The heterogeneity report of a client repo: how different its clients are, and what chance alone would show.

A report is a function of profiles and their codebook: of profiles that are counted here, or that clients have counted
where their rows lie. What `heterogeneity.json` holds is described in `reporting/document.py`.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from fedllm_data.clients import ClientDataset
from fedllm_data.codebook import Codebook, read_codebook, write_codebook
from fedllm_data.codebook.making import make_codebook
from fedllm_data.errors import ConfigError, ReportError
from fedllm_data.features import UNICODE_WORDS, Tokenizer
from fedllm_data.features.cache import FeatureCache, default_cache
from fedllm_data.features.judges import NO_JUDGES, Judges, find_judges
from fedllm_data.features.verbs import parser_version
from fedllm_data.heterogeneity import measure_axes
from fedllm_data.heterogeneity.axes import axes_of
from fedllm_data.in_place import write_file
from fedllm_data.model_encoders import load_encoder
from fedllm_data.profile_files import read_profiles
from fedllm_data.profiles import ProfileSet, codebook_sample, open_splits, profile_datasets, task_of
from fedllm_data.reporting.document import HeterogeneityReport, dump_json

__all__ = [
    "HeterogeneityReport",
    "dump_json",
    "heterogeneity_report",
    "parent_codebook",
    "report_from_profiles",
    "write_report",
    "write_report_from_profiles",
]

_LOG = logging.getLogger(__name__)


def heterogeneity_report(
    clients: ClientDataset | Sequence[ClientDataset],
    *,
    codebook: Codebook | None = None,
    judges: Judges = NO_JUDGES,
    cache: FeatureCache | None = None,
    seed: int = 0,
    tokenizer: Tokenizer = UNICODE_WORDS,
    num_null: int = 999,
    num_bootstrap: int = 999,
    confidence: float = 0.95,
    min_client_rows: int = 1,
    progress: Callable[[int], None] | None = None,
) -> HeterogeneityReport:
    """Measure how different clients are, on all axes, over all their rows.

    Args:
        clients: one split, or several splits of one repo: a client's rows of all of them are its rows.
        codebook: what makes features of rows; by default it is made from these rows, and the shipped scorers and
            those given are in it.
        judges: scorers beside the shipped ones, as functions or files.
        cache: where features of the same rows may lie already.
        seed: seeds the null and the bootstrap.
        tokenizer: what a token is; its name goes into the report.
        num_null: draws of the null; the smallest possible p is 1 / (num_null + 1).
        num_bootstrap: resamples of the clients behind each interval.
        confidence: coverage of the intervals, in (0, 1).
        min_client_rows: clients with fewer rows were left out when the dataset was made.
        progress: called with the number of rows read after every batch.

    Raises:
        ReportError: if there is no row, or the splits hold rows of different formats.
        ConfigError: if tokenizer, encoder or scorers are not the codebook's.

    >>> from datasets import Dataset
    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> rows = [{"client_id": c, "language": c, "messages": turns} for c in ("en", "fr") for _ in range(20)]
    >>> report = heterogeneity_report(ClientDataset.from_dataset(Dataset.from_list(rows)), num_null=99)
    >>> report.axes["language"].estimates["divergence_fraction"].value
    1.0
    """
    datasets = [clients] if isinstance(clients, ClientDataset) else list(clients)
    task_of(datasets)
    if codebook is None:
        codebook = make_codebook(datasets, tokenizer=tokenizer.name, scorers=judges.listed, cache=cache)
    found = profile_datasets(
        datasets,
        codebook,
        tokenizer=tokenizer,
        judges=find_judges(codebook, judges),
        cache=cache,
        min_client_rows=min_client_rows,
        progress=progress,
    )
    return report_from_profiles(
        found,
        codebook,
        name=datasets[0].name,
        revision=datasets[0].revision,
        seed=seed,
        num_null=num_null,
        num_bootstrap=num_bootstrap,
        confidence=confidence,
    )


def report_from_profiles(
    profiles: ProfileSet,
    codebook: Codebook,
    *,
    name: str,
    revision: str | None = None,
    seed: int = 0,
    num_null: int = 999,
    num_bootstrap: int = 999,
    confidence: float = 0.95,
) -> HeterogeneityReport:
    """Measure how different clients are, from their profiles alone.

    Args:
        profiles: the profiles of all clients, as `read_profiles` or `profile_datasets` gives them.
        codebook: the one that the profiles were made with.
        name: what the report calls the dataset.
        revision: revision of the dataset, where it has one.
        seed: seeds the null and the bootstrap.
        num_null: draws of the null.
        num_bootstrap: resamples of the clients behind each interval.
        confidence: coverage of the intervals, in (0, 1).

    Raises:
        ReportError: if there is no row, or the profiles were made with another codebook.
    """
    if not (num_null >= 1 and num_bootstrap >= 1 and 0 < confidence < 1):
        raise ReportError(
            f"num_null={num_null}, num_bootstrap={num_bootstrap}, confidence={confidence}: "
            "give at least 1 draw, 1 resample and a confidence inside (0, 1)"
        )
    others = {profile.codebook for profile in profiles.profiles} - {codebook.digest}
    if others:
        raise ReportError(
            f"{name} has profiles of codebook {min(others)}, the one given is {codebook.digest}: give theirs, or "
            "profile the rows again"
        )
    definitions = axes_of(profiles.task, codebook.scorers)
    axes = measure_axes(
        profiles.profiles,
        seed=seed,
        num_null=num_null,
        num_bootstrap=num_bootstrap,
        confidence=confidence,
        min_client_rows=max(profiles.min_client_rows, codebook.min_rows),
        axes=definitions,
    )
    return HeterogeneityReport(
        name=name,
        revision=revision,
        task=profiles.task,
        splits=profiles.splits,
        profiles=profiles.clients,
        axes=axes,
        definitions=definitions,
        codebook=codebook,
        config={
            "seed": seed,
            "num_null": num_null,
            "num_bootstrap": num_bootstrap,
            "confidence": confidence,
            "correction": "holm",
            "min_client_rows": profiles.min_client_rows,
            "codebook": codebook.digest,
            "tokenizer": codebook.tokenizer,
            "encoder": codebook.encoder,
            "scorers": {info.name: info.revision for info in codebook.scorers},
            "parsers": codebook.parsers,
            "min_rows": codebook.min_rows,
            "num_merged_rows": profiles.num_merged_rows,
        },
    )


def write_report(
    repo_or_dir: str | Path,
    out: Path,
    *,
    split: str | None = None,
    seed: int = 0,
    revision: str | None = None,
    name: str | None = None,
    progress: Callable[[int], None] | None = None,
    codebook: Codebook | None = None,
    judges: Judges = NO_JUDGES,
    cache: FeatureCache | Literal["default"] | None = "default",
    language: str | None = None,
) -> dict[str, Any]:
    """Write `heterogeneity.json`, `codebook.json`, `report.html` and `figures/*.svg`, `*.png` of a client repo.

    Each file is written beside its place and renamed, so that an earlier report is never half overwritten.

    Args:
        repo_or_dir: a client repo: a folder, or `org/name` on the Hub.
        out: folder for the report; it may be the client repo itself.
        split: one split; without it all rows of all clients (train, test and unseen, as far as the repo has them).
        seed: seeds the null and the bootstrap.
        revision: branch, tag or commit on the Hub; a folder takes none.
        name: what the report calls the dataset; by default the Hub id, or the last part of the folder's path.
        progress: called with the number of rows read after every batch.
        codebook: what makes features of rows; by default it is made from the repo's public split, or from the rows
            themselves where it has none.
        judges: scorers beside the shipped ones, as functions or files.
        cache: where features of the same rows may lie already; by default `features.cache.default_cache()`.
        language: of the page, `en` or `ja`; by default it carries both, and the reader's browser chooses.

    Returns:
        The content of `heterogeneity.json`.

    Raises:
        ReportError: if there is no row to report on, `out` is a file, or the repo's build.json is broken.
        SchemaError: if this is no client repo, or it lacks the split.
        HubError: if there is neither a folder nor a Hub dataset of this name.
        ConfigError: if tokenizer, encoder or scorers are not the codebook's.

    >>> write_report("no/such/folder", Path("report"))
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    _check_folder(out)
    cache = default_cache() if cache == "default" else cache
    datasets, min_client_rows = open_splits(repo_or_dir, split, revision)
    _LOG.info("reporting on %d rows of %s", sum(dataset.rows.num_rows for dataset in datasets), repo_or_dir)
    if codebook is None:
        sample = codebook_sample(repo_or_dir, datasets, revision)
        codebook = make_codebook(sample, scorers=judges.listed, cache=cache)
    report = heterogeneity_report(
        datasets,
        codebook=codebook,
        judges=judges,
        cache=cache,
        seed=seed,
        min_client_rows=min_client_rows,
        progress=progress,
    )
    title = name or (Path(repo_or_dir).resolve().name if Path(repo_or_dir).is_dir() else report.name)
    return _write(report, title, out, language)


def parent_codebook(folder: Path) -> Codebook | None:
    """Return the codebook of a client repo whose rows are dealt out again, if its report can be made with it here.

    Args:
        folder: the parent.

    Returns:
        None if it has none, where its scorers are not shipped (their models or files would be needed again), or
        where its encoder or a parser is not installed at that revision; a warning says which.

    >>> parent_codebook(Path("no/such/folder")) is None
    True
    """
    path = folder / "codebook.json"
    if not path.is_file():
        return None
    codebook = read_codebook(path)
    try:
        find_judges(codebook, NO_JUDGES)
        if load_encoder(codebook.encoder).revision != codebook.encoder_revision:
            raise ConfigError(f"encoder {codebook.encoder} is here at another revision")
        for parser in codebook.parsers.values():
            if parser_version(parser) != parser:
                raise ConfigError(f"parser {parser} is here at another version")
    except ConfigError as error:
        _LOG.warning("the codebook of %s cannot be used for the new report: %s", folder, error)
        return None
    return codebook


def write_report_from_profiles(
    folder: Path,
    out: Path,
    codebook: Codebook,
    *,
    seed: int = 0,
    name: str | None = None,
    language: str | None = None,
) -> dict[str, Any]:
    """Write the same files as `write_report` from profiles that clients wrote: `fedllm-data report --profiles`.

    Args:
        folder: holds the clients' files.
        out: folder for the report.
        codebook: the one that the profiles were made with.
        seed: seeds the null and the bootstrap.
        name: what the report calls the dataset; by default the last part of the folder's path.
        language: of the page, `en` or `ja`; by default it carries both.

    Returns:
        The content of `heterogeneity.json`.

    Raises:
        ReportError: if there are no profiles, they cannot be read together, or `out` is a file.

    >>> book = Codebook(tokenizer="t", encoder="e", encoder_revision="1", centres=((1,),), prompt_salt="00")
    >>> write_report_from_profiles(Path("no/such/folder"), Path("report"), book)
    Traceback (most recent call last):
    fedllm_data.errors.ReportError: no profile-*.json in no/such/folder: `fedllm-data profile` writes them
    """
    _check_folder(out)
    title = name or folder.resolve().name
    return _write(report_from_profiles(read_profiles(folder), codebook, name=title, seed=seed), title, out, language)


def _write(report: HeterogeneityReport, title: str, out: Path, language: str | None) -> dict[str, Any]:
    from fedllm_data.reporting.write_page import write_page

    document = report.to_json() | {"name": title}
    out.mkdir(parents=True, exist_ok=True)
    write_page(document, report.profiles, out, language)
    write_codebook(report.codebook, out / "codebook.json")
    write_file(out / "heterogeneity.json", dump_json(document))
    return document


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ReportError(f"{out} is a file: give a folder for the report")
