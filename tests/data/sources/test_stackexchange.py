"""Stack Exchange posts to rows: threads in any order, deleted accounts, accepted answers, several sites."""

import random
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.build import build
from fedllm_data.check import check_repo
from fedllm_data.errors import SourceError
from fedllm_data.source import Rejected, SourceRow
from fedllm_data.sources.stackexchange import FED_STACKEXCHANGE, FED_STACKEXCHANGE_PA
from fedllm_data.upstream.site_fields import FIELDS
from tests.data.sources.fuzzing import builds_soundly, fuzz

SITE = "cooking.stackexchange.com"


def question(post_id, user="ann", accepted=None, **changes):
    fields = {"Id": post_id, "PostTypeId": "1", "Title": f"Title {post_id}", "Body": f"<p>Question {post_id}</p>\n"}
    return {**fields, "OwnerUserId": USERS.get(user), "AcceptedAnswerId": accepted, **changes}


def answer(post_id, parent, user="bob", **changes):
    fields = {"Id": post_id, "PostTypeId": "2", "ParentId": parent, "Body": f"<p>Answer {post_id}</p>\n"}
    return {**fields, "OwnerUserId": USERS.get(user), **changes}


USERS = {"ann": "1", "bob": "2", "cy": "3", "community": "-1"}
# Question 1 (ann; accepted 3): answers 3 (bob), 4 (cy), 5 (bob).  Question 2 (bob): answer 6 (cy).  Question 7: none.
POSTS = [
    question("1", accepted="3"),
    question("2", "bob"),
    answer("3", "1"),
    answer("4", "1", "cy"),
    answer("5", "1"),
    answer("6", "2", "cy"),
    question("7", "cy"),
]


def write(folder, posts, site=SITE):
    path = folder / site / "Posts.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        f"  <row {' '.join(f'{name}={quoteattr(value)}' for name, value in post.items() if value is not None)} />\n"
        for post in posts
    )
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<posts>\n{"".join(rows)}</posts>\n', encoding="utf-8")
    return path


@pytest.fixture
def read(tmp_path):
    def items(posts, source=FED_STACKEXCHANGE, **options):
        found = list(source.read(write(tmp_path, posts), 0, options))
        rows = [item.row for item in found if isinstance(item, SourceRow)]
        return rows, {item.line: item.reason for item in found if isinstance(item, Rejected)}

    return items


def test_a_row_is_an_answer_under_title_and_text_and_its_client_the_answerer(read):
    rows, rejected = read(POSTS)
    assert [(row["client_id"], row["row_id"]) for row in rows] == [
        (f"{SITE}:2", f"{SITE}:1:3"),
        (f"{SITE}:3", f"{SITE}:1:4"),
        (f"{SITE}:2", f"{SITE}:1:5"),
        (f"{SITE}:3", f"{SITE}:2:6"),
    ]
    assert rows[0]["messages"] == [
        {"role": "user", "content": "Title 1\n\nQuestion 1"},
        {"role": "assistant", "content": "Answer 3"},
    ]
    assert rejected == {7: "nobody answered this question"}


