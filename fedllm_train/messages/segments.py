"""Which part of a vector a client sends: one of n segments, so that an upload is an n-th (EcoLoRA).

EcoLoRA (2025, arXiv 2506.02001) cuts the flat vector into n contiguous segments and lets client i of round t send
segment (i + t) mod n. Here i is a number hashed from the client's id, since a client knows its id but not its position
in the cohort: a client that is visited in n consecutive rounds sends every segment once. A client that comes back
every n-th round would always send the same one; `drawn` draws the segment for each round and client instead. The
message says which segment it holds. Imports no torch.
"""

from hashlib import blake2b

from fedllm_train.messages.place import Place

__all__ = ["segment_bounds", "segment_of"]


def segment_of(place: Place, count: int, *, drawn: bool) -> int:
    """Return the segment that a message holds, from 0 to count - 1.

    Args:
        place: the message's place.
        count: the number of segments, n.
        drawn: whether it is drawn; otherwise segments go in turn.

    >>> sorted(segment_of(Place(0, t, "ann"), 5, drawn=False) for t in range(7, 12))
    [0, 1, 2, 3, 4]
    """
    if drawn:
        return int(place.rng("segment").integers(count))
    first = int.from_bytes(blake2b((place.client_id or "").encode(), digest_size=8).digest(), "big")
    return (first + place.round_index) % count


def segment_bounds(num_values: int, count: int, segment: int) -> tuple[int, int]:
    """Return where a segment begins and ends; lengths differ by at most one.

    >>> [segment_bounds(11, 3, segment) for segment in range(3)]
    [(0, 3), (3, 7), (7, 11)]
    """
    return num_values * segment // count, num_values * (segment + 1) // count
