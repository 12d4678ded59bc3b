"""From what a site says of a visit to the reply that the rounds take, or why it is left out."""

from fedllm_train.engines.engine import LeftOutKind, Reply
from fedllm_train.engines.remote.messages import Result, VisitJob

__all__ = ["left_out", "reply_of"]


def reply_of(job: VisitJob, result: Result, body: bytes, known_rows: int) -> Reply:
    """Return the reply of a visit; one that no visit could give has a reason and no message.

    Args:
        job: what was asked.
        result: what the site says came of it.
        body: the update's message.
        known_rows: the rows that a trainer gets of those that the site announced for the client.
    """
    reason = result.reason or _problem_of(job, result, known_rows)
    return Reply(
        step=job.step,
        client_id=job.client_id,
        message=body if result.has_body and reason is None else None,
        reason=reason,
        num_rows=result.num_rows if reason is None else 0,
        facts=dict(result.facts),
        kind="refused",
    )


def left_out(job: VisitJob, reason: str, kind: LeftOutKind) -> Reply:
    """Return the reply of a client that is left out."""
    return Reply(step=job.step, client_id=job.client_id, reason=reason, kind=kind)


def _problem_of(job: VisitJob, result: Result, known: int) -> str | None:
    """Why a result is not what a visit of this client could give; None where it is."""
    if result.num_rows > known:
        return f"it claims {result.num_rows} rows, and its site announced {known}"
    steps, seconds = result.facts.get("num_steps"), result.facts.get("seconds")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
        return "its facts say no number of steps"
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
        return "its facts say no seconds"
    loss = result.facts.get("train_loss")
    if loss is not None and (isinstance(loss, bool) or not isinstance(loss, int | float)):
        return "its facts say a training loss that is no number"
    if job.purpose == "train" and not result.has_body:
        return "its site sent no update and no reason"
    return None
