"""Recognizers for addresses and numbers of people, based on Presidio, without a language model.

Each recognizer sees only the few characters around what may be one: cheap searches come first, and a text that
holds nothing costs a few microseconds.
"""

import ipaddress
import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer

Span = tuple[int, int]

#: A number that is long enough for a phone, as a pattern.
LONG_NUMBER = r"[0-9](?:[ ().\-/]{0,2}[0-9]){6}"

#: Presidio asks for what a language model found; these recognizers need none.
_NO_LANGUAGE_MODEL: Any = None
_CARD_NUMBER = r"\d(?:[ -]?\d){12,18}"
_CARD = re.compile(rf"(?<![\w.\-]){_CARD_NUMBER}(?!\w|[.,-]\d)")
_IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}[ -]?[A-Z0-9]{4}[A-Z0-9 -]{4,32}")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d|-[A-Za-z])")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f:]{2,39}(?![\w:])")
_SSN = re.compile(r"(?<![\w.\-])\d{3}[- ]\d{2}[- ]\d{4}(?![\w]|[.\-]\d)")
_PHONE = re.compile(
    r"(?<![\w.,:/#$€£=\-+])(?:\+|\(|(?=\d))[\d(][\d ().\-/\u00a0]{5,20}\d(?!\w|[.,:%]\d|-\d| ?[€$£%])"
)

# Lengths and first digits by which cards are issued.
_ISSUED = re.compile(
    "|".join(
        (
            r"4(?:\d{12}|\d{15}|\d{18})",  # Visa
            r"(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}",  # Mastercard
            r"3[47]\d{13}",  # American Express
            r"6(?:011|4[4-9]\d|5\d\d)\d{12}",  # Discover
            r"3(?:0[0-5]|[68]\d)\d{11}",  # Diners Club
            r"35\d{14}",  # JCB
            r"62\d{14,17}",  # UnionPay
        )
    )
)
_DECIMAL = re.compile(r"(?<![\d.])\d{1,2}\.\d{3,}(?![\d.])")
_PAIRS = re.compile(r"\d\d(?:\.\d\d){3}$")
_DATE = re.compile(r"\d{4}[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ]\d{2,4}")
# Words before a number that speak of a phone; the mark <PHONE> of masked text is none of them.
_CALLED = re.compile(
    r"(?<!<)phone|\btel|mobile?\b|móvil|\bcell|\bcall|\bfax|whatsapp|\bsms\b|telef|téléph|handy|\bdial|\bring\b|reach"
    r"|电话|手机|電話|\btext (?:me|us|him|her)\b",
    re.IGNORECASE,
)
_VERSION = re.compile(r"(?:\bv|version|release|build|section|chapter)[\s.:=]*$", re.IGNORECASE)
_NATIONAL = re.compile(r"0|\(|\d{3}[-. ]\d{3}[-. ]\d{4}$")

_LOCAL_PART = 64
_DOMAIN = 255
_CONTEXT = 30
_LEAST_PHONE_DIGITS, _MAX_PHONE_DIGITS = 7, 15
# Addresses with fewer digits, such as 8.8.8.8 and 1.2.3.4, are public servers, or numbers of sections.
_LEAST_IPV4_DIGITS = 7
# Shorter ones, such as ::2 and a::b, are slices of arrays, and names in code.
_LEAST_IPV6_GROUPS, _LEAST_IPV6_DIGITS = 3, 8
# Distance before a number within which a word describes it; tables are padded.
_VERSION_CONTEXT = 30


