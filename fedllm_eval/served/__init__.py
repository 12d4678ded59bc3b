"""Policies that answer from a server: any OpenAI-compatible endpoint, asked for a model or an adapter by its name.

`connect` makes them from plain settings (`ServedSettings`); suites that generate take their answers. No torch here.
"""

from fedllm_eval.served.connect import Served, connect
from fedllm_eval.served.served_policy import ServedPolicy
from fedllm_eval.served.served_settings import ServedSettings

__all__ = ["Served", "ServedPolicy", "ServedSettings", "connect"]
