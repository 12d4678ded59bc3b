"""The loopback Hub, empty and with a logged-in caller, for one test; see `tests/conftest.py` for the environment."""

from collections.abc import Iterator

import pytest

from tests.hub.server import LoopbackHub

TOKEN = "hf_of_the_tests"


@pytest.fixture
def hub(loopback_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """An empty Hub; the caller is logged in, clients wait no time between retries and ask no other service."""
    import datasets.config
    import huggingface_hub.utils._http as hub_http

    class NoWait:
        """`time`, as far as the retries use it."""

        sleep = staticmethod(lambda seconds: None)

    loopback_hub.clear()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(hub_http, "time", NoWait)
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)
    yield loopback_hub
    loopback_hub.clear()
