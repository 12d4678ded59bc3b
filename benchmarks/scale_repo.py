"""A client repo of generated conversations for `report_scale.py`: clients of Zipf's sizes that differ.

Words and lengths are those of `generated.py`. Every client has its own mix of the six languages (a Dirichlet draw) and
its own ceiling on the words of an answer, so that the axes have something to find; rows are written sorted by client,
as a build leaves them, without the cost of a build. Drawn in blocks: no corpus is ever held in memory.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from generated import (
    BLOCK_ROWS,
    FILE_ROWS,
    FUNCTION_WORDS,
    Corpus,
    client_sizes,
    draw_texts,
    messages_of,
    vocabulary,
    word_table,
)

from fedllm_data.schema import SCHEMAS

ROW_GROUP_ROWS = 500
CEILINGS = (20, 40, 80, 400)
"""Most words of an answer; every client has one of them."""


def write_repo(corpus: Corpus, folder: Path) -> dict[str, int]:
    """Write the train split of a client repo, and return what was written."""
    (folder / "data").mkdir(parents=True)
    languages = sorted(FUNCTION_WORDS)
    number_of = {name: number for number, name in enumerate(FUNCTION_WORDS)}
    client_N = np.repeat(np.arange(corpus.num_clients), client_sizes(corpus))
    mix_KL = np.random.default_rng((corpus.seed, 2**32)).dirichlet(np.full(len(languages), 0.3), corpus.num_clients)
    ceiling_K = np.random.default_rng((corpus.seed, 2**33)).choice(CEILINGS, corpus.num_clients)
    words, table = vocabulary(), word_table()
    num_files = -(-corpus.num_rows // FILE_ROWS)
    num_text_bytes = 0
    for number in range(num_files):
        path = folder / f"data/train-{number:05d}-of-{num_files:05d}.parquet"
        with pq.ParquetWriter(path, SCHEMAS["sft"], compression="zstd") as writer:
            rows_of_file = client_N[number * FILE_ROWS : (number + 1) * FILE_ROWS]
            for start in range(0, len(rows_of_file), BLOCK_ROWS):
                first = number * FILE_ROWS + start
                rng = np.random.default_rng((corpus.seed, 1, first))
                client_B = rows_of_file[start : start + BLOCK_ROWS]
                uniform_B1 = rng.random((len(client_B), 1))
                language_B = np.minimum((mix_KL[client_B].cumsum(axis=1) < uniform_B1).sum(axis=1), len(languages) - 1)
                drawn = draw_texts(rng, np.array([number_of[name] for name in languages])[language_B], words, table)
                texts = [
                    [
                        " ".join(text.split(" ", ceiling)[:ceiling]) if turn % 2 else text
                        for turn, text in enumerate(row)
                    ]
                    for row, ceiling in zip(drawn, ceiling_K[client_B].tolist(), strict=True)
                ]
                rows = {
                    "client_id": [f"client-{client:06d}" for client in client_B.tolist()],
                    "row_id": [f"row-{first + row:08d}" for row in range(len(client_B))],
                    "language": [languages[language] for language in language_B.tolist()],
                    "detected_language": [None] * len(client_B),
                    "messages": [messages_of(row) for row in texts],
                }
                writer.write_table(pa.table(rows, schema=SCHEMAS["sft"]), row_group_size=ROW_GROUP_ROWS)
                num_text_bytes += sum(len(text.encode()) for row in texts for text in row)
    return {"num_rows": corpus.num_rows, "num_clients": corpus.num_clients, "num_text_bytes": num_text_bytes}
