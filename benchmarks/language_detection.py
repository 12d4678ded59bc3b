"""How often language detectors are right on texts of known language, and what a thousand texts cost.

Every detector sees what a build shows it (`prose`: code and addresses left out, 600 characters) and answers with a
code or None. Per set: the fraction of texts that it answers for, how many of its answers are right
(`languages_agree`), and how many of all texts it labels rightly. Some texts of a set are in another language than its
name says, or in none, which costs every detector alike. CPU seconds are the best of three passes over the set.

Run:  python benchmarks/language_detection.py DATA          (writes results/language_detection.json)

`DATA` is a folder with `sft/tatoeba`, `sft/stackexchange`, `sft/oasst1`, `pref/wmt_mqm` and
`eval/fedllm_bench/aya_evaluation`; sets whose files are missing are left out and named. py3langid is measured beside
the detector of the builds where it is installed.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from machine import write_result

from fedllm_data.pipeline.language_detection import DETECTOR, detect_languages, language_code, languages_agree, prose

Detector = Callable[[list[str]], list[str | None]]
MOST_TEXTS = 4_000
"""Of each set, spread evenly over it."""
AYA = {
    "Standard_Arabic": "ar",
    "English": "en",
    "French": "fr",
    "Portuguese": "pt",
    "Russian": "ru",
    "Simplified_Chinese": "zh",
    "Spanish": "es",
    "Telugu": "te",
}


def main() -> None:
    """Measure every detector that is installed on every set that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the corpora")
    parser.add_argument("--result", default="language_detection", help='name of the result file; "" writes none')
    arguments = parser.parse_args()
    detectors = {DETECTOR: detect_languages, **py3langid_detector()}
    document: dict[str, Any] = {"detectors": list(detectors), "sets": {}, "missing": []}
    for name, (code, read) in text_sets(arguments.data).items():
        try:
            texts = spread(list(read()))
        except OSError:
            document["missing"].append(name)
            continue
        answers = {detector: detect(texts) for detector, detect in detectors.items()}
        document["sets"][name] = {
            "language": code,
            "num_texts": len(texts),
            "median_chars": sorted(map(len, texts))[len(texts) // 2],
            "detectors": {
                detector: {**accuracy(answers[detector], code), "cpu_seconds_per_1000": cost(detect, texts)}
                for detector, detect in detectors.items()
            },
            "moved": moved(*answers.values()) if len(answers) == 2 else {},
        }
        print(name, json.dumps(document["sets"][name], ensure_ascii=False), flush=True)
    if arguments.result:
        print(f"written: {write_result(arguments.result, document)}")


def accuracy(answers: list[str | None], code: str) -> dict[str, float]:
    """Fractions answered, right among the answered, and right among all."""
    given = [answer for answer in answers if answer is not None]
    num_right = sum(languages_agree(answer, code) for answer in given)
    return {
        "answered_fraction": round(len(given) / len(answers), 4),
        "right_of_answered_fraction": round(num_right / max(1, len(given)), 4),
        "right_fraction": round(num_right / len(answers), 4),
    }


def cost(detect: Detector, texts: list[str]) -> float:
    """CPU seconds for a thousand texts of a set, the best of three passes."""
    passes = []
    for _ in range(3):
        start = time.process_time()
        detect(texts)
        passes.append(time.process_time() - start)
    return round(1000 * min(passes) / len(texts), 4)


def moved(now: list[str | None], before: list[str | None]) -> dict[str, int]:
    """The labels that differ between two detectors, "before -> now", the most frequent first."""
    pairs = zip(before, now, strict=True)
    return dict(Counter(f"{one or 'und'} -> {other or 'und'}" for one, other in pairs if one != other).most_common(12))


def py3langid_detector() -> dict[str, Detector]:
    """The detector of earlier builds, with its threshold, where it is installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return {}
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def detect(texts: list[str]) -> list[str | None]:
        answers: list[str | None] = []
        for text in map(prose, texts):
            label, confidence = identifier.classify(text) if text else ("und", 0.0)
            code = language_code(label)
            answers.append(code if confidence >= 0.5 and code != "und" else None)
        return answers

    return {"py3langid, confidence >= 0.5": detect}


def spread(texts: list[str]) -> list[str]:
    """At most `MOST_TEXTS`, evenly spread."""
    return texts[:: max(1, -(-len(texts) // MOST_TEXTS))]


def text_sets(data: Path) -> dict[str, tuple[str, Callable[[], Iterator[str]]]]:
    """The sets by name: the code of their language, and how to read them."""
    tatoeba, sites = data / "sft/tatoeba", data / "sft/stackexchange"
    sets: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
        "Tatoeba Arabic": ("ar", lambda: column(tatoeba / "ara.txt", 1)),
        "Tatoeba Chinese": ("zh", lambda: column(tatoeba / "cmn.txt", 1)),
        "Tatoeba Korean": ("ko", lambda: column(tatoeba / "kor.txt", 1)),
        "Tatoeba English": ("en", lambda: column(tatoeba / "cmn.txt", 0)),
        "OASST1 English": ("en", lambda: oasst(data / "sft/oasst1/en-validation.jsonl")),
        "MQM TED Chinese": ("zh", lambda: column(data / "pref/wmt_mqm/mqm_ted_zhen.tsv", 5)),
        "MQM TED German": ("de", lambda: column(data / "pref/wmt_mqm/mqm_ted_ende.tsv", 6)),
    }
    for site, code in (("beer", "en"), ("matheducators", "en"), ("italian", "it"), ("french.meta", "fr")):
        folder = sites / f"{site}.stackexchange.com"
        sets[f"Stack Exchange {site}"] = (code, lambda folder=folder: posts(folder))  # type: ignore[misc]
    for language, code in AYA.items():
        sets[f"Aya {language}"] = (code, lambda language=language: aya(data, language))  # type: ignore[misc]
    return sets


def column(path: Path, index: int) -> Iterator[str]:
    """Different texts of a column of a tab-separated file, without the marks of errors."""
    with path.open(encoding="utf-8-sig") as file:
        cells = (line.rstrip("\n").split("\t") for line in file)
        texts = dict.fromkeys(re.sub(r"</?v>", "", cell[index]) for cell in cells if len(cell) > index)
    yield from (text for text in texts if text not in ("source", "target"))


def oasst(path: Path) -> Iterator[str]:
    """The messages of an OASST file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def posts(folder: Path) -> Iterator[str]:
    """The texts of a Stack Exchange dump's questions and answers, without markup."""
    import xml.etree.ElementTree as ElementTree

    for _, element in ElementTree.iterparse(folder / "Posts.xml"):
        if element.get("PostTypeId") in ("1", "2"):
            yield BeautifulSoup(element.get("Body", ""), "html.parser").get_text()


def aya(data: Path, language: str) -> Iterator[str]:
    """The instructions of FedLLM-Bench's Aya evaluation in a language."""
    path = data / "eval/fedllm_bench/aya_evaluation/test_datasets.json"
    for row in json.loads(path.read_text(encoding="utf-8")).get(language, []):
        yield row["instruction"]


if __name__ == "__main__":
    main()
