"""What scrubbing replaces, what it leaves, that it settles, and that no text makes it slow.

The keys below have the form of keys and open nothing; they are put together here, lest a scanner take them for any.
"""

import builtins
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_data.pipeline.scrub import scrub

KINDS = ("EMAIL", "PHONE", "IP", "KEY")

AB = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"  # 27 characters
BLOCK = "-----BEGIN {0}PRIVATE KEY-----{1}MIIEpAIBAAKCAQEA7x{1}c29tZSBieXRlcyBoZXJl{1}-----END {0}PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann@example.org", "[EMAIL]"),
        ("<ann.b-c+list@mail.example.co.uk>, bob_1@x.io.", "<[EMAIL]>, [EMAIL]."),
        ("mailto:ANN@EXAMPLE.ORG?subject=x", "mailto:[EMAIL]?subject=x"),
        ("请发邮件到ann@example.org谢谢", "请发邮件到[EMAIL]谢谢"),
        ("+49 30 901820", "[PHONE]"),
        ("Tel. +33 1 42 68 53 00, or +44 (0)20 7946 0958!", "Tel. [PHONE], or [PHONE]!"),
        ("(212) 736-5000 or 212-736-5000 or 212.736.5000", "[PHONE] or [PHONE] or [PHONE]"),
        ("phone: 030 901820; WhatsApp 0151 23456789", "phone: [PHONE]; WhatsApp [PHONE]"),
        ("我的电话是13912345678。", "我的电话是[PHONE]。"),
        ("my telephone number is (030) 90-18-20", "my telephone number is [PHONE]"),
        ("ping 91.198.174.192, 91.198.174.0/24.", "ping [IP], [IP]/24."),
        ("http://91.198.174.192:8080/x", "http://[IP]:8080/x"),
        ("from 2620:0:862:ed1a::1 and 2a02:ec80:300:ed1a:0:0:0:1.", "from [IP] and [IP]."),
        ("AKIA" + "Q3EGXK7ABCDMNOP2", "[KEY]"),
        ("token=ghp_" + AB + AB[:9], "token=[KEY]"),
        (f'key = "sk-{AB}"; other = "sk-ant-api03-{AB}-{AB}"', 'key = "[KEY]"; other = "[KEY]"'),
        ("hf_" + AB + "abc and AIza" + AB + "12345678", "[KEY] and [KEY]"),
        (f"eyJ{AB}.eyJ{AB}.{AB}", "[KEY]"),
        (f"Authorization: Bearer {AB}", "Authorization: Bearer [KEY]"),
        (f'aws_secret_access_key = "{AB}/+abcdefghijk"', 'aws_secret_access_key = "[KEY]"'),
        ("postgres://ann:s3cret@db.example.org/x", "postgres://ann:[KEY]@db.example.org/x"),
        (BLOCK.format("RSA ", "\n"), "[KEY]"),
        ("a " + BLOCK.format("", "\\n") + " b", "a [KEY] b"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7x\nand so on", "[KEY]\nand so on"),
    ],
)
def test_addresses_numbers_and_keys_are_replaced(text, expected):
    cleaned, counts = scrub(text)
    assert cleaned == expected
    assert counts == Counter({kind: expected.count(f"[{kind}]") for kind in KINDS if f"[{kind}]" in expected})
    assert scrub(cleaned) == (cleaned, Counter())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Nothing to see here, not even at 5 o'clock @home.",
        "git@github.com:ann/repo.git, @property, A @ B.T, lodash@4.17.21, x@y",
        "On 2023-11-14 12:30:45.123456 and 14.11.2023, 11/14/2023, 1999-2005, 20231114123045",
        "my phone was new on 2023-11-14; phone: 2023-11-14",
        "ISBN 978-3-16-148410-0, ISBN-10 3-16-148410-X, ISSN 2049-3630, DOI 10.1000/182, arXiv:2304.07327",
        "x = 3.14159265358979 + 1234567890 - 0.1135864275; 2 ** 64 = 18446744073709551616",
        "f(12345678, 2345678901), [234, 567, 8901], 234 567 8901, 1,234,567.89, 12 345 678,90 EUR, $1 234 567.00",
        "10 + 20 30 40 50 60, 1 + 2125551234, (1 + 49) 30 901820",
        "-122.4194155, 37.7749295; 0x7ffeefbff5c8; 4111-1111-1111-1111; 123-45-6789",
        "localhost 127.0.0.1, 0.0.0.0:80, 10.0.0.1, 192.168.1.254, 172.16.0.9, 169.254.1.1, 255.0.0.0, 224.0.0.251",
        "1.2.3.4 and 8.8.8.8; section 4.3.2.1; v12.0.4.31, version 12.0.4.31, pkg==12.0.4.31; 12.0.4.31.7; 999.1.1.1",
        "192.0.2.17, 198.51.100.3, 203.0.113.9; 12.0.4.31-beta; x12.0.4.31",
        "std::vector, face::add, x[2400::2], ::1, fe80::1, 2001:db8::1, 12:30:45, 00:1a:2b:3c:4d:5e, a::b::c",
        "sk-learn-compatible-estimators-everywhere, task-1234567890123456789012, the bearer of bad news",
        "https://example.org:8080/a@b, http://host/path:1/@ann, s3://bucket/key",
        "if '-----BEGIN RSA PRIVATE KEY-----' in text:",
        "[EMAIL] [PHONE] [IP] [KEY]",
        "3fa85f64-5717-4562-b3fc-2c963f66afa6 d41d8cd98f00b204e9800998ecf8427e",
    ],
)
def test_dates_sums_books_prices_versions_and_code_stay(text):
    assert scrub(text) == (text, Counter())


PIECES = [
    "ann@example.org", "+49 30 901820", "91.198.174.192", "2620:0:862:ed1a::1", "hf_" + AB + "abc", "sk-" + AB,
    "phone", "AKIAQ3EGXK7ABCDMNOP2", "://ann:pw@", "bearer ", "(212) 736-5000", "[KEY]", "@", ".", "-", " ", "1", "a",
    ":", "+", "é",
]  # fmt: skip


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)))
def test_scrubbing_again_changes_nothing(text):
    cleaned, counts = scrub(text)
    assert scrub(cleaned) == (cleaned, Counter())
    assert (cleaned == text) == (not counts)


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "1 ", "+", "(", "a@", "a.", "1.", "a@b.", "a@1.1.", "1:", "a:", "::", "-", "eyJ", "eyJaaaaaaaaa.",
     "-eyJ", "sk-", "sk-a", "a://", "a://b:", "phone ", "phone number is ", "tel.:", "-----BEGIN PRIVATE KEY-----",
     "bearer ", "-----BEGIN PRIVATE KEY----- ", "+49", "+49 30 901820", "ann@example.org", "212-", "(212) ", "1.2.3.",
     "phone 1234567", "\n", "`", "AKIA", "hf_", "xox", "aws_secret_access_key = ", "111111111111 ", "+1-", "2/"],
)  # fmt: skip
def test_no_repetition_makes_it_slow(unit):
    """A pattern that is quadratic in this text needs minutes here, one that is linear no time."""
    text = unit * (60_000 // len(unit))
    assert scrub(scrub(text)[0])[1] == Counter()


def test_without_its_library_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "phonenumbers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "phonenumbers", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'fedllm-commons\[scrub\]'"):
        scrub("anything")
