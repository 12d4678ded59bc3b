"""Ref-GPT4, the judged test of FedLLM-Bench (Ye et al. 2024, arXiv 2406.04845) for its three instruction corpora.

Every answer gets 1 to 10 from a judge. The switch `form` says what the judge is shown:

- `reference` (default): the question's reference, as the metric's name promises, in this project's words; any
  client repo's held-out rows have one. A question without a reference stops the run.
- `aya`: the same with the four rules of the benchmark's Fed-Aya prompt (language, request, meaning, writing); one
  score a language.
- `benchmark`: what the benchmark's code does for Fed-ChatbotIT and Fed-WildChat: MT-Bench's first-turn prompt under
  the benchmark's system message at temperature 0.2, and no reference, in spite of the name. Its test files hold none.

The benchmark answers at temperature 0.7 and leaves out what the judge did not rate; here that is counted.
"""

from typing import TYPE_CHECKING

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_eval.judging.prompts import Prompt, load_prompt
from fedllm_eval.judging.questions import Question
from fedllm_eval.judging.rating import (
    JUDGE_SWITCHES,
    Item,
    check_judge,
    check_switches,
    collect_answers,
    open_questions,
    rate,
)
from fedllm_eval.suites.suite import SuiteOptions, SuiteResult

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.served import ServedPolicy

__all__ = ["FORMS", "RefGPT4"]

BENCHMARK_SYSTEM = "You are a helpful assistant, that rates models by the quality of their answers."
"""FedLLM-Bench's system message: what its scores were made with."""
FORMS = {"reference": "reference-v1", "aya": "aya-reference-v1", "benchmark": "fastchat-single-v1"}
"""Form -> prompt."""
JUDGE_TEMPERATURES = {"reference": 0.0, "aya": 0.0, "benchmark": 0.2}


class RefGPT4:
    """One answer per question; scores `average` and one per language."""

    name = "ref_gpt4"
    summary = "questions of the instruction corpora, answers rated 1 to 10 by a judge who sees a reference"
    needs = ("judge", "items")

    def run(self, policy: "Policy | ServedPolicy | None", options: SuiteOptions) -> SuiteResult:
        """Have the policy answer and the judge rate.

        Switches: `form`, `temperature` (of the answers, 0.7), `answers` (a file of FastChat's format) and
        `judge_max_tokens` (2048).

        Raises:
            ConfigError: if judge, questions or a reference are missing, or the form is unknown; before anything is
                answered.
            JudgeError: if the judge stops.
        """
        judge = check_judge(self.name, options)
        switches = check_switches(
            self.name, options, {"form": "reference", "temperature": 0.7, "answers": None, **JUDGE_SWITCHES}
        )
        form = switches["form"]
        if form not in FORMS:
            hint = did_you_mean(str(form), FORMS)
            raise ConfigError(f"suite {self.name} has no form {form!r}; {hint}its forms are {', '.join(FORMS)}")
        questions = open_questions(self.name, options)
        long = [question.question_id for question in questions if len(question.turns) != 1]
        if long:
            raise ConfigError(
                f"question {long[0]!r} in {options.items} has more than one turn; give single-turn questions"
            )
        bare = [question.question_id for question in questions if not question.references]
        if bare and form != "benchmark":
            raise ConfigError(
                f"{len(bare)} of {len(questions)} questions in {options.items} have no reference (first: {bare[0]}); "
                "give rows with a reference, or ask for the benchmark's own form by form=benchmark"
            )
        temperature = float(switches["temperature"])
        answers = collect_answers(policy, questions, options, [temperature] * len(questions), switches["answers"])
        prompt = load_prompt(FORMS[form])
        if form == "benchmark":
            prompt = prompt.under(BENCHMARK_SYSTEM, "fedllm-bench-single-v1")
        items = [
            _item(prompt, form, question, turns[0], int(switches["judge_max_tokens"]))
            for question, turns in zip(questions, answers, strict=True)
        ]
        settings = {
            "form": form,
            "answers": "given" if switches["answers"] is not None else "generated",
            "temperature": temperature,
            "max_new_tokens": options.max_new_tokens,
            "seed": options.seed,
        }
        return rate(self.name, items, judge, options, settings)


def _item(prompt: Prompt, form: str, question: Question, answer: str, max_tokens: int) -> Item:
    fields = {"question": question.as_text(), "answer": answer}
    if form != "benchmark":
        fields["reference"] = question.references[0]
    return Item(
        question=question,
        turn=1,
        answer=answer,
        request=prompt.request(fields, temperature=JUDGE_TEMPERATURES[form], max_tokens=max_tokens),
        groups=() if question.language is None else (question.language,),
    )
