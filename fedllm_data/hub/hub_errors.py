"""Turn whatever the Hub's clients raise into one line with a remedy.

Used around every call of huggingface_hub or datasets that talks to the Hub; errors about something else, such as a
full disk, pass as they are.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # of its HTTP library

from fedllm_data.errors import FedLLMError, HubError

__all__ = ["LOGIN", "hub_errors"]

_NO_XET = re.compile(r"\b(?:404|405|501)\b.*/xet-(?:write|read)-token/")
"""hf_xet 1.8 raises a plain ConnectionError, so that the address it asked is all that tells."""
LOGIN = "run `hf auth login` or set HF_TOKEN"


@contextmanager
def hub_errors(repo_id: str, verb: Literal["read", "write"], revision: str | None = None) -> Iterator[None]:
    """Turn whatever the Hub's clients raise inside the block into a `HubError` of one line.

    Args:
        repo_id: the repo that the block reads or writes.
        verb: what the block does with it.
        revision: the revision asked for, to be named if it does not exist.

    Raises:
        HubError: for an answer other than success, no answer, or no permission to ask (offline mode).

    >>> with hub_errors("org/fed-oasst", "read"):
    ...     raise OfflineModeIsEnabled
    Traceback (most recent call last):
    fedllm_data.errors.HubError: cannot read org/fed-oasst: HF_HUB_OFFLINE is set; unset it to use the Hub
    """
    try:
        yield
    except FedLLMError:
        raise
    except (TransportError, HFValidationError, OSError, RuntimeError) as error:
        cause = _cause(error)
        if cause is None:
            raise
        raise HubError(f"cannot {verb} {repo_id}: {_reason(cause, verb, revision)}") from error


def _cause(error: BaseException) -> BaseException | None:
    """The Hub's answer behind an error, or None if the error is about something else, such as a full disk.

    huggingface_hub raises a failed upload as a bare RuntimeError; datasets raises a repo that it may not read as a
    FileNotFoundError of its own (so without an errno), and drops the cause.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, (TransportError, HFValidationError, ConnectionError)):
            return link
        link = link.__cause__ or link.__context__
    is_of_datasets = isinstance(error, FileNotFoundError) and error.errno is None
    return error if type(error) is RuntimeError or is_of_datasets else None


def _reason(error: BaseException, verb: str, revision: str | None) -> str:
    """What went wrong and what to do about it, for the end of one line."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it to use the Hub"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision!r}; list what it has with `hf repos tag list NAME --type dataset`"
    if isinstance(error, GatedRepoError) or "is a gated dataset" in str(error):
        return "it is gated; ask for access on its page, then log in with `hf auth login`"
    if isinstance(error, FileNotFoundError):
        return f"it cannot be found or accessed ({_first_line(error)}); check the name and `hf auth whoami`"
    if _NO_XET.search(str(error)):
        return (
            "this Hub has no Xet storage, where the client sends large files; set HF_HUB_DISABLE_XET=1, then run again"
        )
    if not isinstance(error, HfHubHTTPError) or error.response is None:
        return f"the Hub cannot be reached ({_first_line(error)}); check the network and HF_ENDPOINT, then run again"
    status = error.response.status_code
    if isinstance(error, RepositoryNotFoundError):
        return f"no such repo, or it is private and you may not see it; check the name, then {LOGIN}"
    if status == 401:
        return f"the Hub does not accept the token; {LOGIN}"
    if status == 403:
        return f"the token may not {verb} it (403); check `hf auth whoami` and the token's permissions"
    if status == 412:
        return "somebody committed to it meanwhile, and nothing was changed; look at that commit, then run again"
    if status >= 500 or status == 429:
        return f"the Hub answered {status}; run again later"
    return f"the Hub answered {status} ({_first_line(error)})"


def _first_line(error: BaseException) -> str:
    message = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return str(message).strip().splitlines()[0]
