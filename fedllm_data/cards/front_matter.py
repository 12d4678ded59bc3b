"""The YAML at the head of a card: what the Hub lists, and what `datasets` needs to load the configs and splits."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from fedllm_data.errors import SchemaError
from fedllm_data.licences import is_non_commercial, read_licence
from fedllm_data.schema import SPLITS, UNDETERMINED

__all__ = ["HUB_ID", "configs_of", "dataset_info", "first_front_matter", "front_matter", "licence_fields"]

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")


def front_matter(facts: Mapping[str, Any], info: list[dict[str, Any]]) -> str:
    """Return the YAML, without the lines of dashes around it.

    Args:
        facts: content of a client repo's build.json.
        info: features, rows and bytes of its configs, as `dataset_info` reads them.

    >>> front_matter({}, [])
    Traceback (most recent call last):
    KeyError: 'clients'
    """
    from huggingface_hub import DatasetCardData

    card_data = DatasetCardData(
        language=_languages(facts),
        **licence_fields(facts["licence"], facts.get("licence_url", "")),
        size_categories=[_size_category(sum(split["num_rows"] for split in facts["splits"].values()))],
        source_datasets=[_source_dataset(facts["upstream"])],
        task_categories=["text-generation"],
        pretty_name=facts["name"],
        tags=_tags(facts),
        configs=configs_of(_files_of(facts["splits"])),
        **_gate(facts),
    )
    card_data["dataset_info"] = info
    return str(card_data.to_yaml()).strip()


def dataset_info(folder: Path, splits: Iterable[str]) -> list[dict[str, Any]]:
    """Return the field `dataset_info` of a card: features and sizes of every config, from the files' footers alone.

    Args:
        folder: a client repo.
        splits: those that it has.

    Raises:
        SchemaError: if the files of a config are not there.

    >>> dataset_info(Path("no-such-folder"), ["train"])
    Traceback (most recent call last):
    fedllm_data.errors.SchemaError: no-such-folder holds no data/train-*.parquet; build it again
    """
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    infos = DatasetInfosDict()
    for name, files in _files_of(splits).items():
        paths = {split: sorted(folder.glob(pattern)) for split, pattern in files.items()}
        if not any(paths.values()):
            raise SchemaError(f"{folder} holds no {', '.join(files.values())}; build it again")
        metadata = {split: [pq.read_metadata(path) for path in found] for split, found in paths.items()}
        schema = pq.read_schema(next(path for found in paths.values() for path in found))
        sizes = SplitDict()
        for split, parts in metadata.items():
            num_bytes = sum(part.row_group(i).total_byte_size for part in parts for i in range(part.num_row_groups))
            sizes.add(SplitInfo(split, num_bytes, sum(part.num_rows for part in parts)))
        infos[name] = DatasetInfo(
            features=Features.from_arrow_schema(schema.remove_metadata()),
            splits=sizes,
            download_size=sum(path.stat().st_size for found in paths.values() for path in found),
            dataset_size=sum(split.num_bytes for split in sizes.values()),
            config_name=name,
        )
    card_data = DatasetCardData()
    infos.to_dataset_card_data(card_data)
    return list(card_data["dataset_info"])


def first_front_matter(licence: str, gate: str, splits: Iterable[str]) -> str:
    """Return the YAML of a repo without a card: the terms, and what `datasets` needs to find configs and splits.

    Args:
        licence: as a source names it.
        gate: what readers must agree to, if anything.
        splits: those that the repo has.

    >>> print(first_front_matter("cc0-1.0", "", ["train"]).splitlines()[:3])
    ['license: cc0-1.0', 'tags:', '- federated-learning']
    """
    fields: dict[str, Any] = licence_fields(licence)
    if gate:
        fields["extra_gated_prompt"] = gate
    fields |= {"tags": ["federated-learning"], "configs": configs_of(_files_of(splits))}
    return str(yaml.safe_dump(fields, sort_keys=False)).strip()


def configs_of(files: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the field `configs` of a card.

    Args:
        files: name of a config -> split -> pattern of its files.

    >>> configs_of({"clients": {"train": "clients/clients-*.parquet"}})[0]["data_files"]
    [{'split': 'train', 'path': 'clients/clients-*.parquet'}]
    """
    return [
        {
            "config_name": name,
            **({"default": True} if name == "default" else {}),
            "data_files": [{"split": split, "path": path} for split, path in patterns.items()],
        }
        for name, patterns in files.items()
    ]


def _files_of(present: Iterable[str]) -> dict[str, dict[str, str]]:
    splits = set(present)
    return {
        "default": {split: f"data/{split}-*.parquet" for split in SPLITS if split in splits},
        "clients": {"train": "clients/clients-*.parquet"},
    }


def licence_fields(licence: str, url: str = "") -> dict[str, Any]:
    """Return the fields of a card that tell the licence; one that the Hub does not know is `other`, by its name.

    >>> licence_fields("CC BY NC 4.0"), licence_fields("Acme Data Terms", "https://acme.org/terms")["license_name"]
    ({'license': 'cc-by-nc-4.0'}, 'acme-data-terms')
    """
    found = read_licence(licence)
    if not found.name:
        return {"license": found.identifier}
    return {"license": "other", "license_name": found.slug or "other", **({"license_link": url} if url else {})}


def _languages(facts: Mapping[str, Any]) -> list[str] | None:
    codes = {re.split("[-_]", code)[0].lower() for code in facts["clients"]["num_rows_by_language"]}
    return sorted(code for code in codes - {UNDETERMINED} if re.fullmatch("[a-z]{2,3}", code)) or None


def _tags(facts: Mapping[str, Any]) -> list[str]:
    return [
        "federated-learning",
        *(["preference", "dpo"] if facts["task"] == "preference" else ["instruction-tuning", "sft"]),
        *(["synthetic"] if facts["upstream"] == "generated" else []),
        *(["artificial-partition"] if facts["partition"] else []),
    ]


def _gate(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the Hub asks of whoever wants to read, where the source demands it."""
    if not facts["gate"]:
        return {}
    return {
        "extra_gated_heading": f"Conditions of access to {facts['name']}",
        "extra_gated_prompt": facts["gate"],
        "extra_gated_fields": {
            **(
                {"I use the rows for no commercial purpose": "checkbox"} if is_non_commercial(facts["licence"]) else {}
            ),
            "I keep to the terms above and pass the rows on under no others": "checkbox",
            "I do not try to find out who a client is": "checkbox",
        },
    }


def _source_dataset(upstream: str) -> str:
    if upstream == "generated":
        return "original"
    return f"extended|{upstream}" if HUB_ID.fullmatch(upstream) else "extended"


def _size_category(num_rows: int) -> str:
    """The Hub's name for the order of magnitude."""
    return next((name for power, name in enumerate(_SIZES) if num_rows < 1000 * 10**power), "n>1T")
