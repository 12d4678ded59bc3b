"""OpenAssistant conversations (OASST1, OASST2): the client is the prompter whose message is answered.

Upstream holds messages, each with its parent; a conversation is a path from a root to a reply. `fed-oasst` makes one
row of every prompt and reply, with the messages before it as history; `fed-oasst-pa` one row of every two replies
under one prompt that were given different ranks (rank 0 is the best). Messages may come in any order: DuckDB finds
each message's tree and sorts by tree, and Python holds one tree at a time. Files of whole trees, with the replies
nested, are read message by message.

Reference: Köpf et al. 2023, "OpenAssistant Conversations", arXiv:2304.07327.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, count, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.errors import SourceError
from fedllm_data.pipeline.language_detection import language_code
from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.scratch import fill_table, open_scratch, stream_rows, text_problem
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

if TYPE_CHECKING:
    import duckdb

__all__ = ["FED_OASST", "FED_OASST2", "FED_OASST2_PA", "FED_OASST_PA"]

_FILES = ("data/train*", "data/validation*")
_OASST1 = HubFiles(hub_id="OpenAssistant/oasst1", revision="fdf72ae0827c1cda404aff25b6603abec9e3399b", files=_FILES)
_OASST2 = HubFiles(hub_id="OpenAssistant/oasst2", revision="179dd21fc55192153d94adb0e0ce8f69e222bf75", files=_FILES)
_ROLES = {"prompter": "user", "assistant": "assistant"}
_MESSAGES = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("message_id", pa.string()),
        ("parent_id", pa.string()),
        ("user_id", pa.string()),
        ("text", pa.string()),
        ("role", pa.string()),
        ("lang", pa.string()),
        ("rank", pa.int64()),
        ("removed", pa.bool_()),
        ("model_name", pa.string()),
    ]
)


@dataclass(slots=True)
class _Message:
    """One message of the tree in hand; `path` leads from the root to it."""

    fields: dict[str, Any]
    path: list["_Message"]
    replies: list["_Message"]

    def turn(self) -> dict[str, str]:
        return {"role": _ROLES[self.fields["role"]], "content": self.fields["text"]}

    def turns(self) -> list[dict[str, str]]:
        return [message.turn() for message in self.path]

    def rejected(self, reason: str) -> Rejected:
        return Rejected(self.fields["file"], self.fields["line"], reason)

    def removal(self) -> str | None:
        """Why moderation took this message, or one before it, out of the corpus."""
        if self.fields["removed"]:
            return "was deleted upstream or failed the review"
        if any(message.fields["removed"] for message in self.path):
            return "an earlier message of its conversation was deleted upstream or failed the review"
        return None


def _read_sft(
    upstream: HubFiles, path: Path | None, seed: int, options: dict[str, str]
) -> Iterator[SourceRow | Rejected]:
    for item in _read_trees(upstream, path, options):
        if isinstance(item, Rejected):
            yield item
        elif item.fields["role"] == "prompter":
            if not any(reply.fields["role"] == "assistant" for reply in item.replies):
                yield item.rejected("nobody answered this prompt")
        elif len(item.path) < 2 or item.path[-2].fields["role"] != "prompter":
            yield item.rejected("answers no prompter's message")
        else:
            prompt = item.path[-2].fields
            row = {
                "client_id": prompt["user_id"],
                "row_id": make_row_id("oasst", prompt["message_id"], item.fields["message_id"]),
                "language": prompt["lang"],
                "messages": item.turns(),
            }
            yield SourceRow(row, item.fields["file"], item.fields["line"])


def _read_preference(
    upstream: HubFiles, path: Path | None, seed: int, options: dict[str, str]
) -> Iterator[SourceRow | Rejected]:
    for item in _read_trees(upstream, path, options):
        if isinstance(item, Rejected):
            yield item
        elif item.fields["role"] == "prompter":
            yield from _pairs_under(item)
        elif len(item.path) < 2 or item.path[-2].fields["role"] != "prompter":
            yield item.rejected("answers no prompter's message")


def _pairs_under(prompt: _Message) -> Iterator[SourceRow | Rejected]:
    """Every two replies of different rank; sorted by rank, so that the first of the two is the better one."""
    replies = [reply for reply in prompt.replies if reply.fields["role"] == "assistant"]
    ranked = [reply for reply in replies if reply.fields["rank"] is not None]
    ranked.sort(key=lambda reply: (reply.fields["rank"], reply.fields["message_id"]))
    if not replies:
        yield prompt.rejected("nobody answered this prompt")
    elif len({reply.fields["rank"] for reply in ranked}) < 2:
        yield prompt.rejected("no two replies to this prompt have different ranks")
    for reply in replies:
        if reply.fields["rank"] is None:
            yield reply.rejected("has no rank")
        elif len(ranked) == 1:
            yield reply.rejected("is the only ranked reply to its prompt")
    for better, worse in combinations(ranked, 2):
        if better.fields["rank"] == worse.fields["rank"]:
            yield worse.rejected(f"has the same rank as the reply in line {better.fields['line']}")
            continue
        row = {
            "client_id": prompt.fields["user_id"],
            "row_id": make_row_id("oasst", *(m.fields["message_id"] for m in (prompt, better, worse))),
            "language": prompt.fields["lang"],
            "prompt": prompt.turns(),
            "chosen": [better.turn()],
            "rejected": [worse.turn()],
            "chosen_model": better.fields["model_name"],
            "rejected_model": worse.fields["model_name"],
        }
        yield SourceRow(row, worse.fields["file"], worse.fields["line"])


def _read_trees(upstream: HubFiles, path: Path | None, options: dict[str, str]) -> Iterator[_Message | Rejected]:
    """Yield every message with its path and its replies, tree by tree; messages nobody can place are rejected."""
    keep_removed = _flag(options, "unfiltered")
    with open_scratch() as connection:
        numbers = count()
        items = (
            _message_of(message, next(numbers))
            for record in read_upstream(upstream, path, options)
            for message in _flattened(record)
        )
        yield from fill_table(connection, "messages", _MESSAGES, items)
        _find_trees(connection)
        yield from _misplaced(connection)
        rows = stream_rows(
            connection,
            """
            SELECT messages.*, placed.root, placed.depth FROM messages JOIN placed USING (ordinal)
            ORDER BY placed.root, placed.depth, ordinal
            """,
        )
        for _, tree in groupby(rows, key=lambda row: row["root"]):
            messages: dict[str, _Message] = {}
            for row in tree:
                message = _Message(row, [], [])
                parent = messages.get(row["parent_id"] or "")
                message.path = [*(parent.path if parent else []), message]
                messages[row["message_id"]] = message
                if parent and (keep_removed or message.removal() is None):
                    parent.replies.append(message)
            for message in messages.values():
                reason = None if keep_removed else message.removal()
                yield message.rejected(reason) if reason else message


def _flattened(record: Record | Rejected) -> Iterator[Record | Rejected]:
    """Yield a record that is a message, or every message of a record that is a tree, all with the tree's line."""
    if isinstance(record, Rejected) or "prompt" not in record.fields or "message_id" in record.fields:
        yield record
        return
    waiting: list[tuple[object, object]] = [(record.fields["prompt"], None)]
    while waiting:
        message, parent_id = waiting.pop()
        if not isinstance(message, dict):
            yield Rejected(
                record.file, record.line, f"a message of the tree is a {type(message).__name__}, not an object"
            )
            continue
        yield Record({**message, "parent_id": parent_id}, record.file, record.line)
        replies = message.get("replies") or []
        if isinstance(replies, list):
            waiting += [(reply, message.get("message_id")) for reply in reversed(replies)]
        else:
            yield Rejected(record.file, record.line, f"replies: must be a list, got {type(replies).__name__}")


