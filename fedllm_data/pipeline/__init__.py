"""The steps of a build, in the order `build.py` takes them: load, filter, de-duplicate, split, write, put in place.

The steps hand their rows on as tables of one DuckDB connection, which are these and no others:

| table | made by | holds | until |
| --- | --- | --- | --- |
| `rows` | `load.load_rows` | every valid row with its texts, by `ordinal` | the end |
| `facts` | `load.load_rows` | what is decided by: a narrow row for each of `rows` (`facts.FACTS`) | the end |
| `signatures` | `load.load_rows` | bands of each row, if near-duplicates are looked for | they are found |
| `distinct_rows` | `filters.remove_duplicates` | `facts` less duplicates, then less near-duplicates | `kept` |
| `kept` | `filters.limit_sizes` | `distinct_rows` of clients within the limits | the end |
| `assigned` | `split.assign_splits` | the split of each of `kept`, by `ordinal` | the end |
| `placed` | `build` | split, client and final row id, by `ordinal` | the end |
"""
