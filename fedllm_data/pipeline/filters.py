"""The filters of a build: unwanted rows, pairs that teach nothing, exact duplicates, and limits on clients' rows.

Each works on the narrow table `facts` (see `load.py`) or what the filter before made of it, and returns what it
removed, by the names that `build.json` uses.
"""

import duckdb

from fedllm_data.errors import ConfigError
from fedllm_data.source import Filters

__all__ = ["check_filters", "count", "limit_sizes", "remove_duplicates", "remove_ties", "remove_unwanted"]


def check_filters(filters: Filters) -> None:
    """Raise if a filter makes no sense.

    Raises:
        ConfigError: if a number is below 1, a similarity outside (0, 1], or two bounds contradict one another.

    >>> check_filters(Filters(min_rows=0))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: min_rows is 0, but must be at least 1
    """
    for name in ("min_rows", "max_rows", "max_clients", "min_turns", "max_turns", "max_chars"):
        value = getattr(filters, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}, but must be at least 1")
    if filters.near_duplicates is not None and not 0 < filters.near_duplicates <= 1:
        raise ConfigError(f"near_duplicates is {filters.near_duplicates}, but must lie above 0 and be at most 1")
    if filters.min_turns and filters.max_turns and filters.min_turns > filters.max_turns:
        raise ConfigError(f"min_turns is {filters.min_turns}, above max_turns {filters.max_turns}; no row has both")
    if filters.max_rows is not None and filters.max_rows < filters.min_rows:
        raise ConfigError(
            f"max_rows is {filters.max_rows}, below min_rows {filters.min_rows}; raise one or lower the other"
        )


def remove_unwanted(connection: duckdb.DuckDBPyConnection, filters: Filters) -> dict[str, int]:
    """Leave out rows by toxicity, language, turns and length; a row counts under the first that applies.

    >>> with duckdb.connect() as connection:
    ...     _ = connection.execute("CREATE TABLE facts AS SELECT i = 0 AS is_toxic, 1 AS num_turns, "
    ...                            "if(i < 3, 'en', 'de') AS language, i * 10 AS num_chars FROM range(5) t(i)")
    ...     remove_unwanted(connection, Filters(languages=("en",), max_chars=15))
    {'num_toxic': 1, 'num_other_languages': 2, 'num_too_long': 1}
    """
    wanted = ", ".join("'" + code.replace("'", "''") + "'" for code in filters.languages)
    conditions = {
        "num_toxic": None if filters.keep_toxic else "is_toxic",
        "num_other_languages": f"language NOT IN ({wanted})" if filters.languages else None,
        "num_too_few_turns": f"num_turns < {filters.min_turns}" if filters.min_turns else None,
        "num_too_many_turns": f"num_turns > {filters.max_turns}" if filters.max_turns else None,
        "num_too_long": f"num_chars > {filters.max_chars}" if filters.max_chars else None,
    }
    counts = {}
    for name, condition in conditions.items():
        if condition is not None:
            counts[name] = count(connection, f"facts WHERE {condition}")
            connection.execute(f"DELETE FROM facts WHERE {condition}")
    return counts


def remove_ties(connection: duckdb.DuckDBPyConnection, keep: bool) -> dict[str, int]:
    """Leave out pairs whose chosen and rejected text are the same: nothing can be learned from them.

    >>> with duckdb.connect() as connection:
    ...     _ = connection.execute("CREATE TABLE facts AS SELECT i = 0 AS is_tie FROM range(3) t(i)")
    ...     remove_ties(connection, keep=False), count(connection, "facts")
    ({'num_same_text_pairs': 1}, 2)
    """
    num_ties = count(connection, "facts WHERE is_tie")
    if keep:
        return {"num_same_text_pairs_kept": num_ties} if num_ties else {}
    connection.execute("DELETE FROM facts WHERE is_tie")
    return {"num_same_text_pairs": num_ties}


