"""Which rows train, which are held out from the same clients, and which clients are held out whole.

No two of `train`, `test` and `unseen` share a prompt (all messages up to the last user message, compared without
regard to case and spacing). The unit is the conversation: all rows that open with the same words (system message and
first user message). Rows of one conversation repeat one another's text, so all of it lies on one side.

1. About 10 % of the clients, drawn by a hash of (seed, upstream client id), are `unseen`: all of their rows.
2. A conversation that an unseen client takes part in is held out: rows that other clients have in it go to `test`
   (or are dropped, where an unseen client has the very same prompt), and a client with rows nowhere else is `unseen`
   as well. Where such clients bring the unseen ones to more than 15 %, half as many are drawn under 1, and so on.
3. Every other client keeps one conversation for training, the one with the highest draw (a hash of seed and opening).
   Of the conversations that no client keeps so, 15 % go to `test`, and for a client that has none there, be it drawn
   or held out under 2, the one of its own with the lowest draw.
4. A `public` row in a held-out conversation is dropped.

Where many clients use the same words, rule 2 would hold out nearly all: a prompt that sixteen people judge has an
unseen one among them four times in five. Such openings are *common*. Of them a tenth is drawn for `unseen`: rule 2
holds for these alone, and rows that unseen clients have in the others are dropped. Clients that would lose all their
rows so are not drawn. 15 % are drawn for `test` as under 3, and nothing is given under 3. Common are

- templates ("Summarise:", "hi"): openings of more than 10 clients that are more than a tenth of all or more than 30
  (of whom one is unseen in 96 % of the draws). They identify no conversation, so each whole prompt is a unit, common
  where several clients have it;
- openings with one single prompt that more than m clients use, m the highest number up to 10 for which rule 2 would
  on average drop at most a tenth of the rows in openings of fewer: about what drawing them for themselves costs;
- openings that more than m clients use, m likewise, for which rule 2 would on average hold out at most a third.

Rows that the source puts into one *group* (a thread, a ticket, a document) are one unit instead of a
conversation, whatever they open with, and lie in one split: where an unseen client has rows in a group, those of other
clients are dropped. A prompt may then stand in several units; held-out rows whose very prompt trains are dropped too.

Where every row is to be kept (`keep_all`) and this would drop some, no opening is common, and `unseen` is made of
whole groups of clients that share conversations with nobody outside: in the order of their lowest draw, up to about
10 % of the clients. If all clients are connected, no such group exists, and none is unseen. Groups of rows that
have a prompt in common are one unit then.

What holds between two builds with one seed (another salt, another task, more or fewer people or rows):

- All draws follow from the upstream client id and the words of the rows, so a salt changes ids and nothing else.
- Where clients share no conversation, the unseen clients are those with a draw below 0.10, whatever their rows and
  whoever is there besides: nobody moves between `unseen` and `train`, and no prompt does. (Of ten clients or more
  without such a draw the one with the lowest is unseen; there the set of people matters.)
- Where conversations are shared, rule 2 and what is common decide by who shares what in this very build: a client
  can be unseen in one corpus and, left to train or no longer sharing all it has, train in another. In OASST1's English
  validation split 5 of the 35 unseen clients of fed-oasst train in fed-oasst-pa; none of the 20 unseen clients of
  fed-oasst-pa, nor any of their prompts, trains in fed-oasst, which is the order of training (SFT, then DPO). Clients
  of fed-stackexchange answer and those of fed-stackexchange-pa ask: a thread can train in one and be unseen in the
  other.
"""

from collections.abc import Sequence
from hashlib import blake2b

import duckdb
import numpy as np
import pyarrow as pa

from fedllm_data.pipeline.split_units import TEST_FRACTION, UNSEEN_FRACTION, components_of, make_units

__all__ = [
    "GROUP_RULE",
    "SPLIT_RULE",
    "SPLIT_RULE_OF_ALL",
    "TEST_FRACTION",
    "UNSEEN_FRACTION",
    "assign_splits",
    "draw",
    "draws",
]

_MOST_UNSEEN = 0.15

SPLIT_RULE = (
    "no two of train, test and unseen share a prompt; about 10 % of the clients (by a hash of seed and client id) are "
    "unseen, whole; of the other clients, test holds the conversations (rows with the same opening) shared with an "
    "unseen client, without the rows whose very prompt an unseen client has, and 15 % of the rest (by hash of seed "
    "and opening), one at least of each client that has several, never all of a client; of openings so common that "
    "this would hold out too much (templates, prompts given to many clients) a tenth is drawn for unseen, rows of "
    "unseen clients in the others are dropped, and 15 % are drawn for test"
)

