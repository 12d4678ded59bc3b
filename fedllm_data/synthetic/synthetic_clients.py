"""What makes one generated client differ from another, and how much: one knob per axis.

Every knob but the size is an intraclass correlation rho in [0, 1]. A client's mixture over languages or tasks is
Dirichlet with mean m and concentration (1 - rho) / rho, its probability of a long text, of a poor answer or of
preferring the thorough answer is Beta with the same concentration; so rho is the correlation of two rows of one
client, the Dirichlet-multinomial's (Mosimann 1962). At 0 all clients have the mixture m, at 1 each has one category
only: one language, one task, always brief or always thorough (two opposed camps). The mixture over all rows is m
whatever the knob, so turning one changes nothing in what the others draw. Sizes are log-normal with the mean kept.

What a knob moves in a report is its own axis, and the axes that see the same thing (tests/data/heterogeneity/
test_knobs.py): the shipped encoder tells languages apart before topics, so that `language_skew` moves instruction and
embedding, and within the rows of one language it does not; a long opening is words, so `length_skew` moves these two a
little; `topic_skew` moves both, being what they are about; and whoever prefers thorough answers has long chosen ones,
so `preference_skew` moves the length of preference rows. All other axes stay inside their null.

Each draw has a stream of its own, from (seed, purpose, client): adding a client or turning a knob changes no other
draw. Imports numpy and the project's errors only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.synthetic.phrases import TASKS
from fedllm_data.synthetic.vocabulary import LANGUAGES

__all__ = ["LANGUAGE_MIX", "OPTIONS", "ClientTruth", "SynthOptions", "client_truth", "parse_options", "stream"]

LANGUAGE_MIX = {"en": 0.26, "de": 0.14, "es": 0.14, "fr": 0.12, "ru": 0.12, "zh": 0.12, "ar": 0.10}
"""Share of each language among all rows."""
LONG_FRACTION = 0.5
POOR_FRACTION = 0.2
"""Share of poor answers among all: evasive ones and wrong ones."""
THOROUGH_FRACTION = 0.65
"""Share of style pairs, over all clients, in which the thorough answer is the chosen one."""

OPTIONS = {
    "num_clients": "number of clients (default 300)",
    "mean_rows": "mean number of rows per client, in each of the two corpora (default 20)",
    "size_skew": "standard deviation of the log of a client's number of rows; 0 = equal sizes (default 0.8)",
    "language_skew": "intraclass correlation of the language, 0 = one common mix, 1 = one each (default 0.9)",
    "length_skew": "intraclass correlation of long against short texts, 0 to 1 (default 0.3)",
    "quality_skew": "intraclass correlation of poor against good answers, 0 to 1 (default 0.2)",
    "topic_skew": "intraclass correlation of the task asked for, 0 to 1 (default 0.2)",
    "preference_skew": "intraclass correlation of brief against thorough chosen, 1 = opposed camps (default 0.7)",
    "public_rows": "number of rows of the public split that belong to no client (default 6000)",
}
"""Every option with one sentence, in the form `Source.options` takes."""


@dataclass(frozen=True, kw_only=True)
class SynthOptions:
    """The options of `OPTIONS`, parsed; the defaults make a lively mixture."""

    num_clients: int = 300
    mean_rows: int = 20
    size_skew: float = 0.8
    language_skew: float = 0.9
    length_skew: float = 0.3
    quality_skew: float = 0.2
    topic_skew: float = 0.2
    preference_skew: float = 0.7
    public_rows: int = 6_000


@dataclass(frozen=True, kw_only=True)
class ClientTruth:
    """What a client's rows are drawn from."""

    number: int
    """Which client of the generator this is: a name for its random streams, never its id."""
    client_id: str
    num_rows: int
    language_probs: dict[str, float]
    task_probs: dict[str, float]
    long_probability: float
    """Probability of a long opening in a prompt, and of a thorough answer where the row is not a style pair."""
    poor_probability: float
    """Probability of a poor answer, evasive or wrong; a third of it is the probability of choosing the poor answer
    of a pair."""
    thorough_probability: float
    """Probability of choosing the thorough answer in a style pair."""


