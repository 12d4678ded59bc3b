"""The day that a run's chat template takes for today, if it asks: the day the run began, also after a resume.

Templates such as Llama 3.1's and gpt-oss's write the date into every conversation. A run that goes on a day later
would train on other tokens than the one that was never stopped, and be scored on others again; so `config.yaml` keeps
the day, under `template_date`, and all that render for the run use it (as does `fedllm_eval.policy.policies`).
"""

from datetime import date
from pathlib import Path
from typing import Any

from fedllm_data.errors import ResumeError
from fedllm_eval.policy.rendering import fix_date, writes_date
from fedllm_eval.policy.run_folder import CONFIG_FILE, read_config

__all__ = ["fix_template_day", "template_day"]


def template_day(tokenizer: Any) -> dict[str, str]:
    """Return what `config.yaml` says about the day a run begins: nothing if the template does not ask for it."""
    return {"template_date": date.today().isoformat()} if writes_date(tokenizer) else {}


def fix_template_day(tokenizer: Any, run: Path) -> str | None:
    """Let the run's tokenizer render for the day that the run's `config.yaml` names, and return that day.

    Raises:
        ResumeError: if what it names is no day.
    """
    if not writes_date(tokenizer) or not (run / CONFIG_FILE).exists():
        return None
    recorded = read_config(run).get("template_date")
    try:
        fix_date(tokenizer, date.fromisoformat(str(recorded)))
        return str(recorded)
    except ValueError as error:
        raise ResumeError(
            f"template_date in {run / CONFIG_FILE} is {recorded!r}, and the chat template writes the date; name the "
            "day the run began, such as 2026-01-31"
        ) from error
