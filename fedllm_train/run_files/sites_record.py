"""`sites.json` of a run folder: which site has which clients. It stays here, as what names clients does."""

import json
from pathlib import Path

from fedllm_data.errors import ResumeError
from fedllm_eval.policy.run_folder import SITES_FILE
from fedllm_train.engines.remote.site_clients import SiteClients
from fedllm_train.run_files.run_writing import write_json

__all__ = ["write_sites"]


def write_sites(run: Path, clients: SiteClients) -> None:
    """Write which site has which clients, or see that it is what it was.

    Raises:
        ResumeError: naming the first site that has other clients, another key or other data than when the run began.
    """
    now = clients.as_record()
    path = run / SITES_FILE
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for site in sorted({*before, *now}):
            if before.get(site) != now.get(site):
                what = "is not there" if site not in now else "is new" if site not in before else "has changed"
                raise ResumeError(
                    f"{path}: site {site!r} {what} since the run began; bring back what was there, or begin another "
                    "run"
                )
    write_json(path, now)
