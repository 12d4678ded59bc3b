"""What the split rule takes for one piece: conversations, whole prompts of templates, groups; and which are common.

The rule itself is at the top of `split.py`. Tables made here are temporary ones of the connection.
"""

import duckdb
import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["TEST_FRACTION", "UNSEEN_FRACTION", "components_of", "make_units"]

UNSEEN_FRACTION = 0.10
TEST_FRACTION = 0.15
_UNSEEN_STOP = 0.25
"""Common openings with a draw from `TEST_FRACTION` up to here are drawn for `unseen`."""
_FEW_CLIENTS = 10
_MANY_CLIENTS = 30
_MOST_DROPPED = 0.10
_MOST_HELD_OUT = 1 / 3


def make_units(connection: duckdb.DuckDBPyConnection, kept: str, is_grouped: bool) -> None:
    """Make `split_openings`, `split_rows` (each row with its unit), `split_pairs` and `split_order` (of clients).

    Args:
        connection: holds the table `kept`.
        kept: name of the table of rows, with the columns that `split.assign_splits` names.
        is_grouped: unseen clients are drawn in groups that share nothing with others: no opening is a template or
            common then.

    >>> with duckdb.connect() as connection:
    ...     _ = connection.execute(
    ...         "CREATE TABLE kept AS SELECT i AS ordinal, 'ann' AS client_id, i::VARCHAR AS opening, "
    ...         "FALSE AS is_group, i::VARCHAR AS prompt, 0.5 AS client_draw, 0.2 AS opening_draw, "
    ...         "0.2 AS prompt_draw, FALSE AS is_public FROM range(3) t(i)")
    ...     make_units(connection, "kept", is_grouped=False)
    ...     connection.execute("SELECT count(DISTINCT unit) FROM split_rows").fetchall()
    [(3,)]
    """
    run = connection.execute
    run(f"""
        CREATE OR REPLACE TEMP TABLE split_openings AS
        SELECT opening, count(*) AS num_clients, sum(num_rows)::BIGINT AS num_rows,
               -- Of a group, too, all rows of the other clients go where one of its clients is unseen.
               min(first_prompt) = max(last_prompt) OR bool_or(is_group) AS is_one_prompt,
               {not is_grouped} AND NOT bool_or(is_group) AND count(*) > {_FEW_CLIENTS}
               AND (count(*) > {_MANY_CLIENTS} OR 10 * count(*) > (
                   SELECT count(DISTINCT client_id) FROM {kept} WHERE NOT is_public)) AS is_template
        FROM (SELECT opening, count(*) AS num_rows, min(prompt) AS first_prompt, max(prompt) AS last_prompt,
                     any_value(is_group) AS is_group
              FROM {kept} WHERE NOT is_public GROUP BY opening, client_id)
        GROUP BY opening
    """)
    sizes = run("""
        SELECT num_clients, sum(num_rows) FILTER (is_one_prompt), sum(num_rows) FROM split_openings
        WHERE NOT is_template GROUP BY num_clients
    """).fetchall()
    total = sum(int(rows) for (rows,) in run("SELECT num_rows FROM split_openings WHERE is_template").fetchall())
    total += sum(int(rows) for _, _, rows in sizes)
    single = _most_clients({clients: int(rows or 0) for clients, rows, _ in sizes}, _MOST_DROPPED * total)
    left = {clients: int(rows) - (int(one or 0) if clients > single else 0) for clients, one, rows in sizes}
    several = _most_clients(left, _MOST_HELD_OUT * total)
    run(f"""
        CREATE OR REPLACE TEMP TABLE split_openings AS
        SELECT opening, is_template,
               {not is_grouped} AND (
                   is_template OR (is_one_prompt AND num_clients > {single}) OR num_clients > {several}
               ) AS is_common
        FROM split_openings
    """)
    run(f"""
        CREATE TEMP TABLE split_rows AS
        SELECT ordinal, client_id, prompt, is_public, is_group, is_common,
               if(is_template, prompt, kept.opening) AS unit,
               if(is_template, prompt_draw, opening_draw) AS draw
        FROM {kept} AS kept LEFT JOIN split_openings ON kept.opening = split_openings.opening
    """)
    if is_grouped:
        _join_units(connection)
    run(f"""
        CREATE TEMP TABLE split_pairs AS
        SELECT client_id, unit, draw, is_common,
               NOT is_common OR (draw >= {TEST_FRACTION} AND draw < {_UNSEEN_STOP}) AS may_be_unseen
        FROM (SELECT client_id, unit, any_value(draw) AS draw,
                     any_value(is_common) AND count(*) OVER (PARTITION BY unit) > 1 AS is_common
              FROM split_rows WHERE NOT is_public GROUP BY client_id, unit)
    """)
    # A client all of whose rows would have to be dropped is not drawn for `unseen`: it trains.
    run(f"""
        CREATE TEMP TABLE split_order AS
        SELECT client_id, client_draw, num_clients, row_number() OVER (ORDER BY client_draw, client_id) AS position
        FROM (SELECT client_id, any_value(client_draw) AS client_draw, count(*) OVER () AS num_clients
              FROM {kept} WHERE NOT is_public GROUP BY client_id)
        WHERE client_id IN (SELECT client_id FROM split_pairs WHERE may_be_unseen)
    """)


