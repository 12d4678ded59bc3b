"""The project's errors: one tree, each class also the built-in a caller would expect.

A message has three parts: what was wrong with the actual value, where (file and line, repo, client, round), and
what to do about it. The console commands print it as one line and exit with code 2.
"""

__all__ = [
    "ChatTemplateError",
    "ClientNotFoundError",
    "ConfigError",
    "FedLLMError",
    "HubError",
    "JudgeError",
    "MetricError",
    "PartitionError",
    "ReportError",
    "ResumeError",
    "SchemaError",
    "ServedModelError",
    "SourceError",
    "WorkerError",
]


class FedLLMError(Exception):
    """Base of every error the project raises on purpose."""


class SchemaError(FedLLMError, ValueError):
    """A row, a file or a folder is not in the format of `fedllm_data.schema`."""


class SourceError(FedLLMError, ValueError):
    """An upstream corpus cannot be read or turned into rows."""


class PartitionError(FedLLMError, ValueError):
    """A rule that assigns rows to clients, or a table of counts per client, makes no sense."""


class ClientNotFoundError(FedLLMError, KeyError):
    """A client id names no client of the dataset."""

    def __str__(self) -> str:
        """Return the message as written: `KeyError` would show its repr."""
        return str(self.args[0]) if self.args else ""


class ReportError(FedLLMError, ValueError):
    """A heterogeneity report cannot be computed from what was given."""


class HubError(FedLLMError, RuntimeError):
    """A Hub repo could not be read or written."""


class ConfigError(FedLLMError, ValueError):
    """A setting cannot be honoured; raised before the first round."""


class ChatTemplateError(ConfigError):
    """A conversation cannot be rendered by a chat template, or the assistant's tokens not be found in it.

    `reason` says why without naming the conversation: equal for all rows that fail alike.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        """Take the message and its reason."""
        super().__init__(message)
        self.reason = reason or message

    def __reduce__(self) -> tuple[type, tuple[str], dict[str, str]]:
        """Survive the way from a process that trains clients."""
        return type(self), (str(self),), {"reason": self.reason}


class ResumeError(FedLLMError, RuntimeError):
    """A run folder cannot be continued."""


class DownloadError(FedLLMError, ValueError):
    """What the server sent to a client cannot be read, or does not follow what the client has."""


class WorkerError(FedLLMError, RuntimeError):
    """A process that trains clients died or failed."""


class JudgeError(FedLLMError, RuntimeError):
    """A judge cannot be asked any further; what it has judged is kept."""


class ServedModelError(FedLLMError, RuntimeError):
    """A served model cannot be asked any further; what it has answered is kept."""


class MetricError(FedLLMError, ValueError):
    """A score cannot be computed from what was given."""
