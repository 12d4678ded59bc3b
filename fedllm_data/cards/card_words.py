"""Sentences of the card and the NOTICE that follow from the facts of build.json: terms, filters, people, languages.

Plain words, not yet escaped: whoever writes them into a page escapes them.
"""

from collections.abc import Mapping
from typing import Any

from fedllm_data.licences import Term, licence_terms, read_licence

__all__ = [
    "build_command",
    "client_id_words",
    "duplicate_words",
    "filter_words",
    "language_words",
    "obligation_words",
    "partition_words",
    "scrub_words",
]

_OBLIGATIONS = {
    "apache-2.0": "keep the licence and the notices, and say what you changed",
    "mit": "keep the copyright notice and the licence",
    "cc0": "nothing",
    "odc-by": "name the source wherever the rows or what is made of them are shown",
    "odbl": "name the source, and share a changed database under the same licence",
}
"""By the beginning of the licence's identifier; those of Creative Commons are put together from their terms."""
_TERMS: dict[Term, str] = {
    "nc": "use it for no commercial purpose",
    "sa": "share what you derive under the same licence",
    "nd": "pass on no changed version",
}
_SCRUBBED = {"EMAIL": "e-mail addresses", "PHONE": "phone numbers", "IP": "IP addresses", "KEY": "keys"}
_PARTITION_RULES = {
    "iid": "rows were dealt out at random",
    "dirichlet": "every client draws its mix of one column from a Dirichlet distribution",
    "quantity": "rows were dealt out at random to clients whose sizes follow a power law",
    "sorted": "rows were sorted by one column and cut into clients",
    "clusters": "rows were grouped by what they are about, by clusters of their embeddings",
}


def obligation_words(licence: str) -> str:
    """Return what a licence asks of whoever uses the rows.

    Args:
        licence: identifier as on the Hub, or the licence's name; empty if none is known.

    >>> obligation_words("cc-by-nc-4.0")
    'credit the source and say what you changed; use it for no commercial purpose'
    """
    if not licence:
        return "not known: ask the source before you pass rows on"
    identifier = read_licence(licence).identifier
    known = next((words for prefix, words in _OBLIGATIONS.items() if identifier.startswith(prefix)), None)
    if known is not None:
        return known
    asked = [_TERMS[term] for term in _TERMS if term in licence_terms(licence)]
    if identifier.startswith("cc-by"):
        return "; ".join(["credit the source and say what you changed", *asked])
    return "; ".join([*asked, "read the licence before you use the rows"])


def filter_words(filters: Mapping[str, Any]) -> list[str]:
    """Return what the filters of a build leave out, one sentence each.

    Args:
        filters: the fields of `source.Filters` and `unfiltered`.

    >>> filter_words({"min_rows": 2, "languages": ["de", "en"], "keep_toxic": True})
    ['Clients with fewer than 2 rows are left out.', 'Rows in other languages than de, en are left out.']
    """
    if filters.get("unfiltered"):
        return ["Nothing: every client and every valid row is kept, exact duplicates too."]
    languages, similarity = ", ".join(filters.get("languages") or ()), filters.get("near_duplicates")
    said = {
        "Clients with fewer than {} rows are left out.": filters["min_rows"] if filters["min_rows"] > 1 else None,
        "Of a client at most {} rows are kept, chosen by row id.": filters.get("max_rows"),
        "Only the {} clients with the most rows are kept.": filters.get("max_clients"),
        "Rows in other languages than {} are left out.": languages,
        "Conversations with fewer than {} user messages are left out.": filters.get("min_turns"),
        "Conversations with more than {} user messages are left out.": filters.get("max_turns"),
        "Rows whose messages hold more than {} characters in all are left out.": filters.get("max_chars"),
        "Rows that the source flags as toxic are left out.": not filters.get("keep_toxic", True),
        "Rows at least {} similar to another one (Jaccard, prompt and answers) are left out.": similarity,
        "Exact duplicates are kept, and so are pairs whose two answers are the same text.": filters.get(
            "keep_duplicates"
        ),
    }
    numbers = {text: f"{value:,}" if isinstance(value, int) else value for text, value in said.items()}
    return [text.format(numbers[text]) for text, value in said.items() if value]


def duplicate_words(counts: Mapping[str, int]) -> str:
    """Return why duplicates are counted within and across clients apart, in a sentence or two.

    >>> duplicate_words({"num_duplicates_across_clients_kept": 3})[:57]
    'Rows that several clients share are kept: each is a verdi'
    """
    if "num_duplicates_across_clients_kept" in counts and "num_duplicates_in_client_kept" not in counts:
        return (
            "Rows that several clients share are kept: each is a verdict of its own on the same item. The splits are "
            "cut so that no prompt lies both in train and in a held-out split."
        )
    return (
        "Duplicates within a client and across clients are told apart: the first only repeat what the client said, "
        "the second would carry the same words from train into unseen."
    )


def client_id_words(client_ids: Mapping[str, Any]) -> str:
    """Return whether client ids are upstream's own or keyed hashes.

    >>> client_id_words({"hashed": False})
    'Client ids are those that the source publishes.'
    """
    if client_ids.get("artificial"):
        return "Client ids are made up and stand for nobody."
    if not client_ids.get("hashed"):
        return "Client ids are those that the source publishes."
    same = client_ids.get("salt_fingerprint")
    known = f" Releases made with this salt, fingerprint {same}, call a client the same." if same else ""
    return (
        "Client ids are keyed hashes of the source's ids, made with a salt that the publisher keeps: without it "
        f"nobody can tell which id of the source a client had.{known}"
    )


