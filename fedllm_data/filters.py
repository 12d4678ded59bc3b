"""The filters of a build: pairs that teach nothing, exact duplicates, and limits on the rows of a client.

Each works on the narrow table `facts` (see `load.py`) or what the filter before made of it, and returns what it
removed, by the names that `build.json` uses.
"""

import duckdb

__all__ = ["count", "limit_sizes", "remove_duplicates", "remove_ties"]


def remove_ties(connection: duckdb.DuckDBPyConnection, unfiltered: bool) -> dict[str, int]:
    """Leave out pairs whose chosen and rejected text are the same: nothing can be learned from them.

    >>> with duckdb.connect() as connection:
    ...     _ = connection.execute("CREATE TABLE facts AS SELECT i = 0 AS is_tie FROM range(3) t(i)")
    ...     remove_ties(connection, unfiltered=False), count(connection, "facts")
    ({'num_same_text_pairs': 1}, 2)
    """
    num_ties = count(connection, "facts WHERE is_tie")
    if unfiltered:
        return {"num_same_text_pairs_kept": num_ties} if num_ties else {}
    connection.execute("DELETE FROM facts WHERE is_tie")
    return {"num_same_text_pairs": num_ties}


def remove_duplicates(connection: duckdb.DuckDBPyConnection, unfiltered: bool) -> dict[str, int]:
    """Make the table `distinct_rows`: of rows with the same words the first by row id, within and across clients.

    >>> with duckdb.connect() as connection:
    ...     _ = connection.execute("CREATE TABLE facts AS SELECT i AS ordinal, i::VARCHAR AS row_id, 'x' AS content, "
    ...                            "if(i < 2, 'ann', 'bob') AS client_id, FALSE AS is_public FROM range(3) t(i)")
    ...     remove_duplicates(connection, unfiltered=False)
    {'num_duplicates_in_client': 1, 'num_duplicates_across_clients': 1}
    """
    connection.execute("""
        CREATE TABLE marked AS
        SELECT *, row_number() OVER (PARTITION BY client_id, content ORDER BY row_id, ordinal) AS rank_in_client
        FROM facts
    """)
    within = count(connection, "marked WHERE rank_in_client > 1")
    connection.execute("""
        CREATE TABLE distinct_rows AS
        SELECT *, row_number() OVER (PARTITION BY content ORDER BY is_public, row_id, ordinal) AS rank_overall
        FROM marked WHERE rank_in_client = 1
    """)
    across = count(connection, "distinct_rows WHERE rank_overall > 1")
    if unfiltered:
        connection.execute("CREATE OR REPLACE TABLE distinct_rows AS SELECT * FROM marked")
        counts = {"num_duplicates_in_client_kept": within, "num_duplicates_across_clients_kept": across}
    else:
        connection.execute("DELETE FROM distinct_rows WHERE rank_overall > 1")
        counts = {"num_duplicates_in_client": within, "num_duplicates_across_clients": across}
    connection.execute("DROP TABLE marked")
    return counts


def limit_sizes(connection: duckdb.DuckDBPyConnection, min_rows: int, max_rows: int | None) -> dict[str, int]:
    """Make the table `kept` from `distinct_rows`: clients with enough rows, at most `max_rows` of each.

    >>> with duckdb.connect() as connection:
    ...     _ = connection.execute("CREATE TABLE distinct_rows AS SELECT i AS ordinal, i::VARCHAR AS row_id, "
    ...                            "if(i < 4, 'ann', 'bob') AS client_id, FALSE AS is_public FROM range(5) t(i)")
    ...     limit_sizes(connection, min_rows=2, max_rows=3)
    {'num_small_clients': 1, 'num_rows_of_small_clients': 1, 'num_rows_over_max': 1}
    """
    connection.execute(f"""
        CREATE TABLE kept AS
        SELECT * FROM (
            SELECT *, count(*) OVER (PARTITION BY client_id) AS client_rows,
                   row_number() OVER (PARTITION BY client_id ORDER BY row_id, ordinal) AS client_rank
            FROM distinct_rows
        ) WHERE is_public OR (client_rows >= {min_rows} AND client_rank <= {max_rows or "client_rows"})
    """)
    small = f"""(SELECT count(*) AS num_rows FROM distinct_rows WHERE NOT is_public
                 GROUP BY client_id HAVING count(*) < {min_rows})"""
    num_small, rows_of_small = connection.execute(
        f"SELECT count(*), coalesce(sum(num_rows), 0) FROM {small}"
    ).fetchall()[0]
    removed = count(connection, "distinct_rows") - count(connection, "kept")
    connection.execute("DROP TABLE distinct_rows")
    return {
        "num_small_clients": int(num_small),
        "num_rows_of_small_clients": int(rows_of_small),
        "num_rows_over_max": removed - int(rows_of_small),
    }


def count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    """Return the number of rows of a table, or of a table and a WHERE clause.

    >>> with duckdb.connect() as connection:
    ...     count(connection, "range(7)")
    7
    """
    return int(connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0])
