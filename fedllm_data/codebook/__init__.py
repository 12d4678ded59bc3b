"""The codebook: what clients must share so that their profiles merge.

Features need a codebook, and making one needs features, so `make_codebook` is reached by its own path,
`fedllm_data.codebook.making`.
"""

from fedllm_data.codebook.codebook import Codebook, read_codebook, write_codebook

__all__ = ["Codebook", "read_codebook", "write_codebook"]