def test_a_pair_is_the_accepted_answer_against_each_other_one(read):
    rows, rejected = read(POSTS, FED_STACKEXCHANGE_PA)
    assert [(r["client_id"], r["row_id"], r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in rows] == [
        (f"{SITE}:1", f"{SITE}:1:3:4", "Answer 3", "Answer 4"),
        (f"{SITE}:1", f"{SITE}:1:3:5", "Answer 3", "Answer 5"),
    ]
    assert rows[0]["prompt"] == [{"role": "user", "content": "Title 1\n\nQuestion 1"}]
    assert rejected == dict.fromkeys((2, 6, 7), "no answer to this question was accepted")


@pytest.mark.parametrize("source", [FED_STACKEXCHANGE, FED_STACKEXCHANGE_PA])
def test_the_order_of_the_posts_changes_no_row(read, source):
    rows, _ = read(POSTS, source)
    for seed in range(3):
        assert read(random.Random(seed).sample(POSTS, len(POSTS)), source)[0] == rows


def test_deleted_accounts_and_the_community_account_are_no_clients(read):
    posts = [*POSTS[:2], answer("3", "1", None, OwnerDisplayName="user9"), answer("4", "1", "community")]
    rows, rejected = read(posts)
    assert rows == []
    assert rejected == {
        1: "every answer to this question is nobody's",
        2: "nobody answered this question",
        3: "OwnerUserId: is missing (the account behind the answer was deleted)",
        4: "OwnerUserId: the answer belongs to the Community account, which is nobody",
    }
    rows, rejected = read([question("1", None, accepted="3"), *POSTS[2:4]], FED_STACKEXCHANGE_PA)
    assert rows == []
    reason = "OwnerUserId: is missing (the account behind the question was deleted)"
    assert rejected == dict.fromkeys((1, 2, 3), reason)


def test_an_answerer_whose_account_is_gone_still_gives_the_other_answer_of_a_pair(read):
    rows, _ = read([question("1", accepted="3"), answer("3", "1", None), answer("4", "1", None)], FED_STACKEXCHANGE_PA)
    assert [row["row_id"] for row in rows] == [f"{SITE}:1:3:4"]


def test_questions_without_a_pair_say_why(read):
    posts = [question("1", accepted="3"), answer("3", "1"), question("2", accepted="9"), answer("4", "2")]
    rows, rejected = read(posts, FED_STACKEXCHANGE_PA)
    assert rows == []
    assert rejected == {
        **dict.fromkeys((1, 2), "the accepted answer is the only one"),
        **dict.fromkeys((3, 4), "AcceptedAnswerId: the accepted answer is not among the answers"),
    }


def test_other_posts_and_broken_ones_are_listed_and_the_rest_is_read(read):
    bad = [
        {"Id": "20", "PostTypeId": "5", "Body": "a wiki"},
        answer("21", "99"),
        answer("3", "1", Body="again"),
        answer("22", "1", Body=" "),
        answer("23", "1", Body="<p></p>"),
        answer("24", "1", Body=None),
        answer("x", "1"),
        answer("25", None),
        question("26", Title=""),
        answer("27", "1", OwnerUserId="9" * 30),
        answer("28", "1", Body="<div>" * 3000),
    ]
    rows, rejected = read([*POSTS, *bad])
    assert len(rows) == 4
    assert [rejected[line] for line in range(8, 19)] == [
        "PostTypeId: '5' is neither a question (1) nor an answer (2)",
        "ParentId: the question is not among the posts",
        "Id: repeats an earlier post",
        "Body: is empty",
        "Body: is empty",
        "Body: is missing",
        "Id: must be a whole number, got 'x'",
        "ParentId: is missing",
        "Title: is empty",
        f"OwnerUserId: must be a whole number, got '{'9' * 30}'",
        "Body: is nested too deeply",
    ]


def test_code_and_formulas_come_out_as_markdown(read):
    body = "<p>Let $x_1 &lt; 2$:</p>\n\n<pre><code>if a:\n    b_c()\n</code></pre>\n"
    rows, _ = read([question("1", Title="Why &amp; how"), answer("3", "1", Body=body)])
    assert rows[0]["messages"][1]["content"] == "Let $x_1 < 2$:\n\n```\nif a:\n    b_c()\n```"
    assert rows[0]["messages"][0]["content"].startswith("Why &amp; how\n\n")


def test_sites_of_one_folder_keep_their_people_and_posts_apart(tmp_path):
    for site in (SITE, "es.stackoverflow.com", "italian.stackexchange.com", "french.meta.stackexchange.com"):
        write(tmp_path, POSTS, site)
        (tmp_path / site / "Comments.xml").write_text('<comments><row Id="1" /></comments>')
    items = list(FED_STACKEXCHANGE.read(tmp_path, 0, {}))
    rows = [item.row for item in items if isinstance(item, SourceRow)]
    assert len(rows) == len({row["row_id"] for row in rows}) == 16
    assert len({row["client_id"] for row in rows}) == 8
    languages = {row["client_id"].partition(":")[0]: row.get("language") for row in rows}
    assert languages == {
        SITE: "en",
        "es.stackoverflow.com": "es",
        "italian.stackexchange.com": None,
        "french.meta.stackexchange.com": None,
    }
    assert {item.file for item in items} == {f"{site}/Posts.xml" for site in languages}


def test_the_site_is_in_the_files_or_the_folders_name_or_an_option(tmp_path, read):
    path = write(tmp_path, POSTS, "dump")
    with pytest.raises(SourceError, match="--set site=HOST"):
        list(FED_STACKEXCHANGE.read(path, 0, {}))
    with pytest.raises(SourceError, match="option site is 'cooking'"):
        list(FED_STACKEXCHANGE.read(path, 0, {"site": "cooking"}))
    first = next(iter(FED_STACKEXCHANGE.read(path, 0, {"site": "mathoverflow.net"})))
    assert first.row["client_id"] == "mathoverflow.net:2"
    with pytest.raises(SourceError, match="archive"):
        list(FED_STACKEXCHANGE.read(None, 0, {}))


IDS = st.sampled_from(["1", "2", "3", "4", "5", "007", "x", "", "-1", "9" * 25, "٣"])
BODIES = st.one_of(
    st.sampled_from(["", " ", "<p>a</p>", "<pre><code>x", "<b>" * 400, "&", "<![CDATA[x]]>", "<?x", "file.txt"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30),
)
POST = st.fixed_dictionaries(
    {"PostTypeId": st.sampled_from(["1", "1", "2", "2", "2", "4", ""])},
    optional={
        "Id": IDS,
        "ParentId": IDS,
        "AcceptedAnswerId": IDS,
        "OwnerUserId": IDS,
        "Title": BODIES,
        "Body": BODIES,
    },
)


@given(st.lists(POST, max_size=12))
@fuzz(5, 25)
def test_fuzzed_posts_are_in_a_row_or_rejected(tmp_path, posts):
    path = write(tmp_path, posts)
    for source in (FED_STACKEXCHANGE, FED_STACKEXCHANGE_PA):
        items = list(source.read(path, 0, {}))
        lines = [item.line for item in items]
        assert len(lines) == len(set(lines))
        asked = {item.row["row_id"].split(":")[1] for item in items if isinstance(item, SourceRow)}
        accepted = {item.row["row_id"].split(":")[2] for item in items if isinstance(item, SourceRow)}
        for line, post in enumerate(posts, start=1):
            post_id = str(int(post["Id"])) if line not in lines else ""
            assert line in lines or post_id in (asked if post["PostTypeId"] == "1" else accepted)
        assert builds_soundly(source, path, tmp_path / source.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "answers", "answerers", "pairs", "askers"),
    [
        # Less answers of deleted accounts (5 and 6), and 21 of them and 6 of the Community account in the last, where
        # 97 answerers are 96 people and that account; two of its 56 pairs are the account's.
        ("matheducators", 1_507 - 5, 302, 561, 49),
        ("beer", 1_572 - 6, 560, 602, 144),
        ("italian", 571, 119, 163, 41),
        ("french.meta", 487 - 21 - 6, 97 - 1, 56 - 2, 27),
    ],
)
def test_real_dumps_give_their_known_counts(tmp_path, shared_data, name, answers, answerers, pairs, askers):
    path = shared_data / "sft" / "stackexchange" / f"{name}.stackexchange.com" / "Posts.xml"
    for source, rows, clients in ((FED_STACKEXCHANGE, answers, answerers), (FED_STACKEXCHANGE_PA, pairs, askers)):
        items = [item.row for item in source.read(path, 0, {}) if isinstance(item, SourceRow)]
        assert (len(items), len({row["client_id"] for row in items})) == (rows, clients)
        result = build(source, tmp_path / source.name, source_path=path)
        assert result.facts["counts"]["num_valid"] == rows
        assert check_repo(tmp_path / source.name) == []


@fuzz(10, 30)
@given(st.data())
@pytest.mark.parametrize("source", [FED_STACKEXCHANGE, FED_STACKEXCHANGE_PA])
def test_every_post_is_in_a_row_or_rejected(read, source, data):
    users = st.sampled_from(["ann", None, "community"])
    posts = []
    for number in range(1, data.draw(st.integers(2, 8))):
        if data.draw(st.booleans()):
            posts.append(
                question(str(number), data.draw(users), accepted=data.draw(st.sampled_from(["2", "3", None])))
            )
        else:
            posts.append(answer(str(number), data.draw(st.sampled_from("123")), data.draw(users)))
    rows, rejected = read(posts, source)
    used = {part for row in rows for part in row["row_id"].split(":")[1:]}
    assert [n for n, post in enumerate(posts, start=1) if post["Id"] not in used and n not in rejected] == []


LAW, MONEY = "law.stackexchange.com", "money.stackexchange.com"


def write_sites(folder):
    for site in (LAW, MONEY, SITE):
        write(folder, POSTS, site)
    return folder


def items_of(folder, source=FED_STACKEXCHANGE, **options):
    items = list(source.read(folder, 0, options))
    return [item.row for item in items if isinstance(item, SourceRow)], [
        (item.file, item.reason) for item in items if isinstance(item, Rejected)
    ]


@pytest.mark.parametrize("source", [FED_STACKEXCHANGE, FED_STACKEXCHANGE_PA])
def test_sites_of_chosen_fields_make_one_corpus_and_the_others_are_named(tmp_path, source):
    folder = write_sites(tmp_path)
    rows, rejected = items_of(folder, source, fields="law,finance")
    assert {row["client_id"].partition(":")[0] for row in rows} == {LAW, MONEY}
    reason = "the site is of none of the fields asked for (law, finance); none of its posts was read"
    assert (f"{SITE}/Posts.xml", reason) in rejected
    everything, _ = items_of(folder, source)
    assert [row for row in everything if not row["client_id"].startswith(SITE)] == rows


@pytest.mark.parametrize("source", [FED_STACKEXCHANGE, FED_STACKEXCHANGE_PA])
def test_the_same_rows_by_person_by_site_and_by_field(tmp_path, source):
    folder = write_sites(tmp_path)
    fields = f"law,finance,cooking:{SITE}"
    found = {level: items_of(folder, source, fields=fields, client=level) for level in ("author", "site", "field")}
    without = [[{**row, "client_id": ""} for row in rows] for rows, _ in found.values()]
    assert without[0] == without[1] == without[2]
    assert len({str(rejected) for _, rejected in found.values()}) == 1
    assert {row["client_id"] for row in found["site"][0]} == {LAW, MONEY, SITE}
    assert {row["client_id"] for row in found["field"][0]} == {"law", "finance", "cooking"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": "medecine"}, "did you mean medicine"),
        ({"fields": "Law"}, "give a short word in small letters"),
        ({"fields": "mine:law"}, "'law' is no host name"),
        ({"fields": f"law,mine:{LAW}"}, f"{LAW} is in law and in mine; keep one"),
        ({"client": "field"}, "no fields are named"),
        ({"client": "town"}, "option client is 'town'"),
    ],
)
def test_a_choice_of_fields_that_does_not_do_is_refused(tmp_path, options, message):
    with pytest.raises(SourceError, match=message):
        items_of(write_sites(tmp_path), **options)


