"""The corpora that `fedllm-data build` knows, by name."""

from fedllm_data.source import Source
from fedllm_data.sources.oasst import FED_OASST, FED_OASST_PA
from fedllm_data.sources.synth import FED_SYNTH, FED_SYNTH_PA

__all__ = ["SOURCES"]

SOURCES: dict[str, Source] = {
    "fed-synth": FED_SYNTH,
    "fed-synth-pa": FED_SYNTH_PA,
    "fed-oasst": FED_OASST,
    "fed-oasst-pa": FED_OASST_PA,
}
