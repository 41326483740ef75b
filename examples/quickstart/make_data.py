"""Write the quickstart's data: expense notes and how one company's bookkeeping wants them booked.

The account and tax codes are the company's own: nobody who has not seen its books can know them, and five examples
show only five of them. That is what fine-tuning is for. Run ``python make_data.py`` to write ``data/*.jsonl`` again;
the same seed gives the same rows.
"""

import json
import random
from pathlib import Path
from typing import NamedTuple

SEED = 7
TRAIN_ROWS, TEST_ROWS = 560, 80
SYSTEM = "Book the expense as JSON."


class Account(NamedTuple):
    """One account of the company's books: its code, its tax code, and what people write when they mean it."""

    code: str
    tax: str
    phrases: tuple[str, ...]


ACCOUNTS = (
    Account(
        "4711",
        "T1",
        (
            "taxi to the airport",
            "cab from the station",
            "ride to the client's office",
            "taxi home after the fair",
        ),
    ),
    Account(
        "4712",
        "T2",
        (
            "train ticket to Hamburg",
            "rail ticket to Lyon",
            "night train to Vienna",
            "train to the branch office",
        ),
    ),
    Account(
        "4715",
        "T0",
        ("flight to Oslo", "plane ticket to Madrid", "return flight to Dublin", "flight to the trade fair"),
    ),
    Account(
        "4730",
        "T2",
        ("hotel in Porto", "two nights at a hotel", "room near the fair", "hotel for the workshop"),
    ),
    Account(
        "4741",
        "T3",
        (
            "lunch with a client",
            "dinner with a customer",
            "coffee with a buyer",
            "business dinner with clients",
        ),
    ),
    Account(
        "4745",
        "T1",
        ("pizza for the team", "lunch for the staff", "cake for a colleague's birthday", "team dinner"),
    ),
    Account(
        "5120",
        "T1",
        ("printer paper", "pens and notebooks", "toner for the printer", "folders for the archive"),
    ),
    Account("5133", "T1", ("a new laptop", "a second monitor", "a keyboard and mouse", "a docking station")),
    Account(
        "5164",
        "T4",
        ("cloud hosting", "a software licence", "the design tool subscription", "backup storage online"),
    ),
    Account(
        "5210",
        "T2",
        ("a book on statistics", "a trade magazine", "a manual for the lathe", "two technical books"),
    ),
    Account("5388", "T0", ("stamps", "a parcel to Milan", "a courier to the notary", "registered mail")),
    Account("5402", "T4", ("the phone bill", "mobile data abroad", "the office internet", "a SIM card")),
    Account(
        "6017",
        "T1",
        (
            "fuel for the van",
            "diesel for the company car",
            "charging the electric car",
            "petrol for the rental car",
        ),
    ),
    Account(
        "6029",
        "T3",
        ("parking at the fair", "the motorway toll", "a car wash for the van", "the parking garage downtown"),
    ),
    Account(
        "6550",
        "T0",
        ("the first aid course", "a language course", "tickets for the conference", "a safety training"),
    ),
    Account(
        "6812",
        "T3",
        (
            "flowers for a client",
            "a gift for a supplier",
            "wine for a customer",
            "a gift basket for a partner",
        ),
    ),
)
CURRENCIES = {"EUR": ("euros", "EUR", "€"), "USD": ("dollars", "USD", "US$"), "GBP": ("pounds", "GBP", "£")}
TEMPLATES = (
    "Paid {amount} for {what}.",
    "{What}, {amount}.",
    "I spent {amount} on {what} yesterday.",
    "Please book {amount} for {what}.",
    "{What} cost me {amount}.",
    "Receipt: {what}, total {amount}.",
    "Expense of {amount}: {what}.",
    "On Monday I bought {what} for {amount}.",
)


def amount_in_words(rng: random.Random, value: str, currency: str) -> str:
    """The amount as people write it: ``12.50 euros``, ``EUR 12.50`` or ``€12.50``."""
    word, code, sign = CURRENCIES[currency]
    return rng.choice((f"{value} {word}", f"{code} {value}", f"{sign}{value}"))


def make_row(rng: random.Random) -> dict[str, object]:
    """One chat: the rule, the note, the booking."""
    account = rng.choice(ACCOUNTS)
    currency = rng.choice(sorted(CURRENCIES))
    value = f"{rng.randint(3, 480)}.{rng.choice(('00', '50', '20', '95', f'{rng.randint(0, 99):02}'))}"
    what = rng.choice(account.phrases)
    note = rng.choice(TEMPLATES).format(
        amount=amount_in_words(rng, value, currency), what=what, What=what[0].upper() + what[1:]
    )
    booking = {"account": account.code, "tax": account.tax, "amount": value, "currency": currency}
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": note},
            {"role": "assistant", "content": json.dumps(booking)},
        ]
    }


def main() -> None:
    """Write both files; no note stands in both, and none twice."""
    rng = random.Random(SEED)
    rows: dict[str, dict[str, object]] = {}
    while len(rows) < TRAIN_ROWS + TEST_ROWS:
        row = make_row(rng)
        rows.setdefault(row["messages"][1]["content"], row)  # type: ignore[index]
    folder = Path(__file__).parent / "data"
    ordered = list(rows.values())
    for name, part in (("train.jsonl", ordered[:TRAIN_ROWS]), ("test.jsonl", ordered[TRAIN_ROWS:])):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
