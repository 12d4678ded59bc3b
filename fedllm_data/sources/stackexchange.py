"""Stack Exchange dumps: the client is who answered (`fed-stackexchange`) or who asked (`fed-stackexchange-pa`).

A dump is one `Posts.xml` a site, a `<row>` a question or an answer, in any order. `fed-stackexchange` makes a row of
every answer: the question's title and text, and the answer. `fed-stackexchange-pa` makes a row of every answer next to
the one the asker accepted. Texts are HTML in the dump and Markdown in the rows. Posts are put on disk and read back
thread by thread, so memory does not grow with the site.

The dumps of several sites in one folder make one corpus; `upstream/site_fields.py` has the fields of work that sites
belong to, and the options that make a site or a field the client.

Rows name their posts and people as the site does, unhashed, because the licence asks for it: the row
`SITE:QUESTION:ANSWER` is at https://SITE/a/ANSWER, the client `SITE:USER` at https://SITE/users/USER.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedllm_data.errors import SourceError
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.records import Record, data_files, read_records
from fedllm_data.upstream.scratch import fill_table, open_scratch, stream_rows, text_problem
from fedllm_data.upstream.site_fields import HOST, SiteChoice, read_site_choice

__all__ = ["FED_STACKEXCHANGE", "FED_STACKEXCHANGE_PA"]

_WHERE = "https://archive.org/details/stackexchange"
_TYPES = {"1": "question", "2": "answer"}
_NUMBER = re.compile(r"\d{1,19}", re.ASCII)
_COMMUNITY = "-1"
"""The account that owns what belongs to nobody, on every site."""
_SITE_LANGUAGES = {
    "es.stackoverflow.com": "es",
    "ja.stackoverflow.com": "ja",
    "pt.stackoverflow.com": "pt",
    "ru.stackoverflow.com": "ru",
    "rus.stackexchange.com": "ru",
}
_MIXED_SITES = frozenset(
    f"{name}.stackexchange.com"
    for name in (
        *("chinese", "conlang", "esperanto", "french", "german", "italian", "japanese", "korean", "latin"),
        *("portuguese", "russian", "spanish", "ukrainian"),
    )
)
"""Sites whose posts are in English or in the language they are about: the detector tells."""
_POSTS = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("site", pa.string()),
        ("thread_id", pa.int64()),
        ("kind", pa.string()),
        ("post_id", pa.string()),
        ("accepted_id", pa.string()),
        ("user_id", pa.string()),
        ("text", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class _Thread:
    """A question and its answers, by the order of their ids."""

    question: dict[str, Any]
    answers: list[dict[str, Any]]

    def row_id(self, *answers: dict[str, Any]) -> str:
        return ":".join([self.question["site"], self.question["post_id"], *(post["post_id"] for post in answers)])

    def common(self, user_id: str, choice: SiteChoice) -> dict[str, Any]:
        site = self.question["site"]
        language = _language_of(site)
        return {"client_id": choice.client_of(site, user_id), **({"language": language} if language else {})}

    def prompt(self) -> dict[str, str]:
        return {"role": "user", "content": self.question["text"]}


def _read_sft(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    choice = read_site_choice(options)
    for thread in _read_threads(path, options, choice):
        if isinstance(thread, Rejected):
            yield thread
            continue
        if not thread.answers:
            yield _rejected(thread.question, "nobody answered this question")
        elif all(_person_problem(answer) for answer in thread.answers):
            yield _rejected(thread.question, "every answer to this question is nobody's")
        for answer in thread.answers:
            if problem := _person_problem(answer):
                yield _rejected(answer, problem)
                continue
            messages = [thread.prompt(), _reply(answer)]
            row = {**thread.common(answer["user_id"], choice), "row_id": thread.row_id(answer), "messages": messages}
            yield SourceRow(row, answer["file"], answer["line"])


def _read_preference(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    choice = read_site_choice(options)
    for thread in _read_threads(path, options, choice):
        if isinstance(thread, Rejected):
            yield thread
            continue
        question = thread.question
        accepted = [answer for answer in thread.answers if answer["post_id"] == question["accepted_id"]]
        problem = _person_problem(question)
        if question["accepted_id"] is None:
            problem = "no answer to this question was accepted"
        elif not accepted:
            problem = "AcceptedAnswerId: the accepted answer is not among the answers"
        elif len(thread.answers) == 1:
            problem = "the accepted answer is the only one"
        if problem:
            yield from (_rejected(post, problem) for post in (question, *thread.answers))
            continue
        for answer in thread.answers:
            if answer is not accepted[0]:
                row = {
                    **thread.common(question["user_id"], choice),
                    "row_id": thread.row_id(accepted[0], answer),
                    "prompt": [thread.prompt()],
                    "chosen": [_reply(accepted[0])],
                    "rejected": [_reply(answer)],
                }
                yield SourceRow(row, answer["file"], answer["line"])


def _read_threads(path: Path | None, options: dict[str, str], choice: SiteChoice) -> Iterator[_Thread | Rejected]:
    """Yield questions with their answers; of posts with one id the first counts."""
    with open_scratch() as connection:
        records = enumerate(_records(path, options, choice))
        posts = (_post_of(site, record, ordinal) for ordinal, (site, record) in records)
        yield from fill_table(connection, "posts", _POSTS, posts)
        rows = stream_rows(
            connection,
            """
            SELECT * FROM posts
            ORDER BY site, thread_id, kind DESC, length(post_id), post_id, ordinal  -- 'question' before 'answer'
            """,
        )
        for _, group in groupby(rows, key=lambda post: (post["site"], post["thread_id"])):
            thread: list[dict[str, Any]] = []
            seen: set[str] = set()
            for post in group:
                if post["post_id"] in seen:
                    yield _rejected(post, "Id: repeats an earlier post")
                elif post["kind"] == "answer" and not thread:
                    yield _rejected(post, "ParentId: the question is not among the posts")
                else:
                    thread.append(post)
                    seen.add(post["post_id"])
            if thread:
                yield _Thread(thread[0], thread[1:])


def _records(
    path: Path | None, options: dict[str, str], choice: SiteChoice
) -> Iterator[tuple[str, Record | Rejected]]:
    """Yield the posts of every site under a path, each with the site it is of."""
    if path is None:
        raise SourceError(f"this corpus is read from files: get a site's dump at {_WHERE} and name it with --source")
    site = options.get("site", "")
    if site and not HOST.fullmatch(site):
        raise SourceError(f"option site is {site[:40]!r}; give a host name such as cooking.stackexchange.com")
    files = data_files(path)
    # The other tables of a dump (Comments.xml, Users.xml, ...) lie in the same folder.
    files = [file for file in files if file.name.lower().startswith("posts.")] or files
    for file in files:
        host = site or _site_of(file)
        if not choice.takes(host):
            reason = f"the site is of none of the fields asked for ({choice.words}); none of its posts was read"
            yield host, Rejected(f"{host}/{file.name}", 1, reason)
            continue
        for record in read_records(file):
            yield host, replace(record, file=f"{host}/{file.name}")


def _site_of(file: Path) -> str:
    """The host name in the names of the file and its folder, such as cooking.stackexchange.com/Posts.xml."""
    file = file.resolve()
    for name in (file.name, file.parent.name):
        if match := HOST.search(name.lower().replace(".xml", "").replace(".7z", "")):
            return match[0]
    raise SourceError(
        f"{file.name} lies in a folder that is not named after its site; name it with --set site=HOST, such as "
        "cooking.stackexchange.com"
    )


def _post_of(site: str, record: Record | Rejected, ordinal: int) -> dict[str, Any] | Rejected:
    # Imported here, as BeautifulSoup takes a while and `fedllm-data list` has no use for it.
    from fedllm_data.upstream.html_markdown import html_to_markdown

    if isinstance(record, Rejected):
        return record
    fields = record.fields
    kind = _TYPES.get(str(fields.get("PostTypeId")))
    problem = _post_problem(fields, kind)
    text = ""
    if problem is None:
        try:
            text = html_to_markdown(fields["Body"])
        except RecursionError:
            problem = "Body: is nested too deeply"
        else:
            problem = None if text else "Body: is empty"
    if problem:
        return Rejected(record.file, record.line, problem)
    if kind == "question":
        text = f"{fields['Title'].strip()}\n\n{text}"
    return {
        "ordinal": ordinal,
        "file": record.file,
        "line": record.line,
        "site": site,
        "thread_id": int(fields["Id" if kind == "question" else "ParentId"]),
        "kind": kind,
        "post_id": str(int(fields["Id"])),
        "accepted_id": str(int(fields["AcceptedAnswerId"])) if fields.get("AcceptedAnswerId") else None,
        "user_id": fields.get("OwnerUserId") or None,
        "text": text,
    }


def _post_problem(fields: dict[str, Any], kind: str | None) -> str | None:
    """Return why a post cannot be used, judged by itself."""
    if kind is None:
        return f"PostTypeId: {str(fields.get('PostTypeId'))[:40]!r} is neither a question (1) nor an answer (2)"
    texts = ("Body", "Title") if kind == "question" else ("Body",)
    for name in texts:
        if name not in fields:
            return f"{name}: is missing"
        if problem := text_problem(name, fields[name]):
            return problem
    for name in texts:
        if not fields[name].strip():
            return f"{name}: is empty"
    numbers = {"Id": True, "ParentId": kind == "answer", "AcceptedAnswerId": False, "OwnerUserId": False}
    for name, is_required in numbers.items():
        value = fields.get(name)
        if value is None or value == "":
            if is_required:
                return f"{name}: is missing"
        elif not isinstance(value, str) or not _is_number(value, name):
            return f"{name}: must be a whole number, got {str(value)[:40]!r}"
    return None


def _is_number(text: str, name: str) -> bool:
    if name == "OwnerUserId" and text == _COMMUNITY:
        return True
    return _NUMBER.fullmatch(text) is not None and int(text) < 2**63


def _person_problem(post: dict[str, Any]) -> str | None:
    if post["user_id"] is None:
        return f"OwnerUserId: is missing (the account behind the {post['kind']} was deleted)"
    if post["user_id"] == _COMMUNITY:
        return f"OwnerUserId: the {post['kind']} belongs to the Community account, which is nobody"
    return None


def _language_of(site: str) -> str | None:
    """The language a site asks its posts to be in; None if there are several."""
    main = site.replace(".meta.", ".")
    return None if main in _MIXED_SITES else _SITE_LANGUAGES.get(main, "en")


def _reply(post: dict[str, Any]) -> dict[str, str]:
    return {"role": "assistant", "content": post["text"]}


def _rejected(post: dict[str, Any], reason: str) -> Rejected:
    return Rejected(post["file"], post["line"], reason)


_ATTRIBUTION = (
    "Stack Exchange Network, and the authors of the posts: the row SITE:QUESTION:{answers} and its authors are at "
    "https://SITE/q/QUESTION and https://SITE/a/ANSWER, the client SITE:USER at https://SITE/users/USER"
)
_COMMON: dict[str, Any] = {
    "licence": "cc-by-sa-4.0",
    "licence_url": "https://creativecommons.org/licenses/by-sa/4.0/",
    "terms": "Posts are under CC BY-SA 2.5, 3.0 or 4.0 by the day they were written (`ContentLicense` in newer "
    "dumps). These rows are adaptations of them (HTML became Markdown), shared under CC BY-SA 4.0, a later version of "
    "the same licence. Who shows a post must name the site and the author and link to both: row and client ids hold "
    "the links, so do not hash them. What is made of the rows and shared must be under the same licence.",
    "upstream": _WHERE,
    "revision": "see source_files: the corpus is read from a local copy",
    "citation": """@misc{stackexchange,
  title = {Stack Exchange Data Dump},
  author = {{Stack Exchange, Inc.} and the authors of the posts},
  howpublished = {https://archive.org/details/stackexchange}
}""",
    "options": {
        "site": "host name of the site, where neither file nor folder is named after it",
        "fields": "medicine, law, finance, code, manufacturing, or NAME:HOST+HOST, joined by commas: read these "
        "fields' sites alone",
        "client": "author (preset), site or field: the same rows by person or by organisation",
    },
    "filters": Filters(min_rows=2, near_duplicates=0.8),
    "filter_reasons": "Two rows are the least that can be split into train and test. Near-duplicates at the usual "
    "Jaccard similarity of 0.8 on question and answers; on the four sites measured there are none.",
}
_LIMITS = (
    "Votes are not used: answers with a negative score are among the rows.",
    "Images are links, which may break; formulas are LaTeX between dollar signs.",
    "People are known by their public account on one site; who is active on two sites is two clients.",
    "The language is that of the site; on sites about a language, where posts are in one of two, it is detected.",
)
_SITES = (
    ("matheducators", 1_502, 302, 561, 49),
    ("beer", 1_566, 560, 602, 144),
    ("italian", 571, 119, 163, 41),
    ("french.meta", 460, 96, 54, 27),
)
_REFERENCE = "built here from a dump of the site, unfiltered"

FED_STACKEXCHANGE = Source(
    name="fed-stackexchange",
    task="sft",
    summary="Questions and answers of Stack Exchange sites, one row an answer; a client is who answered.",
    client="the author of the answer, within one site (Stack Exchange `OwnerUserId`): SITE:USER; with client=site "
    "or client=field the site, or its field of work",
    attribution=_ATTRIBUTION.format(answers="ANSWER"),
    read=_read_sft,
    sizes=tuple(
        KnownSize(
            of=f"{name}.stackexchange.com, all answers", num_clients=clients, num_rows=rows, reference=_REFERENCE
        )
        for name, rows, clients, _, _ in _SITES
    ),
    limits=("Comments below a post, where questions are often made clear, are not in the rows.", *_LIMITS),
    **_COMMON,
)
FED_STACKEXCHANGE_PA = Source(
    name="fed-stackexchange-pa",
    task="preference",
    summary="The accepted answer to a question against every other one; a client is who asked, and accepted.",
    client="the author of the question, within one site (Stack Exchange `OwnerUserId`): SITE:USER; with client=site "
    "or client=field the site, or its field of work",
    attribution=_ATTRIBUTION.format(answers="ANSWER:ANSWER"),
    read=_read_preference,
    sizes=tuple(
        KnownSize(of=f"{name}.stackexchange.com, pairs", num_clients=clients, num_rows=rows, reference=_REFERENCE)
        for name, _, _, rows, clients in _SITES
    ),
    limits=(
        "Accepting an answer says which one helped the asker; later answers may be better and were never compared.",
        *_LIMITS,
    ),
    **_COMMON,
)
