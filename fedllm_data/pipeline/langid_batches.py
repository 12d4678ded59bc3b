"""py3langid for many texts at once: the labels of its own `classify`, in a third of the time or less.

py3langid walks an automaton byte by byte in Python and multiplies a dense table for each text (langid.py, Lui and
Baldwin 2012). Here 500 texts take their steps side by side, the longest first so that the texts still under way
are always the first ones, and one sparse product scores them all.

Sums in another order differ in the last digits: a confidence by at most 1e-4 (4.4e-5 was the largest of 6,493 real
texts). A text whose two best languages or whose confidence and the threshold lie closer than `_MARGIN` is given to
`classify` itself, so that the label, and whether it counts, are the same for every text.

Symbols: N texts, V visits of a feature, F features of the model, M features met, C classes (a language may have two).
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["BatchIdentifier"]

_BATCH_TEXTS = 500
_FEWEST_TEXTS = 32
"""Below this the steps side by side cost more than one text after another."""
_MARGIN = 1e-3


class BatchIdentifier:
    """A py3langid identifier with normalised probabilities, asked for many texts at once."""

    def __init__(self, identifier: Any, threshold: float) -> None:
        """Bring the model into arrays.

        Args:
            identifier: a `py3langid.langid.LanguageIdentifier` made with `norm_probs=True`.
            threshold: the confidence that a caller compares with; decided exactly.
        """
        self._identifier = identifier
        self._threshold = threshold
        self._next_state = np.asarray(identifier.tk_nextmove)
        self._first_move = np.asarray(identifier.tk_row, dtype=np.int64) << 8
        self._feature_of = np.asarray(identifier.tk_output, dtype=np.int32)
        self._weight_FC = np.asarray(identifier.nb_ptc)
        self._prior_C = np.asarray(identifier.nb_pc, dtype=np.float32)
        first: dict[str, int] = {}
        self._aliases = [
            (first[label], index)
            for index, label in enumerate(identifier.nb_classes)
            if first.setdefault(label, index) != index
        ]

    def classify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """Return the label of each text with its confidence in [0, 1], as the identifier's own `classify`.

        >>> from py3langid.langid import MODEL_FILE, LanguageIdentifier
        >>> identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        >>> texts = ["How does this work?", "Come funziona questa cosa?"] * 20
        >>> [label for label, _ in BatchIdentifier(identifier, 0.5).classify(texts)][-2:]
        ['en', 'it']
        """
        if len(texts) < _FEWEST_TEXTS:
            return [self._identifier.classify(text) for text in texts]
        found: list[tuple[str, float]] = []
        for start in range(0, len(texts), _BATCH_TEXTS):
            found += self._classified(texts[start : start + _BATCH_TEXTS])
        return found

    def _classified(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        encoded = [_encoded(text) for text in texts]
        chance_NC = self._chances(encoded)
        best_N = chance_NC.argmax(axis=1)
        second_N, first_N = np.partition(chance_NC, -2, axis=1)[:, -2:].T
        is_close_N = (first_N - second_N < _MARGIN) | (np.abs(first_N - self._threshold) < _MARGIN)
        labels = self._identifier.nb_classes
        return [
            self._identifier.classify(text) if is_close else (labels[best], confidence)
            for text, best, confidence, is_close in zip(
                texts, best_N.tolist(), first_N.tolist(), is_close_N.tolist(), strict=True
            )
        ]

    def _chances(self, encoded: list[bytes]) -> np.ndarray:
        """The probability of each class for each text."""
        # Imported here: half a tenth of a second, for builds alone.
        from scipy.sparse import coo_array

        text_V, feature_V = self._visited(encoded)
        # The model holds half precision; only the features met are widened, not 57 MB of them.
        is_met_F = np.zeros(len(self._weight_FC), dtype=bool)
        is_met_F[feature_V] = True
        weight_MC = self._weight_FC[is_met_F].astype(np.float32)
        column_V = (np.cumsum(is_met_F, dtype=np.int32) - 1)[feature_V]
        shape = (len(encoded), len(weight_MC))
        counts = coo_array((np.ones(len(text_V), dtype=np.float32), (text_V, column_V)), shape=shape).tocsr()
        counts.data = np.log1p(counts.data)
        score_NC = counts @ weight_MC
        score_NC[np.diff(counts.indptr) > 0] += self._prior_C  # a text without a feature is unlike every language
        score_NC /= np.sqrt(np.maximum(1, [len(text) for text in encoded]), dtype=np.float32)[:, None]
        chance_NC = np.exp(score_NC - score_NC.max(axis=1, keepdims=True))
        chance_NC /= chance_NC.sum(axis=1, keepdims=True)
        for first, alias in self._aliases:
            chance_NC[:, first] += chance_NC[:, alias]
            chance_NC[:, alias] = 0.0
        return np.asarray(chance_NC)

    def _visited(self, encoded: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """The features met on the walks, each with its text; one met twice is there twice."""
        length_N = np.array([len(text) for text in encoded])
        order_N = np.argsort(-length_N, kind="stable")
        byte_of = np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.int64)
        place_N = (np.cumsum(length_N) - length_N)[order_N]
        num_walking = np.searchsorted(-length_N[order_N], -np.arange(length_N.max(initial=0)))
        state_N = np.zeros(len(encoded), dtype=np.int64)
        states = []
        for step, num in enumerate(num_walking.tolist()):
            moves = self._first_move[state_N[:num]] + byte_of[place_N[:num] + step]
            state_N = self._next_state[moves]
            states.append(state_N)
        if not states:
            return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32)
        feature_V = self._feature_of[np.concatenate(states)]
        text_V = np.concatenate([order_N[:num] for num in num_walking.tolist()])
        is_met_V = feature_V >= 0
        return text_V[is_met_V].astype(np.int32), feature_V[is_met_V]


def _encoded(text: str) -> bytes:
    """The bytes that py3langid walks over."""
    text = text.lower() if text.isupper() else text
    return unicodedata.normalize("NFC", text).encode(errors="surrogatepass")
