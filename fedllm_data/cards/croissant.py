"""Write a client repo's metadata as Croissant 1.1 (JSON-LD), with the fields of its RAI extension, beside the card.

Croissant (mlcommons.org/croissant) is what catalogues of data sets and their loaders read: who made it, under which
terms, the files with their digests, and what a row is. The RAI extension asks where the rows come from, what was done
to them, and what is known of people in them. Everything is said from `build.json` alone, in the words of the card, so
that writing it again gives the same bytes; what is not known is left out.

A list of messages is a field with the subfields role and content, as the Hub's own Croissant files describe one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedllm_data.cards.card_words import client_id_words, filter_words, partition_words, scrub_words
from fedllm_data.cards.front_matter import HUB_ID
from fedllm_data.cards.text import COLUMN_MEANINGS
from fedllm_data.schema import SCHEMAS, SPLITS

__all__ = ["CROISSANT_FILE", "croissant_of", "croissant_text", "set_croissant_url", "write_croissant"]

CROISSANT_FILE = "croissant.json"
_PROJECT = "https://pypi.org/project/fedllm-commons"
_CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
_PARQUET = "application/x-parquet"
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context of the standard, version 1.1; a reader warns of any other."""
_SPLIT_TYPE = {"train": "cr:TrainingSplit", "test": "cr:TestSplit"}


def write_croissant(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write croissant.json into a client repo, and return its path.

    Args:
        folder: the client repo.
        facts: content of its build.json.

    Raises:
        KeyError: if the facts lack what every build states.

    >>> write_croissant(Path("no-such-folder"), {})
    Traceback (most recent call last):
    KeyError: 'splits'
    """
    path = folder / CROISSANT_FILE
    path.write_text(croissant_text(facts), encoding="utf-8")
    return path


def croissant_text(facts: Mapping[str, Any]) -> str:
    """Return the content of croissant.json.

    >>> croissant_text({})
    Traceback (most recent call last):
    KeyError: 'splits'
    """
    return json.dumps(croissant_of(facts), indent=2, ensure_ascii=False) + "\n"


def set_croissant_url(text: str, url: str) -> str:
    """Return the content of croissant.json with the page that the repo has on the Hub.

    >>> json.loads(set_croissant_url('{"name": "a", "url": "https://x.org"}', "https://y.org"))
    {'name': 'a', 'url': 'https://y.org'}
    """
    return json.dumps(json.loads(text) | {"url": url}, indent=2, ensure_ascii=False) + "\n"


def croissant_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata as JSON-LD.

    Args:
        facts: content of a client repo's build.json.

    Raises:
        KeyError: if the facts lack what every build states.

    >>> croissant_of({})
    Traceback (most recent call last):
    KeyError: 'splits'
    """
    by_split = {
        split: sorted(name for name in facts["files"] if name.startswith(f"data/{split}-"))
        for split in SPLITS
        if split in facts["splits"]
    }
    optional = {
        "license": facts["licence_url"] or facts["licence"],
        "creditText": facts["attribution"],
        "citeAs": facts["citation"].strip(),
        "conditionsOfAccess": facts["gate"],
        "usageInfo": facts["terms"],
        "inLanguage": sorted(code for code in facts["clients"]["num_rows_by_language"] if code != "und"),
        "isBasedOn": "" if facts["upstream"] == "generated" else _page_of(facts["upstream"]),
    }
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [_CONFORMS_TO, "http://mlcommons.org/croissant/RAI/1.0"],
        "name": facts["name"],
        "description": facts["summary"] or f"Rows of {facts['name']}, grouped by client.",
        "url": _PROJECT if facts["upstream"] == "generated" else _page_of(facts["upstream"]),
        **{name: value for name, value in optional.items() if value},
        "keywords": ["federated learning", facts["task"]],
        "distribution": _distribution(facts, by_split),
        "recordSet": [_splits(by_split), *(_rows(facts, split) for split in by_split)],
        **_responsible(facts),
    }


def _page_of(upstream: str) -> str:
    if HUB_ID.fullmatch(upstream):
        return f"https://huggingface.co/datasets/{upstream}"
    return upstream if upstream.startswith(("https://", "http://")) else _PROJECT


def _distribution(facts: Mapping[str, Any], by_split: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """Every file with its digest, and one set of files a split, which the rows are read from."""
    files = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "description": _file_words(name, by_split),
            "contentUrl": name,
            "contentSize": f"{record['num_bytes']} B",
            "encodingFormat": _PARQUET,
            "sha256": record["sha256"],
        }
        for name, record in sorted(facts["files"].items())
    ]
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": f"files-{split}",
            "name": f"files-{split}",
            "description": f"The files of the split {split}.",
            "encodingFormat": _PARQUET,
            "includes": f"data/{split}-*.parquet",
        }
        for split in by_split
    ]
    return [*files, *sets]