def _message_problem(fields: dict[str, Any]) -> str | None:
    for name in ("message_id", "user_id", "text", "role"):
        if name not in fields:
            return f"{name}: the column is missing"
        if not isinstance(fields[name], str):
            return f"{name}: must be text, got {type(fields[name]).__name__}"
    if not fields["text"].strip():
        return "text: is empty"
    for name in ("message_id", "user_id", "text", "parent_id", "lang"):
        try:
            (fields.get(name) or "").encode()
        except (UnicodeEncodeError, AttributeError):
            return f"{name}: is not valid text"
    if fields["role"] not in _ROLES:
        return f"role: {fields['role'][:40]!r} is neither prompter nor assistant"
    rank = fields.get("rank")
    if rank is not None and (not isinstance(rank, int | float) or rank not in range(1_000)):
        return f"rank: must be a whole number or null, got {str(rank)[:40]!r}"
    return None


def _message_of(record: Record | Rejected, ordinal: int) -> dict[str, Any] | Rejected:
    if isinstance(record, Rejected):
        return record
    fields = record.fields
    problem = _message_problem(fields)
    if problem:
        return Rejected(record.file, record.line, problem)
    rank = fields.get("rank")
    return {
        "ordinal": ordinal,
        "file": record.file,
        "line": record.line,
        "message_id": fields["message_id"],
        "parent_id": fields.get("parent_id") or None,
        "user_id": fields["user_id"],
        "text": fields["text"],
        "role": fields["role"],
        "lang": language_code(fields.get("lang")),
        "rank": None if rank is None else int(rank),
        "removed": fields.get("deleted") is True or fields.get("review_result") is False,
        "model_name": None if text_problem("model_name", fields.get("model_name")) else fields["model_name"],
    }


def _find_trees(connection: "duckdb.DuckDBPyConnection") -> None:
    """Make the table `placed` (ordinal, message_id, root, depth), one level of all trees at a time.

    Only ids are joined, never texts. Of messages with one id the first counts.
    """
    connection.execute("""
        CREATE TABLE links AS
        SELECT messages.ordinal, messages.message_id, parent_id
        FROM messages JOIN (SELECT min(ordinal) AS ordinal FROM messages GROUP BY message_id) USING (ordinal)
    """)
    connection.execute("""
        CREATE TABLE placed AS
        SELECT ordinal, message_id, ordinal AS root, 0 AS depth FROM links WHERE parent_id IS NULL
    """)
    depth, num_placed = 0, 1
    while num_placed:
        num_placed = connection.execute(f"""
            INSERT INTO placed
            SELECT links.ordinal, links.message_id, placed.root, {depth + 1}
            FROM links JOIN placed ON links.parent_id = placed.message_id WHERE placed.depth = {depth}
        """).fetchall()[0][0]
        depth += 1


