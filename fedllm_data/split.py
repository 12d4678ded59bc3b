"""Which rows train, which are held out from the same clients, and which clients are held out whole.

The unit is the conversation: all rows that open with the same words (system message and first user message, compared
without regard to case and spacing). Rows of one conversation repeat one another's text, so all of it lies on one side.

1. About 10 % of the clients, drawn by a hash of (seed, client id), are `unseen`: all of their rows.
2. A conversation that an unseen client takes part in is held out: rows that other clients have in it go to `test`,
   and a client with rows nowhere else is `unseen` as well. Where this makes more than 15 % of the clients unseen, half
   as many are drawn under 1, and so on.
3. Every other client keeps one conversation for training, the one with the highest draw (a hash of seed and opening).
   Of the conversations that no client keeps so, 15 % go to `test`, and for a client that would have no row there, the
   one of its own with the lowest draw.
4. A `public` row in a held-out conversation is dropped.

An opening used by more than a tenth of the clients, and by more than ten, is a template ("Summarise:") and identifies
no conversation: its rows are drawn one by one, by a hash of their content.
"""

from hashlib import blake2b

import duckdb

__all__ = ["SPLIT_RULE", "TEST_FRACTION", "UNSEEN_FRACTION", "assign_splits", "draw"]

UNSEEN_FRACTION = 0.10
TEST_FRACTION = 0.15
_MOST_UNSEEN = 0.15
_TEMPLATE_CLIENTS = 10

SPLIT_RULE = (
    "about 10 % of the clients (by a hash of seed and client id) are unseen, whole; of the other clients, test holds "
    "the conversations shared with an unseen client and 15 % of the rest (by hash of seed and opening), one at least "
    "of each client that has several, never all of a client; rows with the same opening never lie in both train and a "
    "held-out split, except openings used by more than a tenth of the clients and by more than ten"
)