def parse_options(options: Mapping[str, str]) -> SynthOptions:
    """Return the options as numbers.

    Args:
        options: KEY=VALUE pairs as the command line gives them, all text.

    Raises:
        ConfigError: if a key is unknown or a value is no number in its range.

    >>> parse_options({"num_clients": "12", "topic_skew": "0"}).num_clients
    12
    """
    numbers: dict[str, int | float] = {}
    for key, text in options.items():
        if key not in _RANGES:
            hint = did_you_mean(key, _RANGES)
            raise ConfigError(f"--set {key}={text}: fed-synth has no such option; {hint}it has {', '.join(_RANGES)}")
        low, high = _RANGES[key]
        is_whole = isinstance(getattr(SynthOptions, key), int)
        try:
            number = int(text) if is_whole else float(text)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            what = "a whole number" if is_whole else "a number"
            raise ConfigError(f"--set {key}={text}: fed-synth takes {what} from {low} to {high} here")
        numbers[key] = number
    return SynthOptions(**numbers)  # type: ignore[arg-type]  # whole where the field is


_RANGES: dict[str, tuple[int, int]] = {
    "num_clients": (1, 1_000_000),
    "mean_rows": (1, 100_000),
    "size_skew": (0, 3),
    "language_skew": (0, 1),
    "length_skew": (0, 1),
    "quality_skew": (0, 1),
    "topic_skew": (0, 1),
    "preference_skew": (0, 1),
    "public_rows": (0, 1_000_000),
}


def stream(seed: int, purpose: str, client_number: int = 0) -> np.random.Generator:
    """Return the random stream of one purpose and client.

    >>> int(stream(0, "size", 3).integers(100)) == int(stream(0, "size", 3).integers(100))
    True
    """
    purpose_entropy = int.from_bytes(blake2b(purpose.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(np.random.SeedSequence([seed, purpose_entropy, client_number]))


def client_truth(seed: int, options: SynthOptions | None = None) -> Iterator[ClientTruth]:
    """Yield what every client's rows are drawn from; the same in both corpora.

    Args:
        seed: non-negative run seed.
        options: the knobs; None takes the defaults.

    >>> first, second = client_truth(0, SynthOptions(num_clients=2, language_skew=0.0))
    >>> first.language_probs == second.language_probs == LANGUAGE_MIX
    True
    """
    options = options or SynthOptions()
    for number in range(options.num_clients):
        yield _truth(seed, number, options)


def _truth(seed: int, number: int, options: SynthOptions) -> ClientTruth:
    def mixture(purpose: str, mean: Sequence[float], rho: float) -> list[float]:
        return _draw_mixture(stream(seed, purpose, number), np.asarray(mean), rho)

    def probability(purpose: str, mean: float, rho: float) -> float:
        return mixture(purpose, [mean, 1 - mean], rho)[0]

    sigma = options.size_skew
    size = options.mean_rows * np.exp(sigma * stream(seed, "size", number).standard_normal() - sigma**2 / 2)
    languages = mixture("language", list(LANGUAGE_MIX.values()), options.language_skew)
    tasks = mixture("topic", [1 / len(TASKS)] * len(TASKS), options.topic_skew)
    return ClientTruth(
        number=number,
        client_id=blake2b(f"fed-synth/{seed}/{number}".encode(), digest_size=8, salt=b"client-id").hexdigest(),
        num_rows=max(1, round(float(size))),
        language_probs=dict(zip(LANGUAGES, languages, strict=True)),
        task_probs=dict(zip(TASKS, tasks, strict=True)),
        long_probability=probability("length", LONG_FRACTION, options.length_skew),
        poor_probability=probability("quality", POOR_FRACTION, options.quality_skew),
        thorough_probability=probability("preference", THOROUGH_FRACTION, options.preference_skew),
    )


def _draw_mixture(rng: np.random.Generator, mean: np.ndarray, rho: float) -> list[float]:
    """Draw from Dirichlet(mean * (1 - rho) / rho), with its limits at rho = 0 and rho = 1."""
    if rho == 0:
        return [float(p) for p in mean]
    if rho == 1:
        return [float(p) for p in rng.multinomial(1, mean)]
    return [float(p) for p in rng.dirichlet(mean * (1 - rho) / rho)]