def remove_duplicates(
    connection: duckdb.DuckDBPyConnection, keep: bool, keep_across_clients: bool = False
) -> dict[str, int]:
    """Make the table `distinct_rows`: of rows with the same words the first by `order_key`, within and across clients.

    Args:
        connection: holds the table `facts`.
        keep: keep all, and count.
        keep_across_clients: keep equal rows of different clients: where clients judge the same items, they are
            verdicts of their own.

    >>> with duckdb.connect() as connection:
    ...     _ = connection.execute("CREATE TABLE facts AS SELECT i AS ordinal, i::VARCHAR AS order_key, "
    ...         "'x' AS content, if(i < 2, 'ann', 'bob') AS client_id, FALSE AS is_public FROM range(3) t(i)")
    ...     remove_duplicates(connection, keep=False)
    {'num_duplicates_in_client': 1, 'num_duplicates_across_clients': 1}
    """
    connection.execute("""
        CREATE TABLE marked AS
        SELECT *, row_number() OVER (PARTITION BY client_id, content ORDER BY order_key, ordinal) AS rank_in_client
        FROM facts
    """)
    within = count(connection, "marked WHERE rank_in_client > 1")
    connection.execute("""
        CREATE TABLE distinct_rows AS
        SELECT *, row_number() OVER (PARTITION BY content ORDER BY is_public, order_key, ordinal) AS rank_overall
        FROM marked WHERE rank_in_client = 1
    """)
    across = count(connection, "distinct_rows WHERE rank_overall > 1")
    if keep:
        connection.execute("CREATE OR REPLACE TABLE distinct_rows AS SELECT * FROM marked")
        counts = {"num_duplicates_in_client_kept": within, "num_duplicates_across_clients_kept": across}
    elif keep_across_clients:
        counts = {"num_duplicates_in_client": within, "num_duplicates_across_clients_kept": across}
    else:
        connection.execute("DELETE FROM distinct_rows WHERE rank_overall > 1")
        counts = {"num_duplicates_in_client": within, "num_duplicates_across_clients": across}
    connection.execute("DROP TABLE marked")
    return counts


def limit_sizes(connection: duckdb.DuckDBPyConnection, filters: Filters) -> dict[str, int]:
    """Make the table `kept` from `distinct_rows`: clients with enough rows, the largest of them, not too many of each.

    A client's size for `max_clients` is its number of rows before `max_rows`; among equals the one with the lowest
    draw stays, which no salt moves.

    >>> with duckdb.connect() as connection:
    ...     _ = connection.execute("CREATE TABLE distinct_rows AS SELECT i AS ordinal, i::VARCHAR AS order_key, "
    ...         "if(i < 4, 'ann', 'bob') AS client_id, 0.5 AS client_draw, FALSE AS is_public FROM range(5) t(i)")
    ...     limit_sizes(connection, Filters(min_rows=2, max_rows=3))
    {'num_small_clients': 1, 'num_rows_of_small_clients': 1, 'num_rows_over_max': 1}
    """
    connection.execute(f"""
        CREATE TEMP TABLE client_sizes AS
        SELECT client_id, num_rows, num_rows >= {filters.min_rows} AS is_large,
               row_number() OVER (ORDER BY num_rows DESC, client_draw, client_id) AS position
        FROM (SELECT client_id, count(*) AS num_rows, any_value(client_draw) AS client_draw
              FROM distinct_rows WHERE NOT is_public GROUP BY client_id)
    """)
    most = filters.max_clients or "position"
    sums = connection.execute(f"""
        SELECT count(*) FILTER (NOT is_large), coalesce(sum(num_rows) FILTER (NOT is_large), 0),
               count(*) FILTER (is_large AND position > {most}),
               coalesce(sum(num_rows) FILTER (is_large AND position > {most}), 0)
        FROM client_sizes
    """).fetchall()[0]
    num_small, rows_of_small, num_over, rows_of_over = (int(value) for value in sums)
    connection.execute(f"""
        CREATE TABLE kept AS
        SELECT distinct_rows.* EXCLUDE (client_rank) FROM (
            SELECT *, row_number() OVER (PARTITION BY client_id ORDER BY order_key, ordinal) AS client_rank
            FROM distinct_rows
        ) AS distinct_rows LEFT JOIN client_sizes USING (client_id)
        WHERE is_public OR (is_large AND position <= {most} AND client_rank <= {filters.max_rows or "num_rows"})
    """)
    removed = count(connection, "distinct_rows") - count(connection, "kept")
    connection.execute("DROP TABLE distinct_rows")
    connection.execute("DROP TABLE client_sizes")
    counts = {"num_small_clients": num_small, "num_rows_of_small_clients": rows_of_small}
    if filters.max_clients is not None:
        counts |= {"num_clients_over_max": num_over, "num_rows_of_clients_over_max": rows_of_over}
    return counts | {"num_rows_over_max": removed - rows_of_small - rows_of_over}


def count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    """Return the number of rows of a table, or of a table and a WHERE clause.

    >>> with duckdb.connect() as connection:
    ...     count(connection, "range(7)")
    7
    """
    return int(connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0])
