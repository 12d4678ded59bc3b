"""What is wrong with the front matter of a card, which people edit by hand: the Hub and `datasets` read it as it is.

Checked is what would otherwise fail later, or silently mean something else: a licence that the Hub does not know, a
language that YAML takes for a truth value, a config whose files do not exist, a split that no config names.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from fedllm_data.card_facts import read_front_matter
from fedllm_data.errors import SchemaError
from fedllm_data.licences import HUB_LICENCES, read_licence

__all__ = ["card_problems"]

_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
_NOT_LANGUAGES = ("multilingual", "code")
"""What the Hub takes instead of a language."""


def card_problems(card: str, files: Sequence[str]) -> list[str]:
    r"""Return what is wrong with a card's front matter, one sentence each; nothing if it is sound.

    Args:
        card: the text of README.md.
        files: paths of the repo's Parquet files.

    >>> card_problems("---\nlicense: CC BY 4.0\nconfigs: []\n---\n", [])[0]
    "license: 'CC BY 4.0' is not how the Hub spells it; write cc-by-4.0"
    """
    try:
        facts = read_front_matter(card)
    except SchemaError as error:
        return [str(error)]
    return [*_licence_problems(facts), *_language_problems(facts), *_config_problems(facts.get("configs"), files)]


def _licence_problems(facts: Mapping[str, Any]) -> list[str]:
    value = facts.get("license")
    problems = []
    for licence in value if isinstance(value, list) else [] if value is None else [value]:
        if licence in HUB_LICENCES:
            continue
        found = read_licence(str(licence))
        remedy = "license: other, with license_name" if found.name else found.identifier
        problems.append(f"license: {str(licence)[:60]!r} is not how the Hub spells it; write {remedy}")
    prompt = facts.get("extra_gated_prompt")
    if prompt is not None and not isinstance(prompt, str):
        problems.append(f"extra_gated_prompt: must be text, got {type(prompt).__name__}; put it into quotes")
    return problems


def _language_problems(facts: Mapping[str, Any]) -> list[str]:
    import langcodes

    value = facts.get("language")
    problems = []
    for language in value if isinstance(value, list) else [] if value is None else [value]:
        if isinstance(language, bool):
            problems.append("language: YAML reads no and yes as truth values; write the Norwegian code as 'no'")
        elif not isinstance(language, str) or not (language in _NOT_LANGUAGES or langcodes.tag_is_valid(language)):
            problems.append(f"language: {str(language)[:40]!r} is no ISO 639 code; write codes such as en or pt")
    return problems


def _config_problems(configs: Any, files: Sequence[str]) -> list[str]:
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        return ["configs: is missing or no list of configs, so datasets.load_dataset cannot tell the splits"]
    problems = []
    names = [str(config.get("config_name")) for config in configs]
    problems += [
        f"configs: names {name!r} twice; leave one out" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if sum(config.get("default") is True for config in configs) > 1:
        problems.append("configs: more than one is the default; leave one")
    named: set[str] = set()
    for name, config in zip(names, configs, strict=True):
        data_files = config.get("data_files")
        items = data_files if isinstance(data_files, list) else [data_files]
        splits = [str(item["split"]) for item in items if isinstance(item, dict) and "split" in item]
        problems += [
            f"configs: {name[:40]!r} names the split {split[:40]!r} twice; give the split all its paths as one list"
            for split in sorted({split for split in splits if splits.count(split) > 1})
        ]
        for split, pattern in _data_files(data_files):
            matched = {path for path in files if fnmatch(path, pattern)}
            named |= matched
            if split is not None and not _SPLIT_NAME.fullmatch(split):
                problems.append(f"configs: {name[:40]!r} names the split {split[:40]!r}; use letters, digits and _")
            if not matched:
                problems.append(f"configs: {name[:40]!r} names {pattern[:80]!r}, and there is no such file")
    problems += [f"configs: no config names {path}, so nobody can load it" for path in files if path not in named]
    return problems


def _data_files(value: Any) -> list[tuple[str | None, str]]:
    """(split or None, pattern) of every path in the forms that `datasets` takes."""
    found: list[tuple[str | None, str]] = []
    for item in value if isinstance(value, list) else [] if value is None else [value]:
        split, paths = (item.get("split"), item.get("path")) if isinstance(item, dict) else (None, item)
        for path in paths if isinstance(paths, list) else [paths]:
            found.append((None if split is None else str(split), str(path)))
    return found
