"""Profiles of a site's clients: what `fedllm-data profile` writes there, sent as it is, if its policy lets it go.

Counts, histograms and sketches, no text (`fedllm_data/profile_files.py` says what they reveal). The server checks each
of them and writes them into one folder, from which `fedllm-data report --profiles` makes the report of all sites.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fedllm_data.codebook import Codebook
from fedllm_data.errors import ConfigError, FedLLMError
from fedllm_data.heterogeneity.profile import MERGED_CLIENTS, ClientProfile
from fedllm_data.in_place import write_file
from fedllm_data.profile_files import profile_clients, read_profiles
from fedllm_train.engines.remote.messages import ProfileJob, Result, one_line
from fedllm_train.engines.remote.organisation import Organisation
from fedllm_train.engines.remote.policy import Policy

__all__ = ["site_profiles", "write_site_profiles"]

_NAME = re.compile(r"profile-(merged-)?[0-9a-f]{24}\.json")


def site_profiles(
    key: str, job: ProfileJob, codebook: bytes, site: Organisation, policy: Policy
) -> tuple[Result, bytes]:
    """Make the profiles of the clients that the policy offers; the body is a JSON object of file names and contents.

    Args:
        key: of the job.
        job: which split.
        codebook: what all sites share, as JSON.
        site: what the site has.
        policy: what may be told.
    """
    if not policy.profile:
        return Result(key=key, reason="this organisation sends no profiles"), b""
    try:
        book = Codebook.from_json(json.loads(codebook))
    except (FedLLMError, ValueError, KeyError, TypeError) as error:
        return Result(key=key, reason=f"the codebook cannot be read: {one_line(error)}"), b""
    with tempfile.TemporaryDirectory(prefix="fedllm-profiles-") as place:
        try:
            clients = None if policy.clients is None else [each for each in policy.clients]
            found = profile_clients(site.data, Path(place), book, clients=clients, split=job.split)
        except FedLLMError as error:
            return Result(key=key, reason=one_line(error)), b""
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(place).glob("profile-*.json"))}
    return Result(key=key, has_body=True, num_rows=len(found.clients)), json.dumps(files).encode()


def write_site_profiles(body: bytes, folder: Path, clients: Mapping[str, int], site: str) -> int:
    """Check the profiles that a site sent, and write them into a folder.

    Args:
        body: from `site_profiles`.
        folder: of the profiles of all sites.
        clients: the site's clients with their rows.
        site: its name, for the error.

    Returns:
        How many were written.

    Raises:
        ConfigError: if one is no profile, is of a client that the site does not have, or counts more rows than it has.
    """
    try:
        files = json.loads(body)
        documents = {str(name): json.loads(text) for name, text in files.items()}
        profiles = {name: ClientProfile.from_json(document) for name, document in documents.items()}
    except (FedLLMError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"site {site!r} sent what is no profile ({one_line(error)})") from None
    for name, profile in profiles.items():
        rows = sum(clients.values()) if profile.client_id == MERGED_CLIENTS else clients.get(profile.client_id)
        if not _NAME.fullmatch(name) or rows is None:
            raise ConfigError(f"site {site!r} sent a profile of a client that it does not have")
        if profile.num_rows > rows:
            raise ConfigError(f"site {site!r} sent a profile of {profile.num_rows} rows for a client with {rows}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_file(folder / name, text)
    read_profiles(folder)
    return len(files)
