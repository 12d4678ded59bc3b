"""The next token of every conversation of a batch, chosen at once.

Symbols: B conversations side by side, V words. Each conversation draws from a stream of its own, made of the seed and
its messages, and every operation on the (B, V) probabilities works on one row: who stands beside it changes nothing.
A token is drawn by inverting the cumulative distribution in float64, with one uniform number a token; the nucleus
(Holtzman et al. 2020, top-p) is cut out before. Imports torch when called.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedllm_eval.texts import text_bytes

__all__ = ["NUM_LIKELIEST", "TokenChooser"]

NUM_LIKELIEST = 256
"""Words that are sorted first; a nucleus nearly always lies within them, and sorting 50,000 takes longer than all else
here together."""


class TokenChooser:
    """Picks the next tokens of conversations, each by its own random stream."""

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        """Draw at a temperature (0 takes the likeliest token) from a nucleus of probability `top_p`."""
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self._streams: dict[str, np.random.Generator] = {}

    def __call__(self, keys: Sequence[str], logits_BV: Any) -> list[int]:
        """Return a token id for each conversation.

        Args:
            keys: B texts that tell the conversations apart.
            logits_BV: (B, V) float32 logits over the vocabulary.

        >>> import torch
        >>> TokenChooser(0.0, 1.0, 0)(["a", "b"], torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        [1, 0]
        """
        import torch

        if self.temperature == 0:
            return [int(token) for token in logits_BV.argmax(-1).tolist()]
        p_BV = (logits_BV.double() / self.temperature).softmax(-1)
        if self.top_p < 1:
            p_BV = _nucleus(p_BV, self.top_p)
        cdf_BV = p_BV.cumsum(-1)
        uniform_B = torch.tensor([self._stream(key).random() for key in keys], dtype=torch.float64)
        drawn_B1 = uniform_B.to(cdf_BV.device)[:, None] * cdf_BV[:, -1:]
        # The first token whose share of [0, sum) holds the draw; tokens of probability 0 have no share.
        return [int(token) for token in (cdf_BV <= drawn_B1).sum(-1).tolist()]

    def _stream(self, key: str) -> np.random.Generator:
        if key not in self._streams:
            digest = hashlib.sha256(text_bytes(f"{self.seed}\0{key}")).digest()
            self._streams[key] = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
        return self._streams[key]


def _nucleus(p_BV: Any, top_p: float) -> Any:
    """The probabilities, 0 outside the nucleus: a word stays while those before it hold less than `top_p`.

    The order is by probability, equal ones by their place in the vocabulary. The likeliest word always stays.
    """
    import torch

    num_likeliest = min(NUM_LIKELIEST, p_BV.shape[-1] - 1)
    likeliest_BN = p_BV.topk(num_likeliest + 1, dim=-1).values
    num_kept_B = (likeliest_BN.cumsum(-1) - likeliest_BN < top_p).sum(-1)
    last_B1 = likeliest_BN.gather(-1, (num_kept_B - 1)[:, None])
    next_B1 = likeliest_BN.gather(-1, num_kept_B.clamp(max=num_likeliest)[:, None])
    kept_BV = torch.where(p_BV >= last_B1, p_BV, 0.0)
    # Beyond the likeliest, or where the last word kept is as likely as the first that goes, the order decides.
    unsettled_B = (num_kept_B > num_likeliest) | (last_B1 == next_B1).squeeze(-1)
    if bool(unsettled_B.any()):
        p_UV = p_BV[unsettled_B]
        sorted_UV, order_UV = p_UV.sort(dim=-1, descending=True, stable=True)
        gone_UV = sorted_UV.cumsum(-1) - sorted_UV >= top_p
        kept_BV[unsettled_B] = p_UV.masked_fill(torch.zeros_like(gone_UV).scatter(-1, order_UV, gone_UV), 0.0)
    return kept_BV
