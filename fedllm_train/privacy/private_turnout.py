"""Which rules of participation a guarantee of differential privacy allows.

Amplification by sampling needs a cohort in which every client is by a coin of its own. Independent of one another and
of what clients hold, drop-outs only make the sum smaller: the noise and the expected cohort stay as they are. But the
first few to arrive, a deadline and a buffer make one client's place depend on the others' (Kairouz et al. 2021, arXiv
2103.00039, section 1, on why sampling cannot be had from devices that come and go), and so does a machine that is open
at times, since the clock goes by the slowest. There a run is accounted for without amplification: each client gives
at most one clipped update to each of the T steps, so that they are T Gaussian mechanisms (`accounting.py`). With
related noise (`dp_mechanism` tree or matrix) no sampling counts, whoever is waited for, and turns are kept.

waits for       rule              independent noise              without replacement   related noise
the cohort      poisson           Poisson                        refused               refused
                all               everybody, every round         refused               turns of every round
                uniform           refused                        by cohorts' size      turns
                weighted, fixed   refused                        refused               turns
                fedllm-bench      refused                        refused               turns
                open at times     refused                        refused               turns, messages of one length
a deadline      poisson           refused                        refused               refused
                any other         everybody, every round         refused               turns
a buffer        uniform, weighted everybody, every round         refused               turns
late updates    any               refused                        refused               refused

"Everybody, every round" and "turns" need messages whose length says nothing of their values, where a clock decides.
Imports no torch.
"""

from fedllm_data.errors import ConfigError
from fedllm_train.participation.participation_settings import ParticipationSettings

__all__ = ["check_private_turnout"]


def check_private_turnout(
    settings: ParticipationSettings,
    *,
    has_windows: bool,
    has_fixed_lengths: bool = True,
    has_related_noise: bool = False,
) -> None:
    """Refuse a rule of participation under which the accountant's assumption would not hold.

    Args:
        settings: of participation, of a run with `dp_clip`.
        has_windows: whether some machine is open at some times only.
        has_fixed_lengths: whether how long messages are says nothing of their values; not with an entropy code.
        has_related_noise: whether the guarantee counts on no sampling anyway.

    Raises:
        ConfigError: naming the setting and what to use instead.

    >>> settings = ParticipationSettings(
    ...     participation="buffered", client_table="profile:phone-4g"
    ... )
    >>> check_private_turnout(settings, has_windows=False)
    """
    if settings.late == "apply":
        raise ConfigError(
            "late is 'apply', and with dp_clip a client could be in one step twice, by a late update and a new one; "
            "use late drop"
        )
    if settings.participation == "synchronous":
        if has_windows and not has_related_noise:
            raise ConfigError(
                "the client table has machines that are open at times only, so who takes part depends on the clock "
                "and not on a coin of each client's own, which dp_clip counts on; leave windows out, or use "
                "participation deadline, which is accounted for without amplification by sampling"
            )
        if not has_windows:
            return
    elif settings.cohort_rule == "poisson":
        raise ConfigError(
            f"cohort_rule is 'poisson' and participation {settings.participation!r}: the first to arrive are no "
            "independent sample, so sampling hides nobody; with dp_clip use cohort_rule uniform, which is accounted "
            "for without amplification, or participation synchronous"
        )
    if not has_fixed_lengths:
        when = "the client table has machines that are open at times only" if has_windows else ""
        when = when if settings.participation == "synchronous" else f"participation is {settings.participation!r}"
        raise ConfigError(
            f"{when} and a wire's messages are the longer the less their values "
            "can be compressed, so that a client's rows would decide whether it comes in time; with dp_clip use a "
            "wire without an entropy code"
        )
