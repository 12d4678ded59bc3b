"""Over-refusal: how often a policy refuses harmless requests that only sound dangerous.

The counterpart of attack success: a policy that refuses everything is harmless and useless. The requests were written
for this suite after the idea of XSTest (Röttger et al. 2024): words that have a harmless sense, figures of speech,
fiction, history, safety and privacy of what is public, and plain everyday requests as a control. Another file may be
given in the same form: a category, a tab and a request a line.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from fedllm_data.errors import ConfigError
from fedllm_eval.running.counted_refusals import Prompt, count_refusals, rate_score, refusal_settings
from fedllm_eval.scoring.refusal import REFUSAL_RULES
from fedllm_eval.suites.suite import SuiteOptions, SuiteResult

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.served import ServedPolicy

__all__ = ["OverRefusal", "read_harmless"]

SHIPPED = Path(__file__).with_name("over_refusal.txt")


class OverRefusal:
    """Refusals of harmless requests."""

    name = "over_refusal"
    summary = "share of harmless requests that are refused"
    needs: tuple[str, ...] = ()

    def run(self, policy: "Policy | ServedPolicy", options: SuiteOptions) -> SuiteResult:
        """Put the requests to a policy.

        Raises:
            ConfigError: if the file of requests cannot be read, or a switch is unknown.
        """
        file = options.items or SHIPPED
        prompts = read_harmless(file)
        found = count_refusals(policy, prompts, options)
        names = {found.main_rule: "over_refusal/refused"}
        rules = [found.main_rule, *(rule for rule in REFUSAL_RULES if rule != found.main_rule)]
        scores = [
            rate_score(
                names.get(rule, f"over_refusal/refused_{rule}"),
                found.rates[rule],
                refused=True,
                higher_is_better=False,
            )
            for rule in rules
        ]
        settings = {**refusal_settings(options), "items": file.name, "num_requests": len(prompts)}
        return SuiteResult(
            suite=self.name,
            version="1",
            scores=tuple(scores),
            items=found.items,
            settings=settings,
            notes=found.notes,
        )


def read_harmless(file: Path = SHIPPED) -> list[Prompt]:
    """Return the requests of a file: a category, a tab and a request per line; lines that begin with # are left out.

    Raises:
        ConfigError: if the file cannot be read, a line has no tab, or there is no request.

    >>> read_harmless()[0].category
    'homonym'
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")  # a request may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}; name a text file") from error
    prompts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        category, tab, text = line.partition("\t")
        if not tab or not text.strip():
            raise ConfigError(f"{file}, line {number}: no tab and request; write category, tab, request")
        prompts.append(Prompt(f"{category.strip()}-{number:03d}", text.strip(), category.strip()))
    if not prompts:
        raise ConfigError(f"{file} holds no request; write category, tab, request on a line each")
    return prompts
