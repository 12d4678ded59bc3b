"""Random streams that depend on what they are for; they live in `fedllm_data/seeds.py`, where all packages may ask."""

from fedllm_data.seeds import stream_rng, stream_seed

__all__ = ["stream_rng", "stream_seed"]
