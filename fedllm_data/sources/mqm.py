"""WMT translations judged by professionals (MQM): the client is the rater, a pair is two translations of a segment.

Upstream holds one record an error mark. A rater's marks on one translation of one segment are a judgment; their
weights add up to its penalty, and of two translations of a segment that one rater gave different penalties the one
with the lower is preferred. Weights (Freitag et al. 2021, section 3.3 and the repository): non-translation 25, major
5, minor 1, minor punctuation 0.1, neutral and no error 0; counted in tenths here, so that sums are exact.

Reference: Freitag et al. 2021, "Experts, Errors, and Context", TACL 9, arXiv:2104.14478.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedllm_data.client_ids import canonical_id, is_missing
from fedllm_data.errors import SourceError
from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.scratch import fill_table, open_scratch, stream_rows, text_problem
from fedllm_data.upstream.upstream_files import read_local

__all__ = ["FED_MQM", "weight_tenths"]

_WHERE = "https://github.com/google/wmt-mqm-human-evaluation"
_FILES = ("mqm*[_-][a-z][a-z][a-z][a-z].tsv",)
_PAIR = re.compile(r"(?:.*[_-])?([a-z]{2})-?([a-z]{2})")
_MARK = re.compile(r"</?v>")
_LANGUAGES = {
    "cs": "Czech",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "is": "Icelandic",
    "ja": "Japanese",
    "ko": "Korean",
    "ru": "Russian",
    "uk": "Ukrainian",
    "zh": "Chinese",
}
_TENTHS = {"major": 50, "minor": 10, "neutral": 0, "no-error": 0}
_NON_TRANSLATION_TENTHS = 250
_COLUMNS = ("system", "doc", "doc_id", "seg_id", "rater", "source", "target", "category", "severity")
_MARKS = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("client_id", pa.string()),
        ("source_language", pa.string()),
        ("target_language", pa.string()),
        ("segment", pa.string()),
        ("system", pa.string()),
        ("source", pa.string()),
        ("target", pa.string()),
        ("tenths", pa.int64()),
        ("problem", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class _Judgment:
    """What one rater said of one translation of one segment."""

    marks: list[dict[str, Any]]

    @property
    def first(self) -> dict[str, Any]:
        return self.marks[0]

    @property
    def tenths(self) -> int:
        return sum(mark["tenths"] for mark in self.marks)

    def rejected(self, reason: str) -> Iterator[Rejected]:
        for mark in self.marks:
            yield Rejected(mark["file"], mark["line"], mark["problem"] or reason)


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    pair = options.get("pair", "")
    if pair and _languages_of(pair) is None:
        raise SourceError(f"option pair is {pair[:40]!r}; give two of {', '.join(_LANGUAGES)}, such as zhen")
    records = read_local(path, _FILES, where=_WHERE)
    marks = (_mark_of(record, ordinal, pair) for ordinal, record in enumerate(records))
    with open_scratch() as connection:
        yield from fill_table(connection, "marks", _MARKS, marks)
        rows = stream_rows(connection, "SELECT * FROM marks ORDER BY client_id, segment, system, ordinal")
        for _, group in groupby(rows, key=lambda mark: (mark["client_id"], mark["segment"])):
            yield from _pairs([_Judgment(list(marks)) for _, marks in groupby(group, key=lambda m: m["system"])])


def _pairs(judgments: list[_Judgment]) -> Iterator[SourceRow | Rejected]:
    """Every two translations of a segment with different penalties; judgments that are in no pair are rejected."""
    sound = [judgment for judgment in judgments if not any(mark["problem"] for mark in judgment.marks)]
    for judgment in judgments:
        if judgment not in sound:
            yield from judgment.rejected("another mark on the same translation cannot be used")
        elif len(sound) == 1:
            yield from judgment.rejected("the rater judged no other translation of this segment")
        elif len({other.tenths for other in sound}) == 1:
            yield from judgment.rejected("the rater gave every translation of this segment the same penalty")
    for one, other in combinations(sound, 2):
        if one.tenths == other.tenths:
            continue
        better, worse = sorted((one, other), key=lambda judgment: judgment.tenths)
        mark = better.first
        source, target = _LANGUAGES[mark["source_language"]], _LANGUAGES[mark["target_language"]]
        request = f"Translate the following text from {source} into {target}.\n\n{mark['source']}"
        row = {
            "client_id": mark["client_id"],
            "row_id": make_row_id("mqm", mark["client_id"], mark["segment"], mark["system"], worse.first["system"]),
            "language": mark["source_language"],
            "prompt": [{"role": "user", "content": request}],
            "chosen": [{"role": "assistant", "content": mark["target"]}],
            "rejected": [{"role": "assistant", "content": worse.first["target"]}],
            "chosen_model": mark["system"],
            "rejected_model": worse.first["system"],
        }
        yield SourceRow(row, worse.first["file"], worse.first["line"])


def _mark_of(record: Record | Rejected, ordinal: int, pair: str) -> dict[str, Any] | Rejected:
    """A record as a row of the table; one whose weight is unknown keeps the problem, as it spoils the judgment."""
    if isinstance(record, Rejected):
        return record
    fields = record.fields
    for name in _COLUMNS:
        if name not in fields:
            return Rejected(record.file, record.line, f"{name}: the column is missing")
        problem = text_problem(name, fields[name])
        if problem:
            return Rejected(record.file, record.line, problem)
    for name in ("system", "seg_id", "rater"):
        if not fields[name].strip():
            return Rejected(record.file, record.line, f"{name}: is empty")
    if is_missing(fields["rater"]):
        return Rejected(record.file, record.line, f"rater: {fields['rater'][:40]!r} stands for a missing id")
    languages = _languages_of(pair or _stem(record.file))
    if languages is None:
        reason = "the file's name does not end in a language pair such as zhen; name it with --set pair=zhen"
        return Rejected(record.file, record.line, reason)
    texts = {name: _MARK.sub("", fields[name]).strip() for name in ("source", "target")}
    problem = next((f"{name}: is empty" for name, text in texts.items() if not text), None)
    tenths = weight_tenths(fields["category"], fields["severity"])
    if tenths is None:
        problem = f"severity: {fields['severity'][:40]!r} has no weight"
    return {
        "ordinal": ordinal,
        "file": record.file,
        "line": record.line,
        "client_id": f"{_stem(record.file)}:{canonical_id(fields['rater'])}",
        "source_language": languages[0],
        "target_language": languages[1],
        "segment": "\t".join(fields[name] for name in ("doc", "doc_id", "seg_id")),
        "system": fields["system"],
        **texts,
        "tenths": tenths or 0,
        "problem": problem,
    }


def weight_tenths(category: str, severity: str) -> int | None:
    """Return the weight of a mark in tenths of a point, or None if the severity is none of the scheme's.

    >>> weight_tenths("Accuracy/Mistranslation", "Major"), weight_tenths("Fluency/Punctuation", "Minor")
    (50, 1)
    """
    category, severity = category.strip().lower(), severity.strip().lower()
    if category.startswith("non-translation"):
        return _NON_TRANSLATION_TENTHS
    if category == "fluency/punctuation" and severity == "minor":
        return 1
    return _TENTHS.get(severity)


def _languages_of(stem: str) -> tuple[str, str] | None:
    match = _PAIR.fullmatch(stem)
    if match is None or match[1] not in _LANGUAGES or match[2] not in _LANGUAGES:
        return None
    return match[1], match[2]


def _stem(file: str) -> str:
    """What tells the files apart, and with them the raters: `ted_zhen` of mqm_ted_zhen.tsv."""
    return re.sub(r"^mqm[_-]", "", Path(file).name.removesuffix(".gz").removesuffix(".tsv"))


FED_MQM = Source(
    name="fed-mqm",
    task="preference",
    summary="Two machine or human translations of a segment, the one with fewer and lighter errors chosen; "
    "a client is the professional who marked the errors in both.",
    client="the rater, within one file of ratings (MQM `rater`): ted_zhen:rater3",
    licence="apache-2.0",
    licence_url="https://www.apache.org/licenses/LICENSE-2.0",
    attribution="WMT MQM human evaluations, by Google (Freitag, Foster, Grangier, Ratnakar, Tan, Macherey) and the "
    "raters; translations by the participants of the WMT shared tasks",
    terms="The repository of the ratings is under Apache-2.0; it says nothing of the terms of the source texts (news "
    "and TED talks) and of the systems' translations, which are quoted in the rows.",
    upstream=_WHERE,
    revision="see source_files: the corpus is read from a local copy",
    citation="""@article{freitag2021experts,
  title = {Experts, Errors, and Context: A Large-Scale Study of Human Evaluation for Machine Translation},
  author = {Freitag, Markus and Foster, George and Grangier, David and Ratnakar, Viresh and Tan, Qijun and
            Macherey, Wolfgang},
  journal = {Transactions of the Association for Computational Linguistics},
  volume = {9},
  year = {2021},
  doi = {10.1162/tacl_a_00437}
}""",
    read=_read,
    options={"pair": "source and target language of all files, such as zhen; preset: the end of each file's name"},
    filters=Filters(min_rows=2),
    filter_reasons="Two rows are the least that can be split into train and test. No near-duplicates are removed: "
    "translations of one segment are alike by nature, and their small differences are what the raters judged. Pairs "
    "of translations with the same text and different penalties go, as in every preference corpus.",
    sizes=(
        KnownSize(
            of="upstream, mqm_ted_zhen.tsv: pairs of different texts and penalties",
            num_clients=8,
            num_rows=4_650,
            reference="built here from the local copy; the ninth rater judged one translation a segment",
        ),
        KnownSize(
            of="upstream, mqm_ted_ende.tsv: pairs of different texts and penalties",
            num_clients=4,
            num_rows=5_859,
            reference="built here from the local copy",
        ),
    ),
    limits=(
        "Raters marked errors in one translation at a time, with the document around it; the preference between two "
        "translations is derived from their penalties, and the prompt shows the segment without its document.",
        "Penalties close to one another (a comma, 0.1 point) count as a preference like those far apart.",
        "Raters are numbered anew in each file and may recur under another number; few clients hold many rows each.",
        "The reference translations are among the candidates (`ref`, `refA`, `refB` or `Human-A` as model).",
        "`language` is that of the text to translate; the answers are in the other language of the pair. The "
        "request itself is in English, which is why the detector takes many a Chinese prompt for English.",
    ),
    clients_share_items=True,
)
