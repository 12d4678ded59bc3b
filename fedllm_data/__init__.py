"""Datasets whose clients are real people: build, read, measure and publish them."""

from typing import TYPE_CHECKING, Any

from fedllm_data.clients import ClientDataset, load_client, load_clients

if TYPE_CHECKING:
    from fedllm_data.hub.publish import publish
    from fedllm_data.report import heterogeneity_report

__all__ = ["ClientDataset", "heterogeneity_report", "load_client", "load_clients", "publish"]


def __getattr__(name: str) -> Any:
    """Import what needs SciPy or the Hub's client only when it is asked for: `--help` must answer at once."""
    if name == "heterogeneity_report":
        from fedllm_data.report import heterogeneity_report

        return heterogeneity_report
    if name == "publish":
        from fedllm_data.hub.publish import publish

        return publish
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