def draw(seed: int, purpose: str, text: str | bytes) -> float:
    """Return a number in [0, 1) that depends on the three arguments alone.

    >>> draw(0, "client", "ann") == draw(0, "client", "ann") != draw(1, "client", "ann")
    True
    """
    encoded = text.encode() if isinstance(text, str) else text
    digest = blake2b(f"{seed}\0{purpose}\0".encode() + encoded, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def assign_splits(connection: duckdb.DuckDBPyConnection, kept: str, assigned: str) -> dict[str, int]:
    """Make the table `assigned` (ordinal, split) from the table `kept`, by the rule at the top of this file.

    Args:
        connection: holds the table `kept`: ordinal, client_id, opening, client_draw, opening_draw, content_draw,
            is_public; one row per row that passed the filters.
        kept: name of that table.
        assigned: name of the table to make; its split is NULL for a public row that has to be dropped.

    Returns:
        How often each clause of the rule applied, for `build.json`.

    >>> with duckdb.connect() as connection:
    ...     _ = connection.execute(
    ...         "CREATE TABLE kept AS SELECT i AS ordinal, 'ann' AS client_id, i::VARCHAR AS opening, 0.5 AS "
    ...         "client_draw, (i + 1) / 10 AS opening_draw, 0.5 AS content_draw, FALSE AS is_public "
    ...         "FROM range(10) t(i)")
    ...     _ = assign_splits(connection, "kept", "assigned")
    ...     connection.execute("SELECT split, count(*) FROM assigned GROUP BY split ORDER BY split").fetchall()
    [('test', 1), ('train', 9)]
    """
    run = connection.execute
    run(f"""
        CREATE TEMP TABLE split_order AS
        SELECT client_id, any_value(client_draw) AS client_draw, count(*) OVER () AS num_clients,
               row_number() OVER (ORDER BY any_value(client_draw), client_id) AS position
        FROM {kept} WHERE NOT is_public GROUP BY client_id
    """)
    run(f"""
        CREATE TEMP TABLE split_openings AS
        SELECT opening, any_value(opening_draw) AS draw,
               count(DISTINCT client_id) > {_TEMPLATE_CLIENTS}
               AND 10 * count(DISTINCT client_id) > (SELECT count(*) FROM split_order) AS is_template
        FROM {kept} WHERE NOT is_public GROUP BY opening
    """)
    run(f"""
        CREATE TEMP TABLE split_pairs AS
        SELECT client_id, opening, any_value(draw) AS draw, any_value(is_template) AS is_template
        FROM {kept} JOIN split_openings USING (opening) WHERE NOT is_public GROUP BY client_id, opening
    """)
    num_drawn, num_left = _draw_unseen_clients(connection)
    # What a client keeps for training is never held out on account of another client.
    run("""
        CREATE TEMP TABLE split_anchors AS
        SELECT DISTINCT arg_max(opening, (draw, opening)) AS opening
        FROM split_pairs JOIN split_unseen USING (client_id)
        WHERE NOT is_unseen AND NOT is_template AND opening NOT IN (SELECT opening FROM split_shared)
        GROUP BY client_id
    """)
    run(f"""
        CREATE TEMP TABLE split_free AS
        SELECT client_id, opening, draw, draw < {TEST_FRACTION} AS is_drawn
        FROM split_pairs JOIN split_unseen USING (client_id)
        WHERE NOT is_unseen AND NOT is_template AND opening NOT IN (SELECT opening FROM split_shared)
              AND opening NOT IN (SELECT opening FROM split_anchors)
    """)
    run("""
        CREATE TEMP TABLE split_given AS
        SELECT DISTINCT arg_min(opening, (draw, opening)) AS opening FROM split_free
        WHERE client_id NOT IN (SELECT client_id FROM split_pairs JOIN split_shared USING (opening))
        GROUP BY client_id HAVING NOT bool_or(is_drawn)
    """)
    run("""
        CREATE TEMP TABLE split_held AS
        SELECT opening FROM split_shared UNION SELECT opening FROM split_given
        UNION SELECT opening FROM split_free WHERE is_drawn
    """)
    run(f"""
        CREATE TABLE {assigned} AS
        SELECT ordinal,
               CASE WHEN is_public THEN if(held.opening IS NULL, 'public', NULL)
                    WHEN is_unseen THEN 'unseen'
                    WHEN held.opening IS NOT NULL THEN 'test'
                    WHEN is_template AND content_draw < {TEST_FRACTION} THEN 'test'
                    ELSE 'train' END AS split
        FROM {kept} AS kept
        LEFT JOIN split_held AS held ON kept.opening = held.opening
        LEFT JOIN split_unseen ON kept.client_id = split_unseen.client_id
        LEFT JOIN split_openings ON kept.opening = split_openings.opening
    """)
    counts = {
        "num_openings": "SELECT count(*) FROM split_openings",
        "num_template_openings": "SELECT count(*) FROM split_openings WHERE is_template",
        "num_openings_shared_with_unseen": "SELECT count(*) FROM split_shared",
        "num_openings_drawn_for_test": "SELECT count(DISTINCT opening) FROM split_free WHERE is_drawn",
        "num_openings_given_to_test": "SELECT count(*) FROM split_given",
        "num_public_rows_dropped": f"SELECT count(*) FROM {assigned} WHERE split IS NULL",
    }
    result = {"num_clients_drawn_unseen": num_drawn, "num_clients_unseen_by_sharing": num_left}
    result |= {name: int(run(query).fetchall()[0][0]) for name, query in counts.items()}
    for table in ("order", "openings", "pairs", "unseen", "shared", "anchors", "free", "given", "held"):
        run(f"DROP TABLE split_{table}")
    return result


def _draw_unseen_clients(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Make `split_unseen` (client_id, is_unseen) and `split_shared` (openings of unseen clients), by rules 1 and 2.

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
            SELECT DISTINCT opening FROM split_pairs JOIN split_drawn USING (client_id) WHERE NOT is_template
        """)
        run("""
            CREATE OR REPLACE TEMP TABLE split_unseen AS
            SELECT client_id, bool_and(split_shared.opening IS NOT NULL)
                              OR client_id IN (SELECT client_id FROM split_drawn) AS is_unseen
            FROM split_pairs LEFT JOIN split_shared ON split_pairs.opening = split_shared.opening GROUP BY client_id
        """)
        num_drawn, num_unseen, num_clients = run("""
            SELECT (SELECT count(*) FROM split_drawn), count(*) FILTER (is_unseen), count(*) FROM split_unseen
        """).fetchall()[0]
        if num_unseen <= max(1, _MOST_UNSEEN * num_clients) and num_unseen < num_clients:
            break
    run("DROP TABLE split_drawn")
    return int(num_drawn), int(num_unseen - num_drawn)
