"""Which of the scored clients took part in a run at all: the others get what their neighbours' rows taught.

Read from the run's own `rounds.jsonl`, which stays where the run is; a published run has none, and nothing is said.
Nor is anything said of a run with differential privacy: its scores can be published, and its guarantee does not cover
who took part.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from fedllm_data.wording.catalogue import words
from fedllm_eval.policy.run_folder import ROUNDS_FILE, is_private_run, read_rounds
from fedllm_eval.scores import ClientScores

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["with_who_took_part"]


def with_who_took_part(scores: ClientScores, policy: "Policy") -> ClientScores:
    """Return a run's scores with the clients of the split who took part in no round, and a note that counts them.

    Splits of which nobody took part, such as `unseen`, are left as they are: that is what they are for.

    Raises:
        ConfigError: if the run's rounds cannot be read.
    """
    location = policy.location
    if location is None or location.kind != "run" or not (location.folder / ROUNDS_FILE).is_file():
        return scores
    if is_private_run(location.folder):
        return scores
    took_part = {client["client_id"] for record in read_rounds(location.folder) for client in record["clients"]}
    client_ids = scores.table["client_id"].to_pylist()
    absent = [client_id for client_id in client_ids if client_id not in took_part]
    if not absent or len(absent) == len(client_ids):
        return scores
    note = words("{num} of {total} clients took part in no round of training", num=len(absent), total=len(client_ids))
    return replace(scores, notes=(*scores.notes, note), took_no_part=tuple(absent))