def language_words(languages: Mapping[str, Any]) -> str:
    """Return where the languages come from, and how far source and detector disagree.

    >>> language_words({"detector": "d", "num_from_upstream": 8, "num_detected": 2, "num_both": 4,
    ...     "num_disagreeing": 1})[-105:]
    "they disagree on 1 (a share of 0.250); there the column language is the source's word, and both are kept."
    """
    from_source, detected = languages.get("num_from_upstream", 0), languages.get("num_detected", 0)
    detector = languages.get("detector")
    if not detector:
        return "No detector was asked." if from_source else "Neither the source nor a detector says the language."
    words = (
        f"The source states the language of {from_source:,} rows; the detector ({detector}) that of {detected:,} "
        "others. The column detected_language is the detector's word, empty where it is not sure."
    )
    both, disagreeing = languages.get("num_both", 0), languages.get("num_disagreeing", 0)
    if both:
        words += (
            f" On the {both:,} rows where both speak they disagree on {disagreeing:,} (a share of "
            f"{disagreeing / both:.3f}); there the column language is the source's word, and both are kept."
        )
    return words


def scrub_words(scrubbed: Mapping[str, int] | None) -> str:
    """Return what was replaced in the texts.

    >>> scrub_words({"EMAIL": 3, "IP": 1})[:90]
    'Replaced by placeholders wherever a pattern found them: 3 e-mail addresses, 1 IP addresses'
    """
    if scrubbed is None:
        return "What people wrote was not searched for personal data, insults or false statements."
    found = (
        ", ".join(f"{count:,} {_SCRUBBED.get(kind, kind)}" for kind, count in scrubbed.items() if count)
        or "none was found"
    )
    return (
        f"Replaced by placeholders wherever a pattern found them: {found}. Names, addresses and whatever no pattern "
        "knows are still there; insults and false statements were not looked for."
    )


def partition_words(partition: Mapping[str, Any]) -> str:
    """Return what a partition is a control of.

    >>> partition_words({"rule": "iid", "parameters": {}, "seed": 1, "parent": "fed-oasst"})[:58]
    'The clients of this repo are artificial: the rows of fed-o'
    """
    rule, parent = str(partition["rule"]), partition["parent"]
    if isinstance(parent, Mapping):
        # Twelve digits of a digest tell versions apart; build.json has all of them.
        revision = f" at {str(parent['revision'])[:12]}" if parent.get("revision") else ""
        parent = f"{parent['name']}{revision}"
    parameters = partition["parameters"]
    settings = {name: value for name, value in parameters.items() if name not in ("one_split", "random_sizes")}
    given = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
    if rule == "quantity":
        sizes = ""
    elif parameters.get("random_sizes"):
        sizes = "Each row went to a client drawn at random: sizes differ by chance alone. "
    elif parameters.get("num_clients"):
        sizes = "The clients are equally large. "
    else:
        sizes = "The clients have the sizes of the natural ones. "
    if parameters.get("one_split"):
        splits = (
            "All rows are in `train` and nothing is held out: this is the control for a heterogeneity report over all "
            "rows; to train and evaluate, partition again without --one-split. "
        )
    else:
        splits = (
            "Rows kept their splits, so that what `unseen` clients hold comes from unseen people: this is the control "
            "to train and evaluate on; for a report over all rows, partition again with --one-split. "
        )
    return (
        f"The clients of this repo are artificial: the rows of {parent} by the rule {rule}"
        f"{f' ({given})' if given else ''}, seed {partition['seed']}: {_PARTITION_RULES.get(rule, 'see build.json')}. "
        f"{sizes}{splits}"
        "It is a control: what a method does better or worse on the natural clients than here is owed to who the "
        "people are, not to the rows."
    )


def build_command(facts: Mapping[str, Any]) -> str | None:
    """Return the command that makes a repo again, or None for imports and partitions.

    Args:
        facts: content of build.json.

    >>> build_command({"name": "fed-oasst", "seed": 0, "options": {}, "filters": {"min_rows": 3}, "partition": None,
    ...     "source_files": [], "client_ids": {"hashed": True}})
    'fedllm-data build fed-oasst --salt-file SALT --seed 0 --min-rows 3 --languages all --near-duplicates 0 --out DIR'
    """
    from fedllm_data.sources import SOURCES

    if facts.get("partition") or facts["name"] not in SOURCES:
        return None
    filters = facts["filters"]
    flags = [f"--set {name}={value}" for name, value in facts["options"].items() if name != "unfiltered"]
    flags += ["--source FILE"] if facts["source_files"] else []
    flags += ["--salt-file SALT"] if facts.get("client_ids", {}).get("hashed") else []
    flags += ["--scrub"] if facts.get("scrubbed") is not None else []
    flags += [f"--seed {facts['seed']}"]
    if filters.get("unfiltered"):
        flags += ["--unfiltered"]
    elif not facts.get("is_preset"):
        numbers = ("min_rows", "max_rows", "max_clients", "min_turns", "max_turns", "max_chars")
        flags += [f"--{name.replace('_', '-')} {filters[name]}" for name in numbers if filters.get(name) is not None]
        flags += [f"--languages {','.join(filters.get('languages') or ()) or 'all'}"]
        flags += [f"--near-duplicates {filters.get('near_duplicates') or 0}"]
        flags += ["--keep-toxic"] if filters.get("keep_toxic") else []
    return " ".join(["fedllm-data build", facts["name"], *flags, "--out DIR"])