SPLIT_RULE_OF_ALL = (
    "every row is kept, and no two of train, test and unseen share a prompt: unseen is made of groups of clients that "
    "share conversations (rows with the same opening) with nobody outside, up to about 10 % of the clients (by a hash "
    "of seed and client id); of the other clients, test holds 15 % of the conversations (by hash of seed and "
    "opening), one at least of each client that has several, never all of a client"
)

GROUP_RULE = (
    "rows of one group (threads, tickets, documents, as the source names them) count as one conversation and lie in "
    "one split; held-out rows whose prompt trains in another group are dropped"
)
"""Added to either rule where rows have groups."""


def draw(seed: int, purpose: str, text: str | bytes) -> float:
    """Return a number in [0, 1) that depends on the three arguments alone.

    >>> draw(0, "client", "ann") == draw(0, "client", "ann") != draw(1, "client", "ann")
    True
    """
    return draws(seed, purpose, [text.encode() if isinstance(text, str) else text])[0]


def draws(seed: int, purpose: str, texts: Sequence[bytes]) -> list[float]:
    """Return a number in [0, 1) for each text, as `draw` does.

    >>> draws(0, "client", [b"ann", b"bob"]) == [draw(0, "client", "ann"), draw(0, "client", "bob")]
    True
    """
    stream = f"{seed}\0{purpose}\0".encode()
    digests = b"".join([blake2b(stream + text, digest_size=8).digest() for text in texts])
    found: list[float] = ((np.frombuffer(digests, dtype=">u8") >> np.uint64(11)) / 2.0**53).tolist()
    return found


def assign_splits(
    connection: duckdb.DuckDBPyConnection, kept: str, assigned: str, keep_all: bool = False
) -> dict[str, int]:
    """Make the table `assigned` (ordinal, split) from the table `kept`, by the rule at the top of this file.

    Args:
        connection: holds the table `kept`: ordinal, client_id, opening, is_group, prompt, client_draw,
            opening_draw, prompt_draw, is_public; one row per row that passed the filters.
        kept: name of that table.
        assigned: name of the table to make; its split is NULL for a row that has to be dropped.
        keep_all: drop no client's row, at the price of fewer unseen clients.

    Returns:
        How often each clause of the rule applied, for `build.json`; `is_grouped` is 1 where `SPLIT_RULE_OF_ALL` was
        needed to keep all rows, and `num_groups` is there where rows have groups.

    >>> with duckdb.connect() as connection:
    ...     _ = connection.execute(
    ...         "CREATE TABLE kept AS SELECT i AS ordinal, 'ann' AS client_id, i::VARCHAR AS opening, "
    ...         "FALSE AS is_group, i::VARCHAR AS prompt, 0.5 AS client_draw, (i + 1) / 10 AS opening_draw, "
    ...         "0.5 AS prompt_draw, FALSE AS is_public FROM range(10) t(i)")
    ...     _ = assign_splits(connection, "kept", "assigned")
    ...     connection.execute("SELECT split, count(*) FROM assigned GROUP BY split ORDER BY split").fetchall()
    [('test', 1), ('train', 9)]
    """
    counts = _assign(connection, kept, assigned, is_grouped=False)
    if keep_all and counts["num_unseen_rows_dropped"] + counts["num_test_rows_dropped"]:
        connection.execute(f"DROP TABLE {assigned}")
        counts = _assign(connection, kept, assigned, is_grouped=True) | {"is_grouped": 1}
    return counts


