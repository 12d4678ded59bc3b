"""How the noise of a run's rounds is related, with how often a client may come: what one guarantee is calculated from.

Symbols as in `noise_forms.py`. Imports no torch.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedllm_train.privacy.matrix_file import read_matrix
from fedllm_train.privacy.noise_forms import NoiseForm, Tree, sensitivity_of
from fedllm_train.privacy.sensitivity import most_rounds
from fedllm_train.privacy.turns import TurnRule

__all__ = ["RelatedNoise", "related_noise"]


@dataclass(frozen=True, kw_only=True)
class RelatedNoise:
    """A form of C and a rule of turns."""

    form: NoiseForm
    rule: TurnRule

    def sensitivity(self, num_rounds: int) -> float:
        """Return the most that a client moves what the first rounds' noise protects, in clips.

        >>> made = related_noise(None, num_rounds=1000, min_separation=1000, max_participations=None)
        >>> round(made.sensitivity(1000) ** 2, 6)
        10.0
        """
        return sensitivity_of(self.form, num_rounds, self.rule.min_separation, self.rule.max_participations)

    def noise_on_rounds(self, num_rounds: int) -> float:
        """Return the root mean square of the rounds' noise, in units of z times the clip."""
        return float((self.form.round_deviations(num_rounds) ** 2).mean() ** 0.5)

    def noise_on_sum(self, num_rounds: int) -> float:
        """Return the deviation of the noise on the sum of all rounds; the root of their number if independent."""
        return float(self.form.sum_deviations(num_rounds)[-1])

    def how_often(self) -> str:
        """Return how often a client may come, as the begin of a sentence.

        >>> related_noise(None, num_rounds=10, min_separation=4, max_participations=None).how_often()
        'A client gives at most one update in 4 rounds in a row and 3 in the run'
        """
        apart = self.rule.min_separation
        row = "to a round" if apart == 1 else f"in {apart} rounds in a row"
        return f"A client gives at most one update {row} and {self.rule.max_participations} in the run"

    def as_record(self, num_rounds: int) -> dict[str, Any]:
        """Return it JSON-ready; the digest changes with any coefficient."""
        return {
            "form": self.form.name,
            "sha256": sha256(repr(self.form).encode()).hexdigest(),
            "min_separation": self.rule.min_separation,
            "max_participations": self.rule.max_participations,
            "sensitivity": self.sensitivity(num_rounds),
            "noise_on_sum": self.noise_on_sum(num_rounds),
        }


def related_noise(
    matrix: Path | None, *, num_rounds: int, min_separation: int | None, max_participations: int | None
) -> RelatedNoise:
    """Return what settings ask for.

    Args:
        matrix: the file of coefficients; None for the tree.
        num_rounds: rounds of the run.
        min_separation: rounds from a client's update to its next; 1 where not given.
        max_participations: updates of a client in the run; by default as many as fit.

    Raises:
        ConfigError: if the file cannot be used.
    """
    apart = min(min_separation or 1, num_rounds)
    most = most_rounds(num_rounds, apart, num_rounds if max_participations is None else max_participations)
    form: NoiseForm = Tree() if matrix is None else read_matrix(matrix, num_rounds)
    return RelatedNoise(form=form, rule=TurnRule(min_separation=apart, max_participations=most))
