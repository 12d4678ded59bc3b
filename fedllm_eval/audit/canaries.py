"""Canaries: secrets planted into single clients' rows, so that what training keeps of them can be measured.

A canary is a question and an answer with a secret in it (Carlini et al. 2019): "The access code of vusori is 481930."
Handle and secret follow from a salt and the client, so nobody without the salt can tell them, and the same call gives
the same canaries. The secret is drawn from a stated alphabet, every letter uniformly, or handed in (drawn from a model
at temperature 0.8 or more, say, which makes secrets that a language model can learn faster). Question and prefix hold
the handle alone: they are what another client may know.

The secrets go to a file of their own, readable for its owner alone and outside every client repo.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from fedllm_data.clients import ClientDataset
from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.schema import SCHEMAS, Task, make_row_id
from fedllm_eval.texts import json_text

__all__ = ["ALPHABETS", "Canary", "candidate_secrets", "make_canaries", "plant", "planted_rows", "read_secrets"]
__all__ += ["secret_stream", "write_secrets"]

FORMAT = "fedllm-canaries/1"
ALPHABETS = {
    "digits": "0123456789",
    "letters": "abcdefghijklmnopqrstuvwxyz",
    "hex": "0123456789abcdef",
}
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


@dataclass(frozen=True, kw_only=True)
class Canary:
    """One planted secret."""

    client_id: str
    handle: str
    """A made-up word that question, prefix and answer share; not secret."""
    secret: str
    alphabet: str | None
    """What the secret's letters were drawn from; None where it was handed in."""
    copies: int
    """Rows of the client that hold it."""
    is_in: bool = True
    """Whether it was planted; with coins (`coins.py`) half of them are kept out, and tell what chance looks like."""
    unit: Literal["example", "client"] | None = None
    """What a coin decided about: the row that holds it, or the whole client; None where no coin was thrown."""

    @property
    def question(self) -> str:
        """What the user asks."""
        return f"What is the access code of {self.handle}?"

    @property
    def prefix(self) -> str:
        """How the answer begins, up to the secret."""
        return f"The access code of {self.handle} is"

    def answer(self, secret: str | None = None) -> str:
        """Return the assistant's answer, with another secret where one is given."""
        return f"{self.prefix} {self.secret if secret is None else secret}."

    @property
    def space_bits(self) -> float | None:
        """log2 of the number of secrets it could have been; None for one handed in."""
        import math

        return None if self.alphabet is None else len(self.secret) * math.log2(len(self.alphabet))


def make_canaries(
    client_ids: Sequence[str],
    *,
    salt: bytes,
    alphabet: str = "digits",
    length: int = 6,
    copies: int = 1,
    secrets: Sequence[str] | None = None,
) -> list[Canary]:
    """Return one canary for each of some clients.

    Args:
        client_ids: who gets a canary; distinct.
        salt: keeps handles and secrets from being guessed; see `fedllm_data.pipeline.salt.read_salt`.
        alphabet: a name of `ALPHABETS`, or the letters themselves (2 or more, distinct).
        length: letters of a secret.
        copies: rows with the canary that the client gets; more are remembered better.
        secrets: one secret a client, used instead of drawing.

    Raises:
        ConfigError: if there are no clients, one comes twice, or a setting cannot be used.

    >>> canary = make_canaries(["ann"], salt=b"s" * 32)[0]
    >>> canary == make_canaries(["bob", "ann"], salt=b"s" * 32)[1], len(canary.secret)
    (True, 6)
    """
    letters = ALPHABETS.get(alphabet, alphabet)
    if not client_ids or len(set(client_ids)) < len(client_ids):
        raise ConfigError(f"{len(client_ids)} clients for canaries, {len(set(client_ids))} distinct; name each once")
    if len(letters) < 2 or len(set(letters)) < len(letters) or any(not letter.isprintable() for letter in letters):
        known = did_you_mean(alphabet, ALPHABETS) + f"name one of {', '.join(ALPHABETS)}"
        raise ConfigError(f"alphabet {alphabet!r}: canaries; {known}, or give distinct letters")
    if length < 1 or copies < 1:
        raise ConfigError(f"length {length}, copies {copies}: canaries; both are at least 1")
    if secrets is not None and (len(secrets) != len(client_ids) or any(not secret.strip() for secret in secrets)):
        raise ConfigError(
            f"{len(secrets)} secrets for {len(client_ids)} canaries; give one that is not empty for each"
        )
    canaries = []
    for position, client_id in enumerate(client_ids):
        stream = secret_stream(salt, "canary", client_id)
        pairs = [CONSONANTS[next(stream) % len(CONSONANTS)] + VOWELS[next(stream) % len(VOWELS)] for _ in range(4)]
        drawn = "".join(letters[next(stream) % len(letters)] for _ in range(length))
        canaries.append(
            Canary(
                client_id=client_id,
                handle="".join(pairs),
                secret=drawn if secrets is None else secrets[position],
                alphabet=letters if secrets is None else None,
                copies=copies,
            )
        )
    return canaries