def _assign(connection: duckdb.DuckDBPyConnection, kept: str, assigned: str, *, is_grouped: bool) -> dict[str, int]:
    run = connection.execute
    make_units(connection, kept, is_grouped)
    num_drawn, num_left = _draw_unseen_groups(connection) if is_grouped else _draw_unseen_clients(connection)
    # What a client keeps for training is never held out on account of another client.
    run("""
        CREATE TEMP TABLE split_anchors AS
        SELECT DISTINCT arg_max(unit, (draw, unit)) AS unit
        FROM split_pairs JOIN split_unseen USING (client_id)
        WHERE NOT is_unseen AND unit NOT IN (SELECT unit FROM split_shared)
        GROUP BY client_id
    """)
    run(f"""
        CREATE TEMP TABLE split_free AS
        SELECT client_id, unit, draw, is_common, draw < {TEST_FRACTION} AS is_drawn
        FROM split_pairs JOIN split_unseen USING (client_id)
        WHERE NOT is_unseen AND unit NOT IN (SELECT unit FROM split_shared)
              AND unit NOT IN (SELECT unit FROM split_anchors)
    """)
    run("""
        CREATE TEMP TABLE split_unseen_prompts AS
        SELECT DISTINCT prompt FROM split_rows JOIN split_unseen USING (client_id) JOIN split_shared USING (unit)
        WHERE is_unseen
    """)
    run("""
        CREATE TEMP TABLE split_given AS
        SELECT DISTINCT arg_min(unit, (draw, unit)) FILTER (NOT is_common) AS unit FROM split_free
        WHERE client_id NOT IN (SELECT client_id FROM split_pairs JOIN split_shared USING (unit) WHERE NOT is_common)
        GROUP BY client_id HAVING NOT bool_or(is_drawn) AND bool_or(NOT is_common)
    """)
    run("""
        CREATE TEMP TABLE split_held AS
        SELECT unit FROM split_shared UNION SELECT unit FROM split_given
        UNION SELECT unit FROM split_free WHERE is_drawn
    """)
    run(f"""
        CREATE TABLE {assigned} AS
        SELECT ordinal,
               CASE WHEN is_public THEN if(held.unit IS NULL, 'public', NULL)
                    WHEN is_unseen THEN if(shared.unit IS NULL, NULL, 'unseen')
                    WHEN held.unit IS NULL THEN 'train'
                    WHEN kept.is_group AND shared.unit IS NOT NULL THEN NULL
                    WHEN prompts.prompt IS NULL THEN 'test' END AS split
        FROM split_rows AS kept
        LEFT JOIN split_held AS held ON kept.unit = held.unit
        LEFT JOIN split_shared AS shared ON kept.unit = shared.unit
        LEFT JOIN split_unseen_prompts AS prompts ON kept.prompt = prompts.prompt
        LEFT JOIN split_unseen ON kept.client_id = split_unseen.client_id
    """)
    num_groups = int(run(f"SELECT count(DISTINCT opening) FROM {kept} WHERE is_group").fetchall()[0][0])
    if num_groups:
        _part_prompts(connection, assigned)
    dropped = f"""{assigned} JOIN split_rows USING (ordinal) LEFT JOIN split_unseen USING (client_id)
                  WHERE split IS NULL AND"""
    counts = {
        "num_openings": "SELECT count(*) FROM split_openings",
        "num_template_openings": "SELECT count(*) FROM split_openings WHERE is_template",
        "num_common_openings": "SELECT count(*) FROM split_openings WHERE is_common",
        "num_openings_shared_with_unseen": "SELECT count(*) FROM split_shared",
        "num_openings_drawn_for_test": "SELECT count(DISTINCT unit) FROM split_free WHERE is_drawn",
        "num_openings_given_to_test": "SELECT count(*) FROM split_given",
        "num_unseen_rows_dropped": f"SELECT count(*) FROM {dropped} is_unseen",
        "num_clients_left_to_train": f"""
            SELECT count(DISTINCT client_id) FROM {kept} WHERE NOT is_public AND client_draw < {UNSEEN_FRACTION}
            AND client_id NOT IN (SELECT client_id FROM split_order)""",
        "num_test_rows_dropped": f"SELECT count(*) FROM {dropped} NOT is_public AND NOT is_unseen",
        "num_public_rows_dropped": f"SELECT count(*) FROM {dropped} is_public",
    }
    result = {"num_clients_drawn_unseen": num_drawn, "num_clients_unseen_by_sharing": num_left}
    if num_groups:
        result["num_groups"] = num_groups
    result |= {name: int(run(query).fetchall()[0][0]) for name, query in counts.items()}
    for table in "order openings rows pairs unseen shared anchors free unseen_prompts given held".split():
        run(f"DROP TABLE split_{table}")
    return result