def _misplaced(connection: "duckdb.DuckDBPyConnection") -> Iterator[Rejected]:
    rows = connection.execute("""
        SELECT file, line,
               CASE WHEN links.ordinal IS NULL THEN 'message_id: repeats an earlier message'
                    WHEN parents.message_id IS NULL THEN 'parent_id: the parent is not among the messages'
                    ELSE 'an earlier message of its conversation is missing' END
        FROM messages
        LEFT JOIN links ON messages.ordinal = links.ordinal
        LEFT JOIN links AS parents ON links.parent_id = parents.message_id
        LEFT JOIN placed ON messages.ordinal = placed.ordinal
        WHERE placed.ordinal IS NULL ORDER BY messages.ordinal
    """)
    while batch := rows.fetchmany(2_000):
        for file, line, reason in batch:
            yield Rejected(file, line, reason)


def _flag(options: dict[str, str], name: str) -> bool:
    value = options.get(name, "false")
    if value not in ("true", "false"):
        raise SourceError(f"option {name} is {value[:40]!r}; give true or false")
    return value == "true"


_OPTIONS = {
    **HUB_OPTIONS,
    "unfiltered": "true keeps messages that were deleted upstream or failed the review; preset false",
}

FED_OASST = Source(
    name="fed-oasst",
    task="sft",
    summary="Conversations with OpenAssistant in 35 languages: one row a prompt and reply, with its history; "
    "a client is the prompter.",
    client="the prompter whose message is answered (OASST `user_id`)",
    licence="apache-2.0",
    licence_url="https://www.apache.org/licenses/LICENSE-2.0",
    attribution="OpenAssistant Conversations, by LAION and the Open-Assistant contributors",
    upstream=_OASST1.hub_id,
    revision=_OASST1.revision,
    citation="""@article{kopf2023openassistant,
  title = {{OpenAssistant} Conversations -- Democratizing Large Language Model Alignment},
  author = {K{\\"o}pf, Andreas and Kilcher, Yannic and von R{\\"u}tte, Dimitri and Anagnostidis, Sotiris and others},
  journal = {arXiv preprint arXiv:2304.07327},
  year = {2023}
}""",
    read=partial(_read_sft, _OASST1),
    options=_OPTIONS,
    filters=Filters(min_rows=2, near_duplicates=0.8),
    filter_reasons="Two rows are the least that can be split into train and test. Near-duplicates at the usual "
    "Jaccard similarity of 0.8: some replies to a prompt differ in a few words alone.",
    sizes=(
        KnownSize(
            of="upstream, messages", num_clients=None, num_rows=88_838, reference="dataset card: 84,437 + 4,401"
        ),
        KnownSize(
            of="English validation split, prompts and replies, unfiltered",
            num_clients=395,
            num_rows=1_241,
            reference="built here from a local copy",
        ),
    ),
    limits=(
        "A reply is somebody else's: the client wrote the prompts, volunteers or models the answers.",
        "Every reply is a row, also those ranked last; a prompt with many replies recurs in as many rows.",
        "Clients are very uneven: few volunteers wrote much of the corpus.",
    ),
)
FED_OASST_PA = replace(
    FED_OASST,
    name="fed-oasst-pa",
    task="preference",
    summary="Ranked replies of OpenAssistant in 35 languages: one row for every two replies to a prompt that were "
    "ranked differently; a client is the prompter.",
    read=partial(_read_preference, _OASST1),
    sizes=(
        FED_OASST.sizes[0],
        KnownSize(
            of="English validation split, ranked pairs, unfiltered",
            num_clients=358,
            num_rows=1_026,
            reference="built here from a local copy",
        ),
    ),
    limits=(
        "The ranking is the consensus of several volunteers, not the prompter's own; the client is who asked.",
        "A prompt with n ranked replies gives up to n(n-1)/2 pairs.",
        *FED_OASST.limits[2:],
    ),
)
_OASST2_SIZES = (
    KnownSize(of="upstream, messages", num_clients=None, num_rows=135_174, reference="card: 128,575 + 6,599"),
)
FED_OASST2 = replace(
    FED_OASST,
    name="fed-oasst2",
    upstream=_OASST2.hub_id,
    revision=_OASST2.revision,
    read=partial(_read_sft, _OASST2),
    sizes=_OASST2_SIZES,
)
FED_OASST2_PA = replace(
    FED_OASST_PA,
    name="fed-oasst2-pa",
    upstream=_OASST2.hub_id,
    revision=_OASST2.revision,
    read=partial(_read_preference, _OASST2),
    sizes=_OASST2_SIZES,
)
