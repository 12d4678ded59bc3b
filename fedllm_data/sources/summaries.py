"""Summarize from feedback: people compare two summaries of a text; the client is the worker.

Upstream holds one record a comparison: `info` with the post (`id`, `post`, `title`, `subreddit`) or, in later batches,
with a news article (`article`, `title`, `site`), `summaries` with two entries (`text`, `policy`), `choice` (0 or 1),
`worker`, `batch`, `split` and `extra.confidence`. A record gives one row. `split` is train, valid1 or valid2; papers
report on the last two, so they stay evaluation sets unless `splits=all`.

The dataset on the Hub is a script, which nothing runs here: its Parquet conversion is read, or a local copy of the raw
`comparisons/batch*.json`. Checked against the README of the authors' repository and public code that reads both.

Reference: Stiennon et al. 2020, "Learning to summarize from human feedback", arXiv:2009.01325.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.fields import FieldError, convert, identifier, nested, text
from fedllm_data.upstream.odd_fields import choice_option, quoted
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_SUMMARIES_PA"]

_HUB_ID = "openai/summarize_from_feedback"
_REVISION = "refs/convert/parquet"
_TRAIN = ("comparisons/train/*.parquet", "comparisons/batch*.json")
_ALL = (*_TRAIN, "comparisons/validation/*.parquet")


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    keeps_all = choice_option(options, "splits", ("train", "all")) == "all"
    files = HubFiles(hub_id=_HUB_ID, revision=_REVISION, files=_ALL if keeps_all else _TRAIN)

    def row_of(record: Record) -> SourceRow:
        fields = record.fields
        split = text(fields, "split")
        if split != "train" and not keeps_all:
            raise FieldError(f"split: {quoted(split)} stays an evaluation set; splits=all keeps it")
        worker = identifier(fields, "worker")
        if worker is None:
            raise FieldError("worker: is missing or no id")
        choice, summaries = fields.get("choice"), _summaries_of(fields)
        if isinstance(choice, bool) or choice not in (0, 1):
            raise FieldError(f"choice: {quoted(choice)} is neither 0 nor 1")
        prompt, item = _prompt_of(fields)
        (chosen, chosen_model), (rejected, rejected_model) = summaries[int(choice)], summaries[1 - int(choice)]
        row = {
            "client_id": worker,
            "row_id": make_row_id("fed-summaries-pa", worker, item, chosen, rejected),
            "language": "en",
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "chosen_model": chosen_model,
            "rejected_model": rejected_model,
        }
        return SourceRow(row, record.file, record.line)

    return convert(read_upstream(files, path, options), row_of)


def _summaries_of(fields: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Text and policy of the two summaries; a policy's texts begin with a blank, which is left out."""
    summaries = nested(fields, "summaries")
    if not isinstance(summaries, list) or len(summaries) != 2:
        found = len(summaries) if isinstance(summaries, list) else type(summaries).__name__
        raise FieldError(f"summaries: must be a list of two, got {found}")
    if not all(isinstance(summary, Mapping) for summary in summaries):
        raise FieldError("summaries: must hold mappings with text and policy")
    return [(text(summary, "text").strip(), identifier(summary, "policy")) for summary in summaries]


def _prompt_of(fields: Mapping[str, Any]) -> tuple[str, str]:
    """The request, and what identifies the text to summarize."""
    info = nested(fields, "info")
    if not isinstance(info, Mapping):
        raise FieldError(f"info: must be a mapping, got {type(info).__name__}")
    item = identifier(info, "id") or ""
    has_article = info.get("post") is None and info.get("article") is not None
    body = text(info, "article" if has_article else "post").strip()
    lines = []
    if info.get("subreddit") is not None and not has_article:
        lines.append(f"Subreddit: r/{text(info, 'subreddit').strip()}")
    if info.get("title") is not None:
        lines.append(f"Title: {text(info, 'title').strip()}")
    request = "Summarize this news article." if has_article else "Summarize this post in one or two sentences."
    return "\n\n".join([request, *(["\n".join(lines)] if lines else []), body]), item


FED_SUMMARIES_PA = Source(
    name="fed-summaries-pa",
    task="preference",
    summary="Two summaries of a post on Reddit, the one that a worker preferred chosen; a client is the worker.",
    client="the worker who compared the summaries (`worker`)",
    licence="Modified MIT License",
    licence_url="https://github.com/openai/summarize-from-feedback/blob/master/LICENSE",
    attribution="Learning to summarize from human feedback, by OpenAI; posts of the Reddit TL;DR dataset by Syed, "
    "Voelske, Potthast and Stein",
    terms="The licence of the authors' repository covers the comparisons and asks to keep its notice; it says that "
    "the posts of Reddit are under the terms of the TL;DR dataset (zenodo.org/record/1168855, CC BY 4.0). The card on "
    "the Hub states no licence.",
    upstream=_HUB_ID,
    revision=_REVISION,
    citation="""@inproceedings{stiennon2020learning,
  title = {Learning to summarize from human feedback},
  author = {Stiennon, Nisan and Ouyang, Long and Wu, Jeff and Ziegler, Daniel M. and Lowe, Ryan and Voss, Chelsea and
            Radford, Alec and Amodei, Dario and Christiano, Paul},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}""",
    read=_read,
    is_row_per_record=True,
    options={
        **HUB_OPTIONS,
        "splits": "train (preset) leaves upstream's valid1 and valid2 as evaluation sets, all keeps them",
    },
    filters=Filters(min_rows=2),
    filter_reasons="Two rows are the least that can be split into train and test. Near-duplicates are kept: summaries "
    "of one post are alike by nature, and their small differences are what the workers judged.",
    sizes=(
        KnownSize(
            of="upstream, comparisons on TL;DR",
            num_clients=None,
            num_rows=64_832,
            reference="README of github.com/openai/summarize-from-feedback",
        ),
    ),
    limits=(
        "Some dozens of contracted workers made all comparisons; a few hold very many rows.",
        "Workers judge the same posts and summaries: equal rows are separate verdicts.",
        "Most summaries were written by models of 2020; `ref` is the one that the author of the post wrote.",
        "Posts are people's own stories, of Reddit; some tell of violence, illness or sex.",
        "`extra.confidence` is not used: a choice made with doubt counts like one made without.",
    ),
    clients_share_items=True,
)