def test_no_site_is_in_two_fields():
    sites = [site for sites in FIELDS.values() for site in sites]
    assert len(sites) == len(set(sites))
    assert FIELDS.keys() == {"medicine", "law", "finance", "code", "manufacturing"}


def test_a_corpus_of_several_sites_builds_by_field(tmp_path):
    for site, start in ((LAW, 0), (MONEY, 100)):
        posts = []
        for n in range(12):
            words = f"{site} {start + n}"
            posts.append(question(str(2 * n + 1), Title=f"Title {words}", Body=f"<p>Question {words}</p>"))
            posts.append(answer(str(2 * n + 2), str(2 * n + 1), Body=f"<p>Answer {words}, of {n} words</p>"))
        write(tmp_path / "dumps", posts, site)
    options = {"fields": "law,finance", "client": "field"}
    result = build(
        FED_STACKEXCHANGE, tmp_path / "repo", source_path=tmp_path / "dumps", options=options, unfiltered=True
    )
    assert check_repo(tmp_path / "repo") == []
    assert result.facts["clients"]["num_clients"] == 2
    assert result.facts["options"] == options


@pytest.mark.slow
def test_real_sites_by_field_hold_the_rows_of_each_alone(tmp_path, shared_data):
    names = {name: f"{name}.stackexchange.com" for name in ("beer", "matheducators")}
    for site in names.values():
        (tmp_path / "dumps" / site).mkdir(parents=True)
        (tmp_path / "dumps" / site / "Posts.xml").symlink_to(
            shared_data / "sft" / "stackexchange" / site / "Posts.xml"
        )
    fields = ",".join(f"{name}:{site}" for name, site in names.items())
    result = build(
        FED_STACKEXCHANGE,
        tmp_path / "repo",
        source_path=tmp_path / "dumps",
        options={"fields": fields, "client": "field"},
        unfiltered=True,
    )
    assert check_repo(tmp_path / "repo") == []
    assert sum(result.num_rows.values()) == 1_566 + 1_502  # each site's answers of people, as above
    assert result.facts["clients"]["num_clients"] == 2
