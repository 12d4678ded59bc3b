"""How a candidate's messages were packed and which replies made a step, from its config.yaml, and in plain words."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.wording.catalogue import plural_words, words
from fedllm_data.wording.forms import percent
from fedllm_eval.deciding.plain_amounts import time_text
from fedllm_eval.policy.run_folder import find_config, section

__all__ = ["TrainedHow", "how_sentences", "trained_how"]

WHOLE = "none"
"""The wire that sends whole values."""


@dataclass(frozen=True, kw_only=True)
class TrainedHow:
    """Wire and participation of a run."""

    wire: str = WHOLE
    """What clients sent."""
    download_wire: str = WHOLE
    participation: str = "synchronous"
    deadline_seconds: float | None = None
    late: str = "drop"
    """`drop` or `apply`."""
    buffer_size: int | None = None
    drop_out: float | None = None
    """Probability with which the settings lost a visit, over the client table's."""


def trained_how(run: Path | None) -> TrainedHow | None:
    """Return wire and participation of a run; None where its folder is not at hand.

    Runs of older versions name their upload codec, and have no participation but the synchronous one.

    >>> trained_how(Path("no/such/run")) is None
    True
    """
    config = None if run is None else find_config(run)
    if config is None:
        return None
    settings: Mapping[str, Any] = section(config, "federated")
    return TrainedHow(
        wire=settings.get("wire") or settings.get("upload_codec") or WHOLE,
        download_wire=settings.get("download_wire") or WHOLE,
        participation=settings.get("participation") or "synchronous",
        deadline_seconds=settings.get("deadline_seconds"),
        late=settings.get("late") or "drop",
        buffer_size=settings.get("buffer_size"),
        drop_out=settings.get("drop_out"),
    )


def how_sentences(how: TrainedHow | None) -> list[str]:
    """Return how a candidate was trained; nothing where that is not known.

    >>> how_sentences(TrainedHow(wire="drive"))
    ['Clients sent their updates packed (drive).', 'Every round waited for all who were asked.']
    """
    if how is None:
        return []
    packed = {"wire": how.wire, "down": how.download_wire}
    if how.wire == how.download_wire == WHOLE:
        found = [words("Nothing was packed: models and updates were sent whole.")]
    elif how.download_wire == WHOLE:
        found = [words("Clients sent their updates packed ({wire}).", **packed)]
    elif how.wire == WHOLE:
        found = [words("The server sent its model packed ({down}).", **packed)]
    else:
        found = [words("Clients sent their updates packed ({wire}), the server its model ({down}).", **packed)]
    if how.participation == "deadline" and how.deadline_seconds is not None:
        time = time_text(how.deadline_seconds / 3600)
        found.append(
            words("A round ended after {time}; what came later was used in a later round.", time=time)
            if how.late == "apply"
            else words("A round ended after {time}; what came later was left out.", time=time)
        )
    elif how.participation == "deadline":
        found.append(words("A round ended with the first replies that were enough."))
    elif how.participation == "buffered" and how.buffer_size is not None:
        found.append(
            plural_words(
                "The server made a step for every {num} reply, without waiting for anybody else.",
                "The server made a step for every {num} replies, without waiting for anybody else.",
                how.buffer_size,
            )
        )
    elif how.participation == "buffered":
        found.append(words("The server made a step whenever enough replies were there, and waited for nobody else."))
    else:
        found.append(words("Every round waited for all who were asked."))
    if how.drop_out:
        found.append(words("By its settings {share} of the visits were lost.", share=percent(how.drop_out)))
    return found
