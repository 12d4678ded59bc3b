"""The Aya dataset: the client is the annotator; one row is a prompt and the answer people wrote to it.

Upstream's `train` split alone: its `test` split is an evaluation set that papers report on, so it is not trained on.
FedLLM-Bench keeps eight languages, of Arabic the standard variety and of Chinese the simplified script. Varieties of
Arabic have ISO 639-3 codes of their own and keep them here (`ary`, `arz`, ...), so that the filter on languages tells
them apart; the Chinese scripts share one code, hence the option `varieties`.

References: Singh et al. 2024, "Aya Dataset", arXiv:2402.06619; Ye et al. 2024, "FedLLM-Bench", arXiv:2406.04845.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedllm_data.errors import SourceError
from fedllm_data.pipeline.language_detection import language_code
from fedllm_data.schema import UNDETERMINED, make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.fields import FieldError, convert, identifier, text
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_AYA"]

_FILES = HubFiles(
    hub_id="CohereLabs/aya_dataset",
    revision="f9ea04583f02a8f86404ff6c58bf75fe637df8a2",
    files=("data/train-*.parquet",),
)
_VARIETIES = ("benchmark", "all")


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    varieties = options.get("varieties", "benchmark")
    if varieties not in _VARIETIES:
        raise SourceError(f"option varieties is {varieties[:40]!r}; give {' or '.join(_VARIETIES)}")
    keep_all = varieties == "all" or options.get("unfiltered") == "true"

    def row_of(record: Record) -> SourceRow:
        fields = record.fields
        if record.file.startswith("test-"):
            raise FieldError("is of upstream's test split, which stays an evaluation set")
        client_id, prompt, answer = (text(fields, name) for name in ("user_id", "inputs", "targets"))
        if not keep_all and _is_traditional_chinese(fields):
            raise FieldError("is in Chinese of the traditional script; varieties=all keeps it")
        row = {
            "client_id": client_id,
            # Upstream has no row id. An annotator may answer one prompt in two languages, or twice.
            "row_id": make_row_id("aya", client_id, prompt, answer),
            "language": _language(fields),
            "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}],
        }
        return SourceRow(row, record.file, record.line)

    return convert(read_upstream(_FILES, path, options), row_of)


def _language(fields: Mapping[str, Any]) -> str:
    code = language_code(fields.get("language_code"))
    return code if code != UNDETERMINED else language_code(fields.get("language"))


def _is_traditional_chinese(fields: Mapping[str, Any]) -> bool:
    name, code = (identifier(fields, column) or "" for column in ("language", "language_code"))
    is_chinese = "chinese" in name.lower() or code.lower().startswith("zh")
    return is_chinese and ("traditional" in name.lower() or "hant" in code.lower())


FED_AYA = Source(
    name="fed-aya",
    task="sft",
    summary="Prompts and answers that volunteers wrote or edited in their own language; a client is the annotator.",
    client="the annotator (Aya `user_id`)",
    licence="apache-2.0",
    licence_url="https://www.apache.org/licenses/LICENSE-2.0",
    attribution="Aya Dataset, by the contributors of the Aya Open Science Initiative and Cohere Labs",
    upstream=_FILES.hub_id,
    revision=_FILES.revision,
    citation="""@article{singh2024aya,
  title = {Aya Dataset: An Open-Access Collection for Multilingual Instruction Tuning},
  author = {Singh, Shivalika and Vargus, Freddie and D'souza, Daniel and Karlsson, B{\\"o}rje F. and others},
  journal = {arXiv preprint arXiv:2402.06619},
  year = {2024}
}""",
    read=_read,
    is_row_per_record=True,
    options={
        **HUB_OPTIONS,
        "varieties": "benchmark (preset) leaves out Chinese in the traditional script, all keeps it",
        "unfiltered": "true is varieties=all",
    },
    filters=Filters(min_rows=100, languages=("ar", "en", "zh", "pt", "te", "ru", "fr", "es")),
    filter_reasons="The eight languages are FedLLM-Bench's: Standard Arabic, English, Simplified Chinese, Portuguese, "
    "Telugu, Russian, French and Spanish. The paper states no minimum of rows; 100 is an estimate: the smallest "
    "published client has 139 rows.",
    sizes=(
        KnownSize(
            of="FedLLM-Bench, Fed-Aya",
            num_clients=38,
            num_rows=25_513,
            reference="Ye et al. 2024, arXiv:2406.04845, Table 1",
        ),
        KnownSize(
            of="upstream, train split, all languages",
            num_clients=None,
            num_rows=202_362,
            reference=f"dataset card of {_FILES.hub_id}",
        ),
    ),
    terms="Apache-2.0; the card allows any purpose, academic or commercial.",
    limits=(
        "Part of the rows are re-annotations: a person edited a prompt or an answer that came from another dataset, "
        "so wording is not always the client's own.",
        "A few annotators wrote very many rows; upstream's `user_id` is a pseudonym, and the demographics upstream "
        "publishes beside it are not joined here.",
        "Language is upstream's tag of the row, so one client may hold several; FedLLM-Bench's clients hold some rows "
        "outside the eight languages, ours none.",
        "The benchmark's own choice of clients is not published, so its counts need not come out.",
    ),
)
