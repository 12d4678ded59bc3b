"""How a run's visits are private to rows: what a host is told, and what epsilon is accounted for. Imports no torch."""

from dataclasses import dataclass

__all__ = ["RowPrivacy"]


@dataclass(frozen=True, kw_only=True)
class RowPrivacy:
    """Clip, noise, batches, and how many steps a client may make."""

    clip: float
    """C: the largest norm of a row's gradient."""
    noise_multiplier: float
    """z: standard deviation of the noise on the sum of a step, in clips."""
    batch_rows: int
    """Rows of a step, on average; a client with fewer rows takes all of them in every step."""
    num_rounds: int
    """Visits that a client may have."""
    fits_per_visit: int = 1
    """How often a visit goes through its steps."""
    final_steps: int = 0
    """Steps after the last round, at most."""

    def rate(self, num_rows: int) -> float:
        """Return q, the probability with which each of a client's rows is in a step.

        >>> RowPrivacy(clip=1.0, noise_multiplier=1.0, batch_rows=4, num_rounds=9).rate(16)
        0.25
        """
        return min(1.0, self.batch_rows / num_rows)

    def most_steps(self, visit_steps: int, num_rounds: int | None = None) -> int:
        """Return how many steps a client may make.

        Args:
            visit_steps: of one fit.
            num_rounds: by default all, and the steps after the last.

        >>> made = RowPrivacy(clip=1.0, noise_multiplier=1.0, batch_rows=4, num_rounds=9, final_steps=5)
        >>> made.most_steps(10), made.most_steps(10, num_rounds=1)
        (95, 10)
        """
        rounds = self.num_rounds if num_rounds is None else num_rounds
        final = self.final_steps if rounds >= self.num_rounds else 0
        return rounds * visit_steps * self.fits_per_visit + final
