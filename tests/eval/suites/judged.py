"""Hand-written questions in the benchmarks' schemas, and a judge that is a function, for the judged suites."""

import json
from dataclasses import dataclass, field

from fedllm_eval.judging import Judgment
from fedllm_eval.suites import SuiteOptions

MT_QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Write a line about rain.", "Now without the word rain."]},
    {"question_id": 2, "category": "math", "turns": ["What is 6 times 7?", "And half of that?"]},
    {"question_id": 3, "category": "stem", "turns": ["Why is the sky blue?", "And why red at dusk?"]},
]
MT_REFERENCES = [{"question_id": 2, "choices": [{"index": 0, "turns": ["It is 42.", "It is 21."]}]}]
MT_ANSWERS = [
    {"question_id": 1, "choices": [{"turns": ["Rain falls {softly}.", "Water falls softly."]}]},
    {"question_id": 2, "choices": [{"turns": ["42", "20"]}]},
    {"question_id": 3, "choices": [{"turns": ["Scattering.", "The long way through air."]}]},
]
VICUNA_QUESTIONS = [
    {"question_id": 1, "category": "generic", "turns": ["How do I sleep better?"]},
    {"question_id": 2, "category": "math", "turns": ["What is 9 times 9?"], "reference": ["81"]},
]
AYA_QUESTIONS = {
    "English": [{"instruction": "What is the capital of Italy?", "reference": "It is Rome."}],
    "French": [
        {"instruction": "Quelle est la capitale de la France ?", "reference": "C'est Paris."},
        {"instruction": "Combien font deux et deux ?", "reference": "Quatre."},
    ],
}
CHAT_QUESTIONS = [{"instruction": "Tell me a joke.", "language": "English"}, {"instruction": "Name a fish."}]


@dataclass
class FunctionJudge:
    """A backend that answers with `words(request)` and remembers what it was asked."""

    words: object
    model: str = "function"
    record_file: None = None
    asked: list = field(default_factory=list)

    def identity(self):
        return self.model

    def describe(self):
        return {"kind": "function", "model": self.model}

    def usage(self):
        return {}

    def ask(self, requests, finish):
        for at, request in enumerate(requests):
            self.asked.append(request)
            said = self.words(request)
            finish(at, said if isinstance(said, Judgment) else Judgment(text=said, model=f"{self.model}-1"))


def write_jsonl(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def write_answers(path, answers):
    return write_jsonl(path, [{"question_id": name, "choices": [{"turns": turns}]} for name, turns in answers.items()])


def options_in(folder, **settings):
    folder.mkdir(exist_ok=True)
    return SuiteOptions(folder=folder, **settings)


def scores(result):
    return {score.name: score.value for score in result.scores}
