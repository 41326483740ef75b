"""Write the quickstart's data: expense notes and how one company's bookkeeping wants them booked.

The names of the accounts are the company's own: nobody who has not seen its books can know them, and five examples
show five of them at the most. That is what fine-tuning is for.

``python make_data.py`` writes ``data/*.jsonl`` again; the same seed gives the same rows.
"""

import json
import random
from pathlib import Path
from typing import NamedTuple

SEED = 7
TRAIN_ROWS, TEST_ROWS = 560, 80
SYSTEM = "Book the expense as JSON."


class Account(NamedTuple):
    """One account of the company's books: its name, and what people write when they mean it."""

    name: str
    phrases: tuple[str, ...]


ACCOUNTS = (
    Account(
        "cab", ("a taxi to the airport", "a cab from the station", "a taxi to the client", "a taxi home")
    ),
    Account(
        "rail", ("a train ticket", "a rail ticket to Lyon", "the night train", "the train to the branch")
    ),
    Account("air", ("a flight to Oslo", "a plane ticket", "the return flight", "a flight to the fair")),
    Account("stay", ("a hotel in Porto", "two nights in a hotel", "the hotel at the fair", "a hotel room")),
    Account(
        "guest", ("lunch with a client", "dinner with a customer", "coffee with a client", "a client dinner")
    ),
    Account("crew", ("pizza for the team", "lunch for the team", "cake for the team", "the team dinner")),
    Account("desk", ("printer paper", "pens and paper", "toner for the printer", "a box of pens")),
    Account("gear", ("a new laptop", "a second monitor", "a keyboard", "a laptop dock")),
    Account("bits", ("cloud hosting", "a software licence", "a software subscription", "cloud storage")),
    Account("tank", ("fuel for the van", "diesel for the car", "petrol for the van", "charging the car")),
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
    booking = {"account": account.name, "amount": value, "currency": currency}
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