def _part_prompts(connection: duckdb.DuckDBPyConnection, assigned: str) -> None:
    """Drop held-out rows whose prompt trains, and public ones whose prompt is held out: with groups, units share some.

    What `test` shares with `unseen` is dropped already, wherever it stands.
    """
    run = connection.execute
    for split, others in {"train": "'test', 'unseen'", "test": "'public'", "unseen": "'public'"}.items():
        run(f"""
            UPDATE {assigned} SET split = NULL
            WHERE split IN ({others}) AND ordinal IN (
                SELECT ordinal FROM split_rows WHERE prompt IN (
                    SELECT prompt FROM split_rows JOIN {assigned} USING (ordinal) WHERE split = '{split}'))
        """)


def _draw_unseen_clients(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Make `split_unseen` (client_id, is_unseen) and `split_shared` (units of unseen clients), by rules 1 and 2.

    Returns how many clients were drawn, and how many more are unseen because they share all they have with those.
    """
    run = connection.execute
    for threshold in (UNSEEN_FRACTION, UNSEEN_FRACTION / 2, UNSEEN_FRACTION / 4, UNSEEN_FRACTION / 8, 0.0):
        # Ten clients and more have one unseen even where the hash draws none; the last client is never drawn.
        run(f"""
            CREATE OR REPLACE TEMP TABLE split_drawn AS
            SELECT client_id FROM split_order
            WHERE (client_draw < {threshold} OR (position = 1 AND num_clients >= 10 AND {threshold} > 0))
                  AND position < num_clients
        """)
        run("""
            CREATE OR REPLACE TEMP TABLE split_shared AS
            SELECT DISTINCT unit FROM split_pairs JOIN split_drawn USING (client_id) WHERE may_be_unseen
        """)
        run("""
            CREATE OR REPLACE TEMP TABLE split_unseen AS
            SELECT client_id, bool_and(split_shared.unit IS NOT NULL)
                              OR client_id IN (SELECT client_id FROM split_drawn) AS is_unseen
            FROM split_pairs LEFT JOIN split_shared ON split_pairs.unit = split_shared.unit GROUP BY client_id
        """)
        num_drawn, num_unseen, num_clients = run("""
            SELECT (SELECT count(*) FROM split_drawn), count(*) FILTER (is_unseen), count(*) FROM split_unseen
        """).fetchall()[0]
        # Where nobody is unseen by sharing, the hash alone decides: who is in the corpus besides must not matter.
        is_fair = num_unseen == num_drawn or num_unseen <= max(1, _MOST_UNSEEN * num_clients)
        if is_fair and num_unseen < num_clients:
            break
    run("DROP TABLE split_drawn")
    return int(num_drawn), int(num_unseen - num_drawn)


def _draw_unseen_groups(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Make `split_unseen` and `split_shared` of whole groups of clients that share conversations with nobody else."""
    run = connection.execute
    pairs = run("""
        SELECT dense_rank() OVER (ORDER BY client_id) - 1 AS client, dense_rank() OVER (ORDER BY unit) - 1 AS unit
        FROM split_pairs
    """).fetchnumpy()
    order = run("SELECT client_id, client_draw FROM split_order ORDER BY client_id").fetchall()
    num_clients = len(order)
    client_P, unit_P = pairs["client"].astype(np.int64), pairs["unit"].astype(np.int64) + num_clients
    group_K = components_of(client_P, unit_P, num_clients)[:num_clients]
    lowest: dict[int, tuple[float, str]] = {}
    for (client_id, client_draw), group in zip(order, group_K.tolist(), strict=True):
        lowest[group] = min(lowest.get(group, (client_draw, client_id)), (client_draw, client_id))
    size_G = np.bincount(group_K)
    # Ten clients and more have one unseen wherever a client shares nothing with others.
    most = max(int(UNSEEN_FRACTION * num_clients), int(num_clients >= 10))
    chosen: set[int] = set()
    for group in sorted(lowest, key=lowest.__getitem__):
        if size_G[group] <= most:
            chosen.add(group)
            most -= int(size_G[group])
    names = [(client_id, group in chosen) for (client_id, _), group in zip(order, group_K.tolist(), strict=True)]
    table = pa.table({"client_id": [name for name, _ in names], "is_unseen": [unseen for _, unseen in names]})
    connection.register("split_groups", table)
    run("CREATE OR REPLACE TEMP TABLE split_unseen AS SELECT * FROM split_groups")
    connection.unregister("split_groups")
    run("""
        CREATE OR REPLACE TEMP TABLE split_shared AS
        SELECT DISTINCT unit FROM split_pairs JOIN split_unseen USING (client_id) WHERE is_unseen
    """)
    return sum(unseen for _, unseen in names), 0