class Recognizers:
    """Presidio's recognizers, created on first use."""

    def emails(self, text: str) -> Iterator[Span]:
        """Addresses of e-mail."""
        at = text.find("@")
        while at >= 0:
            begin, end = max(0, at - _LOCAL_PART), at + _DOMAIN
            spans = _analyze(self._email, text, begin, end)
            yield from (span for span in spans if span[0] < at < span[1])
            at = text.find("@", at + 1)

    def cards(self, text: str) -> Iterator[Span]:
        """Numbers of payment cards: issued ones, with the right check digit."""
        for match in _CARD.finditer(text):
            if _ISSUED.fullmatch(re.sub(r"\D", "", match[0])):
                yield from _analyze(self._card, text, *match.span())

    def ibans(self, text: str) -> Iterator[Span]:
        """Numbers of bank accounts, with the right check digits."""
        for match in _IBAN.finditer(text):
            yield from _analyze(self._iban, text, *match.span())

    def addresses(self, text: str) -> Iterator[Span]:
        """Addresses of devices on the public network."""
        v4 = (match for match in _IPV4.finditer(text) if _is_address(match))
        v6 = (
            (match for match in _IPV6.finditer(text) if _is_long_address(match[0]))
            if text.count(":") > 1
            else ()
        )
        for match in (*v4, *v6):
            if _is_public(match[0]):
                yield from _analyze(self._ip, text, *match.span())

    def security_numbers(self, text: str) -> Iterator[Span]:
        """Social security numbers of the United States."""
        for match in _SSN.finditer(text):
            yield from _analyze(self._ssn, text, *match.span())

    def phones(self, text: str) -> Iterator[Span]:
        """Phone numbers: international ones; others where the text speaks of a phone, or in their country's form."""
        for match in _PHONE.finditer(text):
            digits = sum(map(str.isdigit, match[0]))
            if not _LEAST_PHONE_DIGITS <= digits <= _MAX_PHONE_DIGITS or _DATE.match(match[0]):
                continue
            if match[0][0] != "+" and _is_other_number(match[0]):
                continue
            if match[0][0] == "+" or _CALLED.search(text, max(0, match.start() - _CONTEXT), match.start()):
                yield from _analyze(self._phone, text, *match.span())
            elif _NATIONAL.match(match[0]):
                yield from _analyze(self._written_phone, text, *match.span())

    @cached_property
    def _email(self) -> "EntityRecognizer":
        # Presidio takes seconds to import, which most data don't need.
        from presidio_analyzer.predefined_recognizers import EmailRecognizer
        from tldextract import TLDExtract

        domains = TLDExtract(
            cache_dir=None, suffix_list_urls=()
        )  # By the list that comes with it: no network.

        class OfflineEmailRecognizer(EmailRecognizer):
            def validate_result(self, pattern_text: str) -> bool:
                return domains(pattern_text).fqdn != ""

        return OfflineEmailRecognizer()

    @cached_property
    def _card(self) -> "EntityRecognizer":
        from presidio_analyzer import Pattern
        from presidio_analyzer.predefined_recognizers import CreditCardRecognizer

        # Presidio's own pattern lacks numbers that begin with 2 and those of 19 digits; the check digit stays its part.
        return CreditCardRecognizer(patterns=[Pattern("issued", _CARD_NUMBER, 0.3)])

    @cached_property
    def _iban(self) -> "EntityRecognizer":
        from presidio_analyzer.predefined_recognizers import IbanRecognizer

        return IbanRecognizer()

    @cached_property
    def _ip(self) -> "EntityRecognizer":
        from presidio_analyzer.predefined_recognizers import IpRecognizer

        return IpRecognizer()

    @cached_property
    def _ssn(self) -> "EntityRecognizer":
        from presidio_analyzer.predefined_recognizers import UsSsnRecognizer

        return UsSsnRecognizer()

    @cached_property
    def _phone(self) -> "EntityRecognizer":
        from presidio_analyzer.predefined_recognizers import PhoneRecognizer

        return PhoneRecognizer()

    @cached_property
    def _written_phone(self) -> "EntityRecognizer":
        from phonenumbers import Leniency
        from presidio_analyzer.predefined_recognizers import PhoneRecognizer

        return PhoneRecognizer(leniency=Leniency.STRICT_GROUPING)


def _analyze(recognizer: "EntityRecognizer", text: str, begin: int, end: int) -> Iterator[Span]:
    part = text[begin:end]
    for result in recognizer.analyze(part, recognizer.supported_entities, _NO_LANGUAGE_MODEL):
        yield begin + result.start, begin + result.end


def _is_other_number(text: str) -> bool:
    """True if digits and dots are a decimal number or an IP address."""
    return _DECIMAL.search(text) is not None or (_IPV4.fullmatch(text) is not None and not _PAIRS.match(text))


def _is_address(match: re.Match[str]) -> bool:
    digits = len(match[0]) - match[0].count(".")
    return digits >= _LEAST_IPV4_DIGITS and not _VERSION.search(
        match.string[max(0, match.start() - _VERSION_CONTEXT) : match.start()]
    )


def _is_long_address(text: str) -> bool:
    groups = [group for group in text.split(":") if group]
    return (
        text.count(":") > 1
        and len(groups) >= _LEAST_IPV6_GROUPS
        and sum(map(len, groups)) >= _LEAST_IPV6_DIGITS
    )


def _is_public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False
