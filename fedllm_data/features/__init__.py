"""From rows to features: what the axes of a heterogeneity report count, a batch of rows at a time."""

from fedllm_data.features.rows import row_features
from fedllm_data.features.token_counts import UNICODE_WORDS, Tokenizer, per_text

__all__ = ["UNICODE_WORDS", "Tokenizer", "per_text", "row_features"]
