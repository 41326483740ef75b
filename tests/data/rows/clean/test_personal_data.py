"""Personal data: detected, masked, never repeated in reports, and no false alarms."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rows.planted_rows import Writer, records_of

from tunesmith_data.rows.clean.personal_data import PersonalDataCheck, PersonalDataFinder, PersonalDataKind
from tunesmith_data.rows.clean.recognizers import Recognizers
from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity

FINDER = PersonalDataFinder()

# Keys are put together here, so that nobody who searches this file for keys finds one.
TOKEN = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
JWT = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PRIVATE_KEY = (
    "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabcdef==\n-----END RSA PRIVATE KEY-----"
)

PERSONAL = [
    ("write to anna.berg@example.com, please", "write to <EMAIL>, please"),
    ("Mail an jörg@müller-söhne.de schicken", "Mail an <EMAIL> schicken"),
    ("<anna@example.co.uk>", "<<EMAIL>>"),
    ("my card is 4111 1111 1111 1111.", "my card is <CARD>."),
    ("5500005555555559 is a card", "<CARD> is a card"),
    ("Amex 3782 822463 10005", "Amex <CARD>"),
    ("2223 0031 2200 3222, new", "<CARD>, new"),
    ("card 2720990000000007", "card <CARD>"),
    ("6200-0000-0000-0005", "<CARD>"),
    ("4000001234567890124 is long", "<CARD> is long"),
    ("pay to DE89 3704 0044 0532 0130 00 today", "pay to <IBAN> today"),
    ("IBAN: GB29NWBK60161331926819", "IBAN: <IBAN>"),
    ("logged in from 84.17.203.11 at noon", "logged in from <IP_ADDRESS> at noon"),
    ("host 2a02:8109:9c40:1e24::1 is down", "host <IP_ADDRESS> is down"),
    ("SSN 536-90-4399", "SSN <SSN>"),
    ("call +49 30 12345678 now", "call <PHONE> now"),
    ("+1 (650) 253-0000", "<PHONE>"),
    ("(415) 555-2671", "<PHONE>"),
    ("or 212-555-0198?", "or <PHONE>?"),
    ("reach me at 030.12345678", "reach me at <PHONE>"),
    ("call +49 30.12345678", "call <PHONE>"),
    ("from 84.17.203.11-84.17.203.19", "from <IP_ADDRESS>-<IP_ADDRESS>"),
    ("my phone is 2125550198", "my phone is <PHONE>"),
    ("Tel. 089 1234567", "Tel. <PHONE>"),
    ("mobile 07400 123456", "mobile <PHONE>"),
    (f"key AKIA{'IOSFODNN7EXAMPLE'} here", "key <KEY> here"),
    (
        f'aws_secret_access_key = "{"wJalrXUtnFEMI/K7MDENG" + "/bPxRfiCYEXAMPLEKEY"}"',
        'aws_secret_access_key = "<KEY>"',
    ),
    (f"export GITHUB_TOKEN=ghp_{TOKEN}", "export GITHUB_TOKEN=<KEY>"),
    (f"glpat-{TOKEN[:20]} and more", "<KEY> and more"),
    (f"sk-{TOKEN[:20]}T3BlbkFJ{TOKEN[:20]}", "<KEY>"),
    (f"sk-ant-{TOKEN}", "<KEY>"),
    (f"hf_{TOKEN[:34]}", "<KEY>"),
    (f"xoxb-123456789012-123456789012-{TOKEN[:24]}", "<KEY>"),
    (f"sk_live_{TOKEN[:24]}", "<KEY>"),
    (f"Bearer {JWT}.", "Bearer <KEY>."),
    (f"Here:\n{PRIVATE_KEY}\nKeep it.", "Here:\n<KEY>\nKeep it."),
    ("-----BEGIN PRIVATE " + f"KEY-----\n{TOKEN}\n{TOKEN}", "<KEY>"),
    ("It begins with BEGIN PRIVATE " + "KEY, as you know.", "It begins with <KEY>, as you know."),
    (f"//registry.example.com/:_authToken=npm_{TOKEN}", "//registry.example.com/:_authToken=<KEY>"),
    ("postgres://user:s3cr3t@db/x", "postgres://user:<KEY>@db/x"),
    ("anna@example.com, +49 30 12345678", "<EMAIL>, <PHONE>"),
]

HARMLESS = """
on 2024-01-15 10:30:45
12.05.2023 14:00
01/02/2024
2024-01-15T10:30:45.123456Z
call me at 10:30 on 2024-01-15
10:30-11:45
price 1,234,567.89 EUR
EUR 12.345.678,90
phone costs 1299.00 EUR
I spent GBP 405.00 on a taxi
order 4839201748
Order no. 123-4567890-1234567
tracking 1Z999AA10123456784
article 4006381333931
id 1234567812345678
ABC12345678901234
Nr. 0049
ISBN 978-3-16-148410-0
ISBN 0-306-40615-2
ISBN-10: 3-16-148410-X
version 10.4.2.11
v1.22.333.4444
Python 3.11.4
section 1.10.100.20
192.168.1.100
127.0.0.1
8.8.8.8
std::vector<int>::iterator
aa:bb:cc:dd:ee:ff
x = 1234567890
call function 1234567
3.14159265358979
2+2=4 and 1234567*7654321
lat 52.5200066, lon 13.4049540
array([[ 0.57735027,  0.4472136 , 0.70710678], [ 1.04719755 , 0.3333333 ]]) of the call
call: 0.25 0.3333333
np.shares_memory(x[::2], x[1::2]) must be:: a list
a::b and x[1:2:3]
OS-release       : 5.10.102.1-microsoft-standard-WSL2
Release             : 5.10.102.117
population 1 234 567 890
reach 1,000,000 users
the 1234567 people
2010-2020 1990-2000
1984 1985 1986 1987
0 1 2 3 4 5 6 7 8 9
2 4 8 16 32 64 128 256
1-2-3-4-5-6-7-8
score 100-200-3000
timestamp 1700000000000
uuid 550e8400-e29b-41d4-a716-446655440000
sha 3f2a9c81d0
number 2721000000000004
00123456789
000-00-0000
@property def f(self): ...
hello @user, a @ b, foo@bar
https://example.com/a:b@c
http://user:password@localhost
sk-learn and the hf_ prefix
eyJust a word.another
IBAN DE00 1234
+12345678901234567890
""".strip().splitlines()


@pytest.mark.parametrize(("text", "masked"), PERSONAL)
def test_personal_data_is_masked(text: str, masked: str) -> None:
    assert FINDER.mask(text)[0] == masked


@pytest.mark.parametrize("text", HARMLESS)
def test_other_numbers_and_words_are_left_alone(text: str) -> None:
    assert FINDER.find(text) == []


def test_spans_point_into_the_text() -> None:
    text = "Anna (anna@example.com) called from +49 30 12345678."
    assert [(span.kind, text[span.start : span.end]) for span in FINDER.find(text)] == [
        (PersonalDataKind.EMAIL, "anna@example.com"),
        (PersonalDataKind.PHONE, "+49 30 12345678"),
    ]


def test_rows_are_masked_in_every_text_and_in_calls_of_tools() -> None:
    call = {"type": "function", "function": {"name": "send", "arguments": {"to": ["anna@example.com"]}}}
    row = {
        "messages": [
            {"role": "user", "content": "Write to anna@example.com"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ],
        "tools": [{"type": "function", "function": {"name": "send", "description": "as to me@example.com"}}],
    }
    masked, found = FINDER.mask_row(row)
    assert found == {PersonalDataKind.EMAIL: 2}
    assert masked["messages"][0]["content"] == "Write to <EMAIL>"
    assert masked["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"to": ["<EMAIL>"]}
    assert masked["tools"] == row["tools"]
    assert "anna@example.com" in json.dumps(row)


def test_a_row_without_any_is_the_same_object() -> None:
    row = {"prompt": "2 + 2?", "completion": "4", "label": True}
    assert FINDER.mask_row(row) == (row, {})
    assert FINDER.mask_row(row)[0] is row


def test_what_is_reported_never_repeats_what_was_found() -> None:
    secrets = ["anna@example.com", "+49 30 12345678", f"ghp_{TOKEN}", "4111 1111 1111 1111"]
    rows = [
        {"prompt": f"{'Long before. ' * 50} My data: {secret}", "completion": "Noted."} for secret in secrets
    ]
    check = PersonalDataCheck(FINDER)
    check.update(records_of([*rows, {"prompt": "Who?", "completion": "Nobody."}]))
    [issue] = check.finish()
    assert (issue.check, issue.rows, issue.severity) == ("personal_data", 4, Severity.WARNING)
    assert issue.message == (
        "4 rows hold personal data: e-mail addresses in 1, phone numbers in 1, keys or passwords in 1, "
        "payment card numbers in 1"
    )
    assert [example.place.line for example in issue.examples] == [1, 2, 3, 4]
    assert "<EMAIL>" in issue.examples[0].excerpt
    assert not [secret for secret in secrets if secret in issue.to_json()]


def test_the_issue_holds_a_bounded_number_of_examples() -> None:
    check = PersonalDataCheck(FINDER)
    check.update(
        records_of([{"prompt": f"user{number}@example.com", "completion": "ok"} for number in range(50)])
    )
    [issue] = check.finish()
    assert (issue.rows, len(issue.examples)) == (50, MAX_EXAMPLES)


def test_masked_rows_are_reported_as_such() -> None:
    check = PersonalDataCheck(FINDER, masked=True)
    [record] = records_of([{"prompt": "anna@example.com", "completion": "ok"}])
    check.note(record, *FINDER.mask_row(record.row))
    [issue] = check.finish()
    assert issue.severity is Severity.NOTE
    assert issue.examples[0].detail == "1 e-mail addresses"


def test_nothing_is_said_of_clean_rows() -> None:
    check = PersonalDataCheck(FINDER)
    check.update(records_of([Writer(1).row() for _ in range(20)]))
    assert list(check.finish()) == []


PARTS = st.sampled_from([text for text, _ in PERSONAL] + HARMLESS) | st.text(max_size=30)


@given(st.lists(PARTS, max_size=6).map("\n".join))
@example("+1 (650) 253-0000\nx = 1234567890")
@example("call +49 30 12345678 now\norder 4839201748")
def test_masking_is_idempotent_and_spans_never_overlap(text: str) -> None:
    spans = FINDER.find(text)
    assert all(one.start < one.end <= other.start for one, other in pairwise(spans))
    masked, found = FINDER.mask(text)
    assert sum(found.values()) == len(spans)
    assert FINDER.mask(masked) == (masked, {})


@pytest.mark.parametrize("found_in_marks", ["EMAIL", "<EMAIL>", "L> or"], ids=["inside", "whole", "end"])
def test_what_is_found_in_a_mark_is_not_masked_again(
    found_in_marks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []

    def emails(self: Recognizers, text: str) -> Iterator[tuple[int, int]]:
        assert len(searched) < 3, "the search does not end"
        searched.append(text)
        return (match.span() for match in re.finditer(f"anna@|{found_in_marks}", text))

    monkeypatch.setattr(Recognizers, "emails", emails)
    assert FINDER.mask("ask anna@ or @bob") == ("ask <EMAIL> or @bob", {PersonalDataKind.EMAIL: 1})
    assert searched == ["ask anna@ or @bob", "ask <EMAIL> or @bob"]


@pytest.mark.parametrize(
    "text", ["@" * 5_000, "a" * 100_000 + "@b", ":" * 100_000, "1 " * 50_000, "-1" * 20_000]
)
def test_hostile_texts_take_no_long_time(text: str) -> None:
    FINDER.find("anna@example.com +49 30 12345678 84.17.203.11")  # Presidio is imported once.
    begin = time.process_time()
    FINDER.find(text)
    assert time.process_time() - begin < 2


def test_no_network_is_asked_and_nothing_is_written(tmp_path: Path) -> None:
    script = (
        "import socket\n"
        "def refuse(*_): raise AssertionError('asks the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from tunesmith_data.rows.clean.personal_data import PersonalDataFinder\n"
        "print(PersonalDataFinder().mask('anna@example.com')[0])\n"
    )
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    result = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.strip() == "<EMAIL>"
    assert [path for path in tmp_path.rglob("*") if "tld" in path.name] == []