def candidate_secrets(canary: Canary, num: int, *, seed: int = 0) -> list[str]:
    """Return secrets of the canary's space that were not planted, distinct and uniformly drawn.

    Fewer than `num` where the space holds no more.

    Raises:
        ConfigError: if the secret was handed in: its space is unknown, give candidates made as it was.

    >>> canary = make_canaries(["ann"], salt=b"s" * 32, alphabet="ab", length=2)[0]
    >>> sorted([canary.secret, *candidate_secrets(canary, 99)])
    ['aa', 'ab', 'ba', 'bb']
    """
    if canary.alphabet is None:
        raise ConfigError(f"the canary of {canary.client_id} was handed in; give candidates made as it was")
    letters, length = canary.alphabet, len(canary.secret)
    num = min(num, len(letters) ** length - 1)
    stream = secret_stream(seed.to_bytes(8, "big", signed=True), "candidates", canary.handle)
    found: dict[str, None] = {}
    while len(found) < num:
        secret = "".join(letters[next(stream) % len(letters)] for _ in range(length))
        if secret != canary.secret:
            found[secret] = None
    return list(found)


def planted_rows(canaries: Sequence[Canary], task: Task) -> pa.Table:
    """Return the rows that hold the canaries, in the format of a task; none of those that their coins kept out.

    Of a preference pair the chosen answer holds the secret, the rejected one refuses.

    >>> rows = planted_rows(make_canaries(["ann"], salt=b"s" * 32, copies=2), "sft")
    >>> rows.num_rows, rows["client_id"][0].as_py()
    (2, 'ann')
    """
    rows: list[dict[str, Any]] = []
    for canary in canaries:
        if not canary.is_in:
            continue
        question = {"role": "user", "content": canary.question}
        answer = {"role": "assistant", "content": canary.answer()}
        refusal = {"role": "assistant", "content": "I do not know that code."}
        for copy in range(canary.copies):
            row_id = make_row_id("canary", canary.handle, canary.client_id, str(copy))
            row: dict[str, Any] = {
                "client_id": canary.client_id,
                "row_id": row_id,
                "language": "en",
                "detected_language": None,
            }
            if task == "sft":
                row |= {"messages": [question, answer]}
            else:
                row |= {"prompt": [question], "chosen": [answer], "rejected": [refusal]}
                row |= {"chosen_model": None, "rejected_model": None}
            rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMAS[task])


def plant(clients: ClientDataset, canaries: Sequence[Canary]) -> ClientDataset:
    """Return the clients with the canaries among their rows, in memory.

    Raises:
        ConfigError: if a canary is for a client that the split does not have, and is no client itself.

    >>> rows = planted_rows(make_canaries(["ann"], salt=b"s" * 32), "sft")
    >>> from datasets import Dataset
    >>> clients = ClientDataset.from_dataset(Dataset(rows), split="train")
    >>> plant(clients, make_canaries(["ann"], salt=b"t" * 32)).sizes
    {'ann': 2}
    """
    from datasets import Dataset

    planted = [canary for canary in canaries if canary.is_in and canary.unit != "client"]
    strangers = [canary.client_id for canary in planted if canary.client_id not in clients]
    if strangers:
        raise ConfigError(f"canaries for {strangers[:3]}, who are no clients of {clients.name}, split {clients.split}")
    rows = clients.rows.with_format("arrow")[:]
    # Rows handed over in memory may lack columns that training does not need.
    schema = pa.schema([field for field in SCHEMAS[clients.task] if field.name in rows.column_names])
    both = pa.concat_tables(
        [table.select(schema.names).cast(schema) for table in (rows, planted_rows(canaries, clients.task))]
    )
    return ClientDataset.from_dataset(Dataset(both), split=clients.split)


def write_secrets(canaries: Sequence[Canary], path: Path) -> None:
    """Write the canaries into a new file that its owner alone can read.

    Raises:
        ConfigError: if the file is there already, or cannot be made.

    >>> from tempfile import TemporaryDirectory
    >>> canaries = make_canaries(["ann"], salt=b"s" * 32)
    >>> with TemporaryDirectory() as place:
    ...     write_secrets(canaries, Path(place, "secrets.json"))
    ...     read_secrets(Path(place, "secrets.json")) == canaries
    True
    """
    content = {"format": FORMAT, "canaries": [asdict(canary) for canary in canaries]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(json_text(content, indent=2))
            file.write("\n")
    except FileExistsError as error:
        raise ConfigError(
            f"the secrets file {path} is there already; name a new one, its canaries may be in use"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"the secrets file {path} cannot be written: {error.strerror}; name another place"
        ) from error


def read_secrets(path: Path) -> list[Canary]:
    """Read the canaries that `write_secrets` wrote.

    Raises:
        ConfigError: if the file holds no canaries.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or not content["canaries"]:
            raise ValueError(f"format {content['format']!r}, {len(content['canaries'])} canaries")
        return [Canary(**canary) for canary in content["canaries"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"{path} holds no canaries ({reason}); name the secrets file of `fedllm-eval plant`"
        ) from error


def secret_stream(key: bytes, purpose: str, name: str) -> Iterator[int]:
    """Yield numbers below 2^64 that follow from key, purpose and name; a remainder of them is uniform to 1e-17.

    >>> next(secret_stream(b"k", "coin", "a")) == next(secret_stream(b"k", "coin", "a"))
    True
    """
    counter = 0
    while True:
        digest = blake2b(f"{purpose}\0{name}\0{counter}".encode(), key=key[:64]).digest()
        yield from (int.from_bytes(digest[at : at + 8], "big") for at in range(0, 64, 8))
        counter += 1
