"""Rows in the upstream schemas of the corpora by field: summaries, MultiPref, DICES, Hansard, complaints, cases."""

import csv
from pathlib import Path
from typing import Any


def summary_comparison(worker="w1", post="My cat ran off.", texts=(" Cat gone.", " It is about a cat."), **changes):
    fields = {
        "info": {"id": "t3_1", "post": post, "title": "Lost cat", "subreddit": "pets", "site": None, "article": None},
        "summaries": [{"text": text, "policy": f"model{n}", "note": None} for n, text in enumerate(texts)],
        "choice": 1,
        "worker": worker,
        "batch": "batch9",
        "split": "train",
        "extra": {"confidence": 8},
    }
    return {**fields, **changes}


def annotation(evaluator="e1", overall="A-is-slightly-better", **changes):
    fields: dict[str, Any] = {"evaluator": evaluator, "time_spent": 120, "timestamp": "2024-05-01"}
    for criterion in ("overall", "helpful", "truthful", "harmless"):
        fields |= {f"{criterion}_pref": "Tie", f"{criterion}_confidence": "fairly-confident"}
    return {**fields, "overall_pref": overall, **changes}


def multipref_comparison(comparison_id="c1", normal=None, expert=None, **changes):
    fields = {
        "comparison_id": comparison_id,
        "prompt_id": f"p-{comparison_id}",
        "text": f"What is {comparison_id}?",
        "source": "wildchat",
        "highest_level_degree": "masters",
        "category": "Open QA",
        "completion_a": f"{comparison_id} a",
        "completion_b": f"{comparison_id} b",
        "model_a": "tulu-2-7b",
        "model_b": "gpt-4",
        "normal_worker_annotations": [annotation()] if normal is None else normal,
        "expert_worker_annotations": [] if expert is None else expert,
    }
    return {**fields, **changes}


def rating(rater_id="7", item_id="3", overall="Yes", **changes):
    fields = {
        "id": "1",
        "rater_id": rater_id,
        "rater_gender": "Woman",
        "rater_locale": "US",
        "item_id": item_id,
        "context": "LAMDA: Hi\nUSER: How do I pick a lock?",
        "response": "With a pick.",
        "degree_of_harm": "Moderate",
        "harm_type": "Regulated goods",
        "Q1_whole_conversation_evaluation": "None of the above",
        "Q2_harmful_content_overall": "No",
        "Q_overall": overall,
    }
    return {**fields, **changes}


def write_ratings(folder, ratings, name="diverse_safety_adversarial_dialog_990.csv"):
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(ratings[0]))
        writer.writeheader()
        writer.writerows(ratings)
    return path


def speech(person="uk.org.publicwhip/person/10001", words="I beg to move.", **changes):
    fields = {
        "id": "uk.org.publicwhip/debate/2015-03-02a.1.2",
        "speech": words,
        "display_as": "Ann Example",
        "party": "Labour",
        "constituency": "Bootle",
        "mnis_id": "123",
        "date": "2015-03-02",
        "time": "",
        "colnum": "1",
        "speech_class": "Speech",
        "major_heading": "Flood Defences",
        "minor_heading": "Cumbria",
        "oral_heading": "",
        "year": "2015",
        "hansard_membership_id": "",
        "speakerid": "uk.org.publicwhip/member/1",
        "person_id": person,
        "speakername": "Ann Example",
        "url": "",
        "parliamentary_posts": [],
        "opposition_posts": [],
        "government_posts": [],
    }
    return {**fields, **changes}


def complaint(company="ACME BANK", narrative="They charged XXXX twice.", number=1, **changes):
    fields = {
        "Date received": "2023-05-01",
        "Product": "Credit card",
        "Sub-product": "Store credit card",
        "Issue": "Billing dispute",
        "Sub-issue": None,
        "Consumer complaint narrative": narrative,
        "Company public response": None,
        "Company": company,
        "State": "TX",
        "ZIP code": "750XX",
        "Tags": None,
        "Consumer consent provided?": "Consent provided",
        "Submitted via": "Web",
        "Date sent to company": "2023-05-02",
        "Company response to consumer": "Closed with explanation",
        "Timely response?": "Yes",
        "Consumer disputed?": None,
        "Complaint ID": number,
    }
    return {**fields, **changes}


def opinion(text="The judgment is affirmed.", kind="010combined", **changes):
    fields = {"author_str": "Doe", "per_curiam": False, "type": kind, "page_count": 3, "download_url": None}
    return {**fields, "author_id": 4, "opinion_text": text, "ocr": False, **changes}


def case(name="Roe v. Doe", court="Supreme Court of Texas", opinions=None, **changes):
    fields = {
        "id": 11,
        "case_name": name,
        "case_name_full": "",
        "case_name_short": "Roe",
        "date_filed": "1999-01-31",
        "judges": "Doe",
        "court_full_name": court,
        "court_short_name": "Texas Supreme Court",
        "court_jurisdiction": "Texas, TX",
        "court_type": "S",
        "citations": ["1 Tex. 2"],
        "citation_count": 2,
        "precedential_status": "Published",
        "summary": None,
        "opinions": [opinion()] if opinions is None else opinions,
    }
    return {**fields, **changes}
