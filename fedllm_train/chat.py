"""A conversation with what a run started from and what it ended with, side by side, for looking at answers by hand.

Every speaker sees the same questions and its own earlier answers, so after the first turn their conversations differ.
Answers come from `fedllm_eval.policy.generation.generate`, as in all scoring, with the tokenizer and the chat template
that the run kept. Torch is imported when the models are loaded; that a name is no run or a client has no adapter is
said before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.did_you_mean import alike
from fedllm_data.errors import ConfigError
from fedllm_eval.policy.locate import Location, locate
from fedllm_eval.policy.run_folder import personal_folders
from fedllm_train.strategies import STRATEGIES

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["Chat", "Said", "Speaker", "check_text", "load_speakers", "personal_folder"]

Message = dict[str, str]


@dataclass
class Speaker:
    """One policy that answers, and what was said between it and the person."""

    name: str
    """What stands before its answers."""
    policy: "Policy"
    turns: list[Message] = field(default_factory=list)
    """Questions and its own answers, without the system message."""


@dataclass(frozen=True)
class Said:
    """One answer of one speaker."""

    speaker: str
    text: str
    num_tokens: int
    finished: bool
    """Whether the speaker ended it itself, rather than the limit of tokens."""


@dataclass
class Chat:
    """A conversation with several speakers at once."""

    speakers: Sequence[Speaker]
    system: str | None = None
    """Put before every conversation; None leaves the chat template's own, if it has one."""
    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 takes the likeliest token; above 0 answers are drawn, by the seed."""
    top_p: float = 1.0
    seed: int = 0

    def ask(self, question: str) -> list[Said]:
        """Put a question to all speakers and return their answers, in the speakers' order.

        If one of them cannot answer, no conversation goes on.

        Raises:
            ConfigError: if the question is empty, a conversation has become too long for the model, or a setting makes
                no sense.
            ChatTemplateError: if the template cannot render the conversation, such as a system message.
        """
        from fedllm_eval.policy.generation import generate

        if not question.strip():
            raise ConfigError("the question is empty; type one")
        check_text(question, "the question")
        check_text(self.system or "", "the system message")
        asked: Message = {"role": "user", "content": question}
        opening: list[Message] = [] if self.system is None else [{"role": "system", "content": self.system}]
        said = []
        for speaker in self.speakers:
            (answer,) = generate(
                speaker.policy,
                [[*opening, *speaker.turns, asked]],
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                seed=self.seed,
            )
            said.append(Said(speaker.name, answer.text, answer.num_tokens, answer.finished))
        for speaker, one in zip(self.speakers, said, strict=True):
            speaker.turns += [asked, {"role": "assistant", "content": one.text}]
        return said

    def reset(self) -> None:
        """Forget what was said; the system message stays."""
        for speaker in self.speakers:
            speaker.turns.clear()


def check_text(text: str, what: str) -> None:
    r"""Refuse text that holds bytes of another encoding, which Python hands on as halves of characters.

    Raises:
        ConfigError: if it is no whole Unicode text.

    >>> check_text("caf\udce9", "the question")
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: the question is not UTF-8 text (at 'caf\udce9'); write it in UTF-8
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 10) : error.end]
        raise ConfigError(f"{what} is not UTF-8 text (at {near!r}); write it in UTF-8") from error


def personal_folder(location: Location, client_id: str) -> Path:
    """Return the folder of a client's own adapter in a run.

    Raises:
        ConfigError: if the run made no adapters of clients, or none of this client's.
    """
    folders = personal_folders(location.folder) if location.kind == "run" else {}
    if not folders:
        makers = ", ".join(name for name, strategy in STRATEGIES.items() if strategy.traits.personal)
        raise ConfigError(
            f"{location.name!r} holds no adapters of single clients; leave --client out, or name a finished run of a "
            f"method that makes them ({makers})"
        )
    if client_id not in folders:
        near = alike(client_id, folders, at_most=3) or list(folders)[:3]
        raise ConfigError(
            f"client {client_id!r} has no adapter of its own in {location.name!r}, which has those of {len(folders)} "
            f"clients, such as {', '.join(near)}; name one of them"
        )
    return folders[client_id]


def load_speakers(
    run: str | Path, client_id: str | None = None, revision: str | None = None, *, with_base: bool = True
) -> list[Speaker]:
    """Load what a run started from, what it ended with, and a client's own adapter; they share the base's weights.

    Args:
        run: a run folder, an adapter or a plain model; each a local folder or a Hub id. A plain model is the only
            speaker.
        client_id: the client whose own adapter speaks, too.
        revision: branch, tag or commit of a Hub id.
        with_base: whether what the run started from speaks, too.

    Raises:
        ConfigError: if there is no such run or client, or it cannot be loaded.
        HubError: if a Hub id cannot be fetched.

    >>> load_speakers("no/such/run")
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: 'no/such/run' is neither a folder here nor a Hub id; check the path
    """
    location = locate(run, revision)
    own = None if client_id is None else personal_folder(location, client_id)

    from fedllm_eval.policy.policies import load_policy, load_reference

    policy = load_policy(run, revision)
    if location.kind == "model":
        return [Speaker("model", policy)]
    speakers = []
    if with_base:
        reference = load_reference(policy)
        speakers.append(Speaker("base" if reference.adapter is None else "start", reference))
    speakers.append(Speaker("model" if location.model is not None else "adapter", policy))
    if own is not None:
        speakers.append(Speaker(f"client {client_id}", _of_client(policy, own)))
    return speakers


def _of_client(policy: "Policy", folder: Path) -> Any:
    """A client's own adapter on the run's base, with the run's tokenizer; or its own whole model."""
    from fedllm_eval.policy.policies import Policy, load_policy

    if (folder / "adapter_config.json").is_file():
        policy.backbone.load_adapter(folder)
        return Policy(policy.name, policy.backbone, policy.tokenizer, folder, policy.location)
    return load_policy(folder)
