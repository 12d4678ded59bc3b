"""What a wire sends, in words, for cards and dry runs."""

from fedllm_train.messages.wire_names import WireStages

__all__ = ["stages_in_words"]


def stages_in_words(stages: WireStages, whole: str = "updates") -> str:
    """Return what is sent of an update.

    Args:
        stages: how it is packed.
        whole: what it is called where all of it is sent.

    >>> stages_in_words(WireStages(topk=0.1, quantise="int4"))
    "the 0.1 of an update's values that are largest, stochastically rounded to int4"
    >>> stages_in_words(WireStages(quantise="bfloat16"))
    'updates in bfloat16'
    """
    what = whole
    if stages.segments is not None:
        what = f"one of {stages.segments} parts of an update, {'drawn' if stages.segments_drawn else 'in turn'}"
    if stages.topk is not None:
        largest = f"the {stages.topk:.4g} of %s values that are largest"
        what = largest % "an update's" if stages.segments is None else f"{what}: {largest % 'its'}"
    if stages.levels is not None:
        of_blocks = "" if stages.block is None else f" with a scale for every {stages.block} values"
        how = f", {'' if stages.nearest else 'stochastically '}rounded to {stages.quantise}{of_blocks}"
    else:
        how = {
            "float32": "",
            "bfloat16": " in bfloat16",
            "sign": f", one bit a value and a scale for every {stages.block}",
            "drive": f", one bit a rotated value and a scale for every {stages.hadamard}",
        }[stages.quantise]
    return what + how