def _file_words(name: str, by_split: Mapping[str, list[str]]) -> str:
    split = next((split for split, names in by_split.items() if name in names), None)
    return "One row per client." if split is None else f"Rows of the split {split}, sorted by client."


def _splits(by_split: Mapping[str, list[str]]) -> dict[str, Any]:
    """The splits as the standard lists them; what has no word there (unseen, public) is a split of its own kind."""
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "The splits of the rows.",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [_field("splits/name", "name", "Name of the split.", "sc:Text", {})],
        "data": [{"splits/name": split} for split in by_split],
    }


def _rows(facts: Mapping[str, Any], split: str) -> dict[str, Any]:
    kind = _SPLIT_TYPE.get(split)
    counts = facts["splits"][split]
    return {
        "@type": "cr:RecordSet",
        "@id": f"rows-{split}",
        "name": f"rows-{split}",
        "description": f"Rows of the split {split}: {counts['num_rows']}, of {counts['num_clients']} clients.",
        **({"dataType": kind} if kind else {}),
        "key": {"@id": f"rows-{split}/row_id"},
        "field": [_column(split, field) for field in SCHEMAS[facts["task"]]],
    }


def _column(split: str, field: pa.Field) -> dict[str, Any]:
    name, meaning = f"rows-{split}/{field.name}", COLUMN_MEANINGS[field.name]
    source: dict[str, Any] = {"fileSet": {"@id": f"files-{split}"}, "extract": {"column": field.name}}
    if not pa.types.is_list(field.type):
        return _field(name, field.name, meaning, "sc:Text", source)
    return {
        "@type": "cr:Field",
        "@id": name,
        "name": field.name,
        "description": meaning,
        "isArray": True,
        "arrayShape": "-1",
        "subField": [
            _field(
                f"{name}/{part.name}",
                part.name,
                f"{part.name} of a message",
                "sc:Text",
                {**source, "transform": [{"jsonPath": part.name}]},
            )
            for part in field.type.value_type
        ],
    }


def _field(identifier: str, name: str, description: str, data_type: str, source: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": identifier,
        "name": name,
        "description": description,
        "dataType": data_type,
        **({"source": source} if source else {}),
    }


def _responsible(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The RAI extension: where rows come from, what was done to them, and what is known of the people in them."""
    is_generated, counts = facts["upstream"] == "generated", facts["counts"]
    sources = ", ".join(f"{file['name']} (SHA-256 {file['sha256']})" for file in facts["source_files"])
    protocol = [
        "Rows were brought into one format, grouped by client, filtered and split with fedllm-commons.",
        *filter_words(facts["filters"]),
        *([partition_words(facts["partition"])] if facts["partition"] else []),
        *([facts["organisations"]["words"]] if facts.get("organisations") else []),
        facts["split_rule"],
    ]
    detector = facts["languages"].get("detector")
    found = {
        "rai:dataCollection": f"{facts['summary']} A client is {facts['client']}. Source: {facts['upstream']}, "
        f"{facts['revision'] or 'no revision stated'}." + (f" Files: {sources}." if sources else ""),
        "rai:dataCollectionType": "Software Collection" if is_generated else "Secondary Data analysis",
        "rai:dataCollectionMissingData": f"{counts['num_rejected']} upstream rows could not be used; build.json "
        "counts the reasons."
        if "num_rejected" in counts
        else "",
        "rai:dataPreprocessingProtocol": [words for words in protocol if words],
        "rai:dataAnnotationProtocol": f"Each row is the choice of one person: {facts['summary']}"
        if facts["task"] == "preference" and not is_generated and not facts["partition"]
        else "",
        "rai:machineAnnotationTools": f"The column detected_language is the word of {detector}." if detector else "",
        "rai:annotatorDemographics": ""
        if is_generated
        else "No row tells age, gender, origin or other traits of a client, whether or not upstream publishes them.",
        "rai:dataLimitations": list(facts["limits"]),
        "rai:dataBiases": ""
        if is_generated
        else "The clients are those who left rows in the source, and are no sample of any population.",
        "rai:dataUseCases": "Federated tuning of language models, one client a person or an organisation, and the "
        "study of how clients differ.",
        "rai:personalSensitiveInformation": ""
        if is_generated
        else f"{client_id_words(facts['client_ids'])} {scrub_words(facts['scrubbed'])}",
        "rai:dataReleaseMaintenancePlan": "The repo is built again from its source by one command; build.json records "
        "settings, versions and digests, and CHANGELOG.md of fedllm-commons tells what changed.",
    }
    return {name: value for name, value in found.items() if value}
