"""What a packed upload means for clipping: some codecs decode to longer vectors than they were given.

The server clips what it decoded, so that no client moves the sum by more than the clipping norm C whatever its codec:
sensitivity, noise and epsilon are those of a run without packing. But where decoded changes are longer on average,
more of them are longer than C, and each is shortened by more: DRIVE's unbiased scale makes them sqrt(pi / 2) = 1.2533
times as long, so that C cuts like C / 1.2533 would without packing. Its biased scale never makes them longer.

Packed downloads need no accounting: they are calculated from global adapters that are already released
(post-processing; Dwork and Roth 2014, Proposition 2.1). Imports no torch.
"""

from fedllm_train.messages.wire_names import parse_wire
from fedllm_train.privacy.accounting import Guarantee

__all__ = ["clipping_note", "norm_growth"]


def norm_growth(wire: str) -> float:
    """Return how many times as long a decoded change is as the true one, on average.

    >>> round(norm_growth("drive"), 4), norm_growth("drive:biased"), norm_growth("none")
    (1.2533, 1.0, 1.0)
    """
    stages = parse_wire(wire)
    return 1.0 if stages is None else stages.norm_growth


def clipping_note(wire: str, guarantee: Guarantee) -> str | None:
    """Return a warning if changes are longer once decoded, so that more is clipped; else None.

    Args:
        wire: how uploads are packed.
        guarantee: has the clipping norm.
    """
    growth = norm_growth(wire)
    if growth <= 1:
        return None
    biased = f"; {wire}:biased lengthens nothing" if wire == "drive" else ""
    return (
        f"wire {wire!r} decodes changes to {growth:.4g} times their length on average, and the server clips what it "
        f"decoded: no client counts for more than dp_clip {guarantee.clip:g}, but more is cut, as by a dp_clip of "
        f"{guarantee.clip / growth:.3g} without packing{biased}"
    )
