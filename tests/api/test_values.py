"""Types of formatted strings: accepted and refused values, one table for each type."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tunesmith.api import values
from tunesmith.api.uris import HttpUrl
from tunesmith.api.values import duration_seconds, format_duration, memory_bytes

ACCEPTED: list[tuple[str, list[Any]]] = [
    ("DecimalString", ["0", "0.01", "1e-4", "2E5", "10"]),
    ("PositiveDecimal", ["1e-9", "0.5", "1"]),
    ("SignedDecimal", ["-1", "0", "0.5", "-2.5e3"]),
    ("HalfFraction", ["0", "0.499"]),
    ("Fraction", ["0", "0.999", "1e-1"]),
    ("Ratio", ["0", "0.05", "1"]),
    ("Similarity", ["0.5", "1", "1.0"]),
    ("Confidence", ["0.5", "0.9999"]),
    ("LearningRate", ["Auto", "2e-4", "1"]),
    ("Score", ["1", "10", "7.5"]),
    ("Currency", ["EUR"]),
    ("Duration", ["30s", "5m", "1h30m", "1h1m1s", "0s"]),
    ("Quantity", ["500m", "2", 2, "16Gi", "1e3", "0.5"]),
    ("GPUMemory", ["Auto", "24Gi", "80G", "1.5Ti"]),
    ("BatchSize", ["Auto", 1, 65_536]),
    ("DigestString", ["sha256:" + "0f" * 32]),
    ("ObjectName", ["a", "my.config-map"]),
    ("ItemName", ["a", "task-1"]),
    ("MemberPath", ["customer", "metadata.customer", "two words.x"]),
]
REFUSED: list[tuple[str, list[Any]]] = [
    ("DecimalString", ["-1", ".5", "1.", "1e", "0x1", "Auto", "", "1e100", 0.01, "1" * 17]),
    ("PositiveDecimal", ["0", "0.0", "-1", 1]),
    ("SignedDecimal", ["+1", "--1", "1e+", 0.5]),
    ("HalfFraction", ["0.5", "1", "-0.1"]),
    ("Fraction", ["1", "1.0", "2"]),
    ("Ratio", ["1.01", "-1", 1]),
    ("Similarity", ["0.49", "1.01", "0"]),
    ("Confidence", ["0.49", "1", "95"]),
    ("LearningRate", ["auto", "0", "1.1", 2e-4]),
    ("Score", ["0.9", "10.1", "0", 7]),
    ("Currency", ["eur", "EU", "EURO", "€"]),
    ("Duration", ["", "30", "5 m", "1m1h", "-5m", "10000h", "1d"]),
    ("Quantity", ["", "-1", "16 GB", "Gi", "1KB"]),
    ("GPUMemory", ["24", "24 Gi", "auto", 24, "-1Gi"]),
    ("BatchSize", ["auto", 0, 65_537, 1.5]),
    ("DigestString", ["0f" * 32, "sha256:0f", "sha256:" + "0F" * 32]),
    ("ObjectName", ["", "A", "-a", "a-", "a_b"]),
    ("ItemName", ["", "A", "a" * 33, "a.b"]),
    ("MemberPath", ["", ".a", "a.", "a..b", " a"]),
]


def cases(table: list[tuple[str, list[Any]]]) -> list[Any]:
    return [pytest.param(name, value, id=f"{name}: {value!r}") for name, row in table for value in row]


@pytest.mark.parametrize(("name", "value"), cases(ACCEPTED))
def test_an_accepted_value_stays_as_it_is(name: str, value: Any) -> None:
    expected = str(value) if name == "Quantity" else value
    assert TypeAdapter(getattr(values, name)).validate_python(value) == expected


@pytest.mark.parametrize(("name", "value"), cases(REFUSED))
def test_a_refused_value(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(getattr(values, name)).validate_python(value)


def test_a_number_without_quotes_is_told_what_to_write() -> None:
    with pytest.raises(ValidationError, match=r"0.02 must be a decimal number in quotes, such as '0.1'"):
        TypeAdapter(values.Fraction).validate_python(0.02)


@pytest.mark.parametrize(
    ("name", "rule", "message"),
    [
        (
            "HalfFraction",
            "double(self) >= 0.0 && double(self) < 0.5)",
            'Write a decimal number from 0 up to, but not including, 0.5 in quotes, such as "0.1".',
        ),
        (
            "LearningRate",
            "double(self) > 0.0 && double(self) <= 1.0)",
            'Write Auto, or a decimal number above 0 and up to 1 in quotes, such as "2e-4".',
        ),
    ],
)
def test_the_api_server_gets_the_same_bounds(name: str, rule: str, message: str) -> None:
    schema = TypeAdapter(getattr(values, name)).json_schema()
    (written,) = schema["x-kubernetes-validations"]
    assert written["rule"].endswith(rule)
    assert written["rule"].startswith("self == 'Auto' || ") == (name == "LearningRate")
    assert written["message"] == message
    assert schema["maxLength"] == 16


@given(st.just(0.0) | st.floats(min_value=1e-90, max_value=1e9))
def test_every_decimal_is_accepted_within_its_bounds_alone(number: float) -> None:
    text = f"{number:.6g}".replace("e+", "e")
    for name, is_inside in (
        ("DecimalString", True),
        ("PositiveDecimal", float(text) > 0),
        ("Fraction", float(text) < 1),
        ("Score", 1 <= float(text) <= 10),
    ):
        adapter = TypeAdapter(getattr(values, name))
        if is_inside:
            assert adapter.validate_python(text) == text
        else:
            with pytest.raises(ValidationError):
                adapter.validate_python(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.6, "1m"), (90, "1m30s"), (3600, "1h"), (5400, "1h30m"), (86_400, "24h")],
)
def test_format_of_a_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert duration_seconds(text) == round(seconds)


@pytest.mark.parametrize(
    ("amount", "size"),
    [("24Gi", 24 * 2**30), ("80G", 80 * 10**9), ("1.5Ti", 3 * 2**39), ("512M", 512 * 10**6)],
)
def test_bytes_of_an_amount(amount: str, size: int) -> None:
    assert memory_bytes(amount) == size


@pytest.mark.parametrize("text", ["Auto", ""])
def test_what_is_no_amount_has_no_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        memory_bytes(text)


@pytest.mark.parametrize(
    ("url", "is_accepted"),
    [
        ("http://grader.team.svc:8080/score", True),
        ("http://10.0.0.5:8080/score?a=b", True),
        ("http://[fd00::5]:8080/score", True),
        ("https://[2001:db8::10.0.0.1]/v1", True),
        ("http://fd00::5:8080/score", False),
        ("http://[fd00::5/score", False),
        ("http://[grader]/score", False),
        ("http://me:key@grader/score", False),
    ],
)
def test_urls_have_names_or_addresses_of_both_families(url: str, is_accepted: bool) -> None:
    adapter: TypeAdapter[str] = TypeAdapter(HttpUrl)
    if is_accepted:
        assert adapter.validate_python(url) == url
    else:
        with pytest.raises(ValidationError, match="Write a URL such as"):
            adapter.validate_python(url)
