"""Which ways to pack a method, a participation or a guarantee cannot be combined with; refused before round 0."""

from typing import Protocol

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.messages.vector_cut import cut_of
from fedllm_train.messages.wire_names import parse_wire
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.strategy import Strategy, Traits

__all__ = ["RoundSettings", "check_wire_method", "check_wire_parts", "check_wire_rounds", "check_wire_size"]

EF21_RULES = ("all", "fixed")
"""Cohort rules that ask the same clients in every round."""


class RoundSettings(Protocol):
    """What of a run's settings the wire has to fit."""

    cohort_rule: str

    @property
    def protects_clients(self) -> bool:
        """Whether updates are clipped for a guarantee."""
        ...


def check_wire_method(settings: WireSettings, traits: Traits, strategy: str) -> None:
    """Refuse to pack for a method that sends nothing that could be packed like this.

    Args:
        settings: the wire's settings.
        traits: the method's traits.
        strategy: the method's name.

    Raises:
        ConfigError: naming the setting.
    """
    for name, way in (("wire", "uploads"), ("download_wire", "downloads")):
        if getattr(settings, name) != "none" and not traits.travels:
            raise ConfigError(f"{name} is given, but strategy {strategy!r} {way} nothing; leave it out")
    if settings.download_wire != "none" and traits.adapter_down == "none":
        raise ConfigError(
            f"download_wire is given, but strategy {strategy!r} sends no adapter to its clients ({traits.down}); "
            "leave it out"
        )
    if settings.download_wire != "none" and traits.adapter_down == "several":
        raise ConfigError(
            f"download_wire is given, but strategy {strategy!r} may send a client several adapters at once "
            f"({traits.down}), which packed apart could not be compared; leave it out"
        )
    if settings.download_wire != "none" and settings.download_base == "previous" and traits.adapter_down == "own":
        raise ConfigError(
            f"download_base is previous, but strategy {strategy!r} may send each client another adapter "
            f"({traits.down}), and a chain of changes leads to one; use download_base start or zero"
        )
    if not traits.sends_adapter:
        for name, default in (("wire", "none"), ("max_update_norm", None)):
            if getattr(settings, name) != default:
                raise ConfigError(
                    f"{name} is given, but clients of strategy {strategy!r} send {traits.up}, no adapter; leave it out"
                )
    if settings.error_feedback != "none" and traits.draws_start:
        raise ConfigError(
            f"error_feedback is given, but clients of strategy {strategy!r} begin every round from another adapter, "
            "so what they did not send belongs to no later change; leave it out"
        )
    if settings.error_feedback == "ef21" and traits.sees != "mean":
        raise ConfigError(
            f"error_feedback is ef21, whose server keeps the mean of its clients' changes, and strategy {strategy!r} "
            'needs more of them than that; use ef14, or a method whose "sees" is "mean" in '
            "`fedllm-train methods --json`"
        )


def check_wire_rounds(settings: WireSettings, rounds: RoundSettings) -> None:
    """Refuse EF21 where some clients are not asked in every round, or where its memory would break a bound.

    Args:
        settings: the wire's settings.
        rounds: who takes part, and what is guaranteed.

    Raises:
        ConfigError: naming the setting.
    """
    if settings.error_feedback != "ef21":
        return
    if rounds.cohort_rule not in EF21_RULES:
        raise ConfigError(
            f"error_feedback is ef21 and cohort_rule is {rounds.cohort_rule!r}: the changes that it remembers of "
            "clients that are not asked would stay in every mean, and grow old; use cohort_rule all or fixed, or ef14"
        )
    participation = getattr(rounds, "participation", "synchronous")
    if participation != "synchronous":
        raise ConfigError(
            f"error_feedback is ef21 and participation is {participation!r}, where some clients are left behind in "
            "every step; use participation synchronous, or ef14"
        )
    if rounds.protects_clients:
        raise ConfigError(
            "error_feedback is ef21, with which what a client sent in earlier rounds stays in every later mean, so "
            "that clipping what it sends in one round bounds nothing; with dp_clip use ef14"
        )
    if settings.max_update_norm is not None:
        raise ConfigError(
            "error_feedback is ef21, whose messages are corrections of earlier ones, so max_update_norm has no change "
            "to bound; leave it out, or use ef14"
        )


def check_wire_parts(settings: WireSettings, strategy: Strategy, start: Parts, client_id: str) -> None:
    """Refuse EF21 where clients send more than an adapter in some round, which a mean of adapters cannot stand for.

    Args:
        settings: the wire's settings.
        strategy: the method.
        start: the server's state before round 0.
        client_id: any client that may take part.

    Raises:
        ConfigError: naming the part.
    """
    if settings.error_feedback != "ef21":
        return
    more = {part for step in (0, 1) for part in strategy.expects(start, client_id, step) if part != "adapter"}
    if more:
        raise ConfigError(
            f"error_feedback is ef21, but clients also send their {min(more).replace('_', ' ')}, of which it keeps no "
            "mean; use ef14"
        )


def check_wire_size(settings: WireSettings, num_values: int) -> None:
    """Refuse a share of an adapter's values that rounds to no value at all.

    Raises:
        ConfigError: naming the setting.
    """
    for name in ("wire", "download_wire"):
        stages = parse_wire(getattr(settings, name), name)
        if stages is not None and cut_of(stages, [num_values], 0).num_chosen == 0:
            raise ConfigError(
                f"{name} is {getattr(settings, name)!r}: it sends none of {num_values} values; choose more"
            )
