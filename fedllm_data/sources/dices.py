"""DICES: people of two pools say whether an answer is safe; the client is the rater.

Upstream is one CSV a pool, `diverse_safety_adversarial_dialog_990.csv` and `_350.csv`: a line is one rater's view of
one conversation. Of its columns `rater_id`, `item_id`, `context` (the conversation), `response` (the last answer) and
`Q_overall` are used; the last says over all questions whether the rater found the response unsafe (Yes, No, Unsure).

There is one answer a conversation, so the preference is between verdicts: the prompt shows the conversation and asks
for one, the rater's own is chosen and the opposite one rejected. Who is unsure prefers neither and is a `Rejected`.
Raters are numbered anew in each pool: the client is POOL:RATER, such as 990:12. What upstream says of raters (gender,
race, age, country) is in no row. Checked against the README of both pools.

Reference: Aroyo et al. 2023, "DICES Dataset: Diversity in Conversational AI Evaluation for Safety", arXiv:2306.11247.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from fedllm_data.errors import SourceError
from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.fields import FieldError, convert, identifier, text
from fedllm_data.upstream.odd_fields import quoted
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import read_local

__all__ = ["FED_DICES_PA"]

_WHERE = "https://github.com/google-research-datasets/dices-dataset"
_FILES = ("diverse_safety_adversarial_dialog_*.csv",)
_POOL = re.compile(r"_(\d+)\.csv")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_VERDICTS = {"yes": ("Unsafe", "Safe"), "no": ("Safe", "Unsafe")}
"""Answer of `Q_overall` (is it unsafe?) -> the verdict chosen, and the one rejected."""


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    given = options.get("pool", "")
    if given and not _NAME.fullmatch(given):
        raise SourceError(f"option pool is {given[:40]!r}; give a short name of letters and digits, such as 990")

    def row_of(record: Record) -> SourceRow:
        fields = record.fields
        found = _POOL.search(record.file)
        pool = given or (found[1] if found else "")
        if not pool:
            raise FieldError("the file's name does not end in its pool, such as _990.csv; name it with --set pool=990")
        rater, item = identifier(fields, "rater_id"), identifier(fields, "item_id")
        if rater is None or item is None:
            raise FieldError(f"{'rater_id' if rater is None else 'item_id'}: is missing or no id")
        answer = text(fields, "Q_overall").strip().lower()
        if answer == "unsure":
            raise FieldError("Q_overall: the rater was unsure")
        if answer not in _VERDICTS:
            raise FieldError(f"Q_overall: {quoted(fields['Q_overall'])} is neither Yes, No nor Unsure")
        chosen, rejected = _VERDICTS[answer]
        request = (
            "Is the last response of this conversation safe? Answer with Safe or Unsafe.\n\n"
            f"Conversation:\n{text(fields, 'context').strip()}\n\nLast response:\n{text(fields, 'response').strip()}"
        )
        row = {
            "client_id": f"{pool}:{rater}",
            "row_id": make_row_id("fed-dices-pa", pool, rater, item),
            "language": "en",
            "prompt": [{"role": "user", "content": request}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        return SourceRow(row, record.file, record.line)

    return convert(read_local(path, _FILES, where=_WHERE), row_of)


FED_DICES_PA = Source(
    name="fed-dices-pa",
    task="preference",
    summary="Whether the last answer of a provocative conversation is safe, as people of different backgrounds see "
    "it; a client is the rater.",
    client="the rater, within one pool (`rater_id`): 990:12",
    licence="cc-by-4.0",
    licence_url="https://creativecommons.org/licenses/by/4.0/",
    attribution="DICES, by Google Research (Aroyo, Taylor, Díaz, Homan, Parrish, Serapio-García, Prabhakaran, Wang)",
    terms="CC BY 4.0 is what public lists of data sets state; no licence file of the repository could be read here, "
    "so look at it before rows are passed on.",
    upstream=_WHERE,
    revision="see source_files: the corpus is read from a local copy",
    citation="""@inproceedings{aroyo2023dices,
  title = {{DICES} Dataset: Diversity in Conversational {AI} Evaluation for Safety},
  author = {Aroyo, Lora and Taylor, Alex S. and D{\\'\\i}az, Mark and Homan, Christopher M. and Parrish, Alicia and
            Serapio-Garc{\\'\\i}a, Greg and Prabhakaran, Vinodkumar and Wang, Ding},
  booktitle = {Advances in Neural Information Processing Systems, Datasets and Benchmarks},
  year = {2023}
}""",
    read=_read,
    is_row_per_record=True,
    options={"pool": "name of the pool of raters, such as 990; preset: the end of each file's name"},
    filters=Filters(min_rows=2),
    filter_reasons="Two rows are the least that can be split into train and test. Rows of two raters on one "
    "conversation are alike by nature; near-duplicates are kept.",
    sizes=(
        KnownSize(
            of="upstream, pool 990: ratings with those that are unsure",
            num_clients=173,
            num_rows=72_104,
            reference="990/README.md of the repository",
        ),
        KnownSize(
            of="upstream, pool 350: ratings with those that are unsure",
            num_clients=123,
            num_rows=43_050,
            reference="350/README.md of the repository",
        ),
    ),
    limits=(
        "Rows hold conversations that were meant to provoke offensive or dangerous answers; upstream warns of them.",
        "The preference is between the verdicts Safe and Unsafe on one answer, not between two answers: it teaches a "
        "judge, not a writer.",
        "All raters are kept, also those whom the authors left out of their papers for the quality of their ratings "
        "(13 of 173 and 19 of 123), and ratings of conversations that the rater did not understand.",
        "Raters of a pool judge the same conversations: equal rows are separate verdicts, and with two verdicts most "
        "rows of a conversation are equal.",
    ),
    clients_share_items=True,
)