def components_of(one_P: np.ndarray, other_P: np.ndarray, num_least: int = 0) -> np.ndarray:
    """Return the connected component of every node of a graph.

    Args:
        one_P: one end of each of P edges, a number from 0.
        other_P: the other end.
        num_least: nodes there are at least, some of them perhaps without an edge.

    >>> components_of(np.array([0, 1]), np.array([2, 2]), 4).tolist()
    [0, 0, 0, 1]
    """
    num_nodes = max(int(one_P.max(initial=-1)), int(other_P.max(initial=-1)), num_least - 1) + 1
    graph = coo_array((np.ones(len(one_P), np.int8), (one_P, other_P)), shape=(num_nodes, num_nodes))
    components: np.ndarray = connected_components(graph, directed=False)[1]
    return components


def _join_units(connection: duckdb.DuckDBPyConnection) -> None:
    """Where rows have groups, make one unit of those that have a prompt in common: no row may be dropped for it."""
    run = connection.execute
    if not run("SELECT coalesce(bool_or(is_group), false) FROM split_rows").fetchall()[0][0]:
        return
    pairs = run("""
        SELECT dense_rank() OVER (ORDER BY unit) - 1 AS unit, dense_rank() OVER (ORDER BY prompt) - 1 AS prompt
        FROM (SELECT DISTINCT unit, prompt FROM split_rows) ORDER BY ALL
    """).fetchnumpy()
    unit_P = pairs["unit"].astype(np.int64)
    num_units = int(unit_P.max()) + 1
    component_U = components_of(unit_P, pairs["prompt"].astype(np.int64) + num_units)[:num_units]
    joined = pa.table({"number": np.arange(num_units), "component": component_U.astype(np.int64)})
    connection.register("split_joined", joined)
    run("""
        CREATE TEMP TABLE split_heads AS
        SELECT unit, first_value(unit) OVER first_of AS head, first_value(draw) OVER first_of AS draw
        FROM (SELECT unit, any_value(draw) AS draw, row_number() OVER (ORDER BY unit) - 1 AS number
              FROM split_rows GROUP BY unit) JOIN split_joined USING (number)
        WINDOW first_of AS (PARTITION BY component ORDER BY unit)
    """)
    run("""
        CREATE OR REPLACE TEMP TABLE split_rows AS
        SELECT split_rows.* REPLACE (head AS unit, split_heads.draw AS draw)
        FROM split_rows JOIN split_heads ON split_rows.unit = split_heads.unit
    """)
    run("DROP TABLE split_heads")
    connection.unregister("split_joined")


def _most_clients(rows_by_clients: dict[int, int], most_rows: float) -> int:
    """How many clients an opening may have for rule 2: the highest number that holds out `most_rows` at most.

    Args:
        rows_by_clients: number of clients to rows in the openings that as many clients share.
        most_rows: rows held out on average, because one of the n - 1 other clients of an opening is unseen.
    """
    highest = max(rows_by_clients, default=1)
    most: int
    for most in (highest, *range(_FEW_CLIENTS, 0, -1)):
        held = sum(
            rows * (1 - (1 - UNSEEN_FRACTION) ** (clients - 1))
            for clients, rows in sorted(rows_by_clients.items())
            if clients <= most
        )
        if held <= most_rows + 1e-6:
            return most
    raise AssertionError("an opening of one client is never held out for another's sake")
