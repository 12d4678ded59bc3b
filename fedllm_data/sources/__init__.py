"""The corpora that `fedllm-data build` knows, by name."""

from fedllm_data.source import Source
from fedllm_data.sources.aya import FED_AYA
from fedllm_data.sources.chatbot_arena import FED_CHATBOT_IT, FED_CHATBOT_PA
from fedllm_data.sources.cold_cases import FED_CASES
from fedllm_data.sources.collective_alignment import FED_COLLECTIVE_ALIGNMENT
from fedllm_data.sources.community_alignment import FED_COMMUNITY_ALIGNMENT
from fedllm_data.sources.complaints import FED_COMPLAINTS
from fedllm_data.sources.dices import FED_DICES_PA
from fedllm_data.sources.hansard import FED_HANSARD
from fedllm_data.sources.kokkai import FED_KOKKAI
from fedllm_data.sources.mqm import FED_MQM
from fedllm_data.sources.multipref import FED_MULTIPREF_PA
from fedllm_data.sources.oasst import FED_OASST, FED_OASST2, FED_OASST2_PA, FED_OASST_PA
from fedllm_data.sources.prism import FED_PRISM
from fedllm_data.sources.realhumaneval import FED_REALHUMANEVAL
from fedllm_data.sources.stackexchange import FED_STACKEXCHANGE, FED_STACKEXCHANGE_PA
from fedllm_data.sources.summaries import FED_SUMMARIES_PA
from fedllm_data.sources.synth import FED_SYNTH, FED_SYNTH_PA
from fedllm_data.sources.wildchat import FED_WILDCHAT, FED_WILDCHAT_MULTI

__all__ = ["SOURCES"]

SOURCES: dict[str, Source] = {
    "fed-synth": FED_SYNTH,
    "fed-synth-pa": FED_SYNTH_PA,
    "fed-aya": FED_AYA,
    "fed-chatbot-it": FED_CHATBOT_IT,
    "fed-chatbot-pa": FED_CHATBOT_PA,
    "fed-wildchat": FED_WILDCHAT,
    "fed-wildchat-multi": FED_WILDCHAT_MULTI,
    "fed-oasst": FED_OASST,
    "fed-oasst-pa": FED_OASST_PA,
    "fed-oasst2": FED_OASST2,
    "fed-oasst2-pa": FED_OASST2_PA,
    "fed-prism": FED_PRISM,
    "fed-community-alignment": FED_COMMUNITY_ALIGNMENT,
    "fed-collective-alignment": FED_COLLECTIVE_ALIGNMENT,
    "fed-stackexchange": FED_STACKEXCHANGE,
    "fed-stackexchange-pa": FED_STACKEXCHANGE_PA,
    "fed-mqm": FED_MQM,
    "fed-realhumaneval": FED_REALHUMANEVAL,
    "fed-summaries-pa": FED_SUMMARIES_PA,
    "fed-multipref-pa": FED_MULTIPREF_PA,
    "fed-dices-pa": FED_DICES_PA,
    "fed-hansard": FED_HANSARD,
    "fed-complaints": FED_COMPLAINTS,
    "fed-cases": FED_CASES,
    "fed-kokkai": FED_KOKKAI,
}
