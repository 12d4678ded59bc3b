"""Files that are not UTF-8: read where they say so, refused with a guess where most of a file is in something else."""

import json

import pytest

from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.upstream.encoding_guess import likely_encoding
from fedllm_data.upstream.encodings import check_encoding
from fedllm_data.upstream.raw import ReadSettings
from tests.data.upstream.readers.damage import read

TEXTS = ["Où est l’école ?", "plain", "déjà vu", "“bien sûr”"]


def as_file(kind, texts, encoding):
    if kind == "csv":
        text = "who,q\n" + "".join(f"ann,{text}\n" for text in texts)
    elif kind == "xml":
        text = "<rows>" + "".join(f'<row who="ann" q="{text}"/>' for text in texts) + "</rows>"
    else:
        rows = [{"who": "ann", "q": text} for text in texts]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        text = json.dumps(rows, ensure_ascii=False) if kind == "json" else "".join(lines)
    return text.encode(encoding)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "xml"])
def test_a_file_in_another_encoding_is_refused_by_name_and_read_with_the_flag(kind):
    content = as_file(kind, TEXTS, "cp1252")
    with pytest.raises(SourceError, match=r"not UTF-8 text: 3 lines .* --encoding cp1252, or with --encoding utf-8"):
        read(content, f"rows.{kind}")
    items = read(content, f"rows.{kind}", settings=ReadSettings(encoding="cp1252"))
    assert [item.fields["q"] for item in items] == TEXTS
    assert len(read(content, f"rows.{kind}", settings=ReadSettings(encoding="utf-8"))) == 4


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "xml"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_is_believed(kind, encoding):
    assert [item.fields["q"] for item in read(as_file(kind, TEXTS, encoding), f"rows.{kind}")] == TEXTS


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_refused_with_its_name(encoding):
    content = as_file("csv", TEXTS, encoding)
    with pytest.raises(SourceError, match=f"--encoding {encoding}"):
        read(content, "rows.csv")
    assert len(read(content, "rows.csv", settings=ReadSettings(encoding=encoding))) == 4
    with pytest.raises(SourceError, match="no whole number of utf-16"):
        read(content[:30] + content[31:], "rows.csv", settings=ReadSettings(encoding=encoding))


def test_a_broken_line_among_sound_ones_costs_its_row_alone():
    sound = [{"q": text} for text in TEXTS]
    content = as_file("jsonl", TEXTS, "utf-8") + as_file("jsonl", ["é"], "latin-1")
    items = read(content, "rows.jsonl")
    assert [item.fields["q"] for item in items[:4]] == [row["q"] for row in sound]
    assert "not UTF-8 at byte" in items[4].reason
    assert len(read(as_file("csv", ["plain"] * 9 + ["été"], "latin-1"), "rows.csv")) == 10


def test_a_character_that_the_encoding_does_not_know_costs_its_row():
    content = as_file("jsonl", ["un", "deux", "trois"], "cp1252").replace(b"deux", b"d\x81")  # 0x81 is none of cp1252
    items = read(content, "rows.jsonl", settings=ReadSettings(encoding="cp1252"))
    assert [getattr(item, "reason", None) is None for item in items] == [True, False, True]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Où est la bibliothèque ? J’ai été à l’école."),
        ("cp1252", "Können Sie mir für übermorgen größere Schuhe"),
        ("cp1252", "¿Dónde está el niño? Mañana será otro día"),
        ("mac_roman", "Où est la bibliothèque ? J’ai été à l’école."),
        ("cp850", "Où est la bibliothèque ? J'ai été à l'école."),
        ("cp1251", "Где находится библиотека?"),
        ("koi8-r", "Где находится библиотека?"),
        ("gb18030", "你好，请问图书馆在哪里"),
        ("big5", "你好請問圖書館在哪裡"),
        ("cp932", "こんにちは、図書館はどこですか"),
        ("euc_jp", "こんにちは、図書館はどこですか"),
        ("cp949", "안녕하세요 도서관이 어디에 있습니까"),
        ("cp949", "비밀번호를 변경하려면 어떻게 해야 하나요?"),
        ("cp932", "質問その1です。今日は天気がいいですね。"),
        ("cp932", "データ分析,株式会社,東京都"),
        ("cp1250", "Dzień dobry, proszę o pomoc: jak zmienić hasło w książce?"),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy, když jsem šel domů."),
        (
            "iso8859-2",
            "Dzień dobry, proszę o pomoc: jaką książkę mogę kupić, żeby się uczyć? Jeśli są też inne, proszę.",
        ),
        ("cp1250", "Hogyan tudok új jelszót kérni? Őszintén köszönöm a gyűjtőknek."),
        ("cp1254", "Şifremi nasıl değiştirebilirim? Teşekkür ederim, iyi günler, hoşça kalın, ağabeyciğim."),
        ("cp1253", "Καλημέρα, πώς μπορώ να αλλάξω τον κωδικό μου;"),
        ("cp1255", "שלום, איך אני יכול לשנות את הסיסמה שלי באתר?"),
        ("cp1256", "مرحبا، كيف يمكنني تغيير كلمة المرور الخاصة بي؟"),
        ("tis-620", "สวัสดีครับ ผมอยากทราบว่าร้านเปิดกี่โมง"),
        ("cp1251", "Добрый день! Підкажіть, будь ласка, як змінити пароль до її пошти?"),
        ("cp866", "Добрый день! Подскажите, пожалуйста, как настроить почту на телефоне?"),
        ("cp1252", "Kan jag få hjälp på svenska? Jag är från Göteborg och söker en lägenhet, 30 m³."),
        ("cp1252", "Não consigo à tarde: são três opções, e as ações não começam já."),
    ],
)
def test_the_likely_encoding_is_the_one_the_text_is_in(encoding, text):
    assert likely_encoding(text.encode(encoding)) == encoding


def test_where_no_encoding_explains_the_letters_none_is_named():
    assert likely_encoding(bytes(range(128, 256)) * 3) is None
    content = b"who,q\n" + b"ann," + bytes(range(160, 250)) + b"\nann," + bytes(range(250, 160, -1)) + b"\n"
    with pytest.raises(SourceError, match=r"none of the usual encodings.*--encoding and the one it was written in"):
        read(content, "rows.csv")


def test_binary_files_and_unknown_encodings_are_refused():
    with pytest.raises(SourceError, match="holds zero bytes"):
        read(b"\x89PNG\r\n\x1a\n" + b"\0" * 20 + b"\xff" * 200, "rows.csv")
    for wrong in ("klingon", "base64", "", "cp1252\0"):
        with pytest.raises(ConfigError, match="--encoding"):
            check_encoding(wrong)
    check_encoding("utf-16")
