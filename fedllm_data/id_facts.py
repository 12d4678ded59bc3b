"""How the client ids of a repo were made, and whether those of two repos can be compared.

`build.json` says whether ids are hashed, with the fingerprint of the salt, and whether clients are artificial. The
fingerprint tells whether two repos used one salt and nothing else about it.
"""

import json
from collections.abc import Mapping
from typing import Any

from fedllm_data.errors import HubError
from fedllm_data.repo import ClientRepo

__all__ = ["id_facts_of", "ids_difference"]

IdFacts = Mapping[str, Any]
"""`hashed`, `salt_fingerprint` and `artificial`."""


def id_facts_of(repo: ClientRepo) -> dict[str, Any] | None:
    """Return what a repo's build.json says of its client ids; None if there is no build.json that says it."""
    try:
        with repo.open("build.json") as file:
            facts = json.loads(file.read().decode("utf-8"))
    except (OSError, ValueError, HubError):
        return None
    stated = facts.get("client_ids") if isinstance(facts, dict) else None
    if not isinstance(stated, dict):
        return None
    return {
        "hashed": bool(stated.get("hashed")),
        "salt_fingerprint": stated.get("salt_fingerprint"),
        "artificial": bool(stated.get("artificial")),
    }


def ids_difference(here: IdFacts | None, there: IdFacts | None) -> str | None:
    """Return in words why ids of one repo cannot be looked for in another; None if nothing speaks against it.

    Args:
        here: facts of the one, as `id_facts_of` gives them; None if they are not known.
        there: facts of the other.

    >>> salted = {"hashed": True, "salt_fingerprint": "aa", "artificial": False}
    >>> plain = {"hashed": False, "salt_fingerprint": None, "artificial": False}
    >>> ids_difference(salted, salted), ids_difference(plain, None)
    (None, None)
    >>> ids_difference(salted, plain)
    'the ids here are hashed (salt aa) and the ids there are not'
    """
    if here is None or there is None:
        return None
    if here.get("artificial") or there.get("artificial"):
        which = [name for name, facts in (("here", here), ("there", there)) if facts.get("artificial")]
        return f"clients {' and '.join(which)} are artificial"
    if bool(here.get("hashed")) != bool(there.get("hashed")):
        hashed, plain = ("here", "there") if here.get("hashed") else ("there", "here")
        salt = (here if here.get("hashed") else there).get("salt_fingerprint")
        return f"the ids {hashed} are hashed (salt {salt}) and the ids {plain} are not"
    if here.get("salt_fingerprint") != there.get("salt_fingerprint"):
        salts = here.get("salt_fingerprint"), there.get("salt_fingerprint")
        return f"the ids are hashed with another salt ({salts[0]} here, {salts[1]} there)"
    return None
