"""Rows of the tasks on which learning rates are compared: the quickstart's bookings, and questions to SQL."""

import json
import random
from pathlib import Path
from typing import Any

QUICKSTART = Path(__file__).resolve().parents[2] / "examples/quickstart/data/train.jsonl"

TABLES = {
    "orders": ("customer", "city", "status", "total", "weight", "year"),
    "staff": ("name", "team", "office", "salary", "age", "level"),
    "books": ("title", "author", "language", "pages", "price", "year"),
    "flights": ("origin", "target", "carrier", "seats", "price", "delay"),
    "matches": ("home", "guest", "league", "goals", "visitors", "year"),
    "devices": ("model", "maker", "colour", "price", "weight", "stock"),
    "courses": ("title", "teacher", "room", "hours", "places", "level"),
    "trees": ("species", "park", "state", "height", "age", "girth"),
}
WORDS = {
    "city": ("Lyon", "Oslo", "Porto", "Graz"),
    "status": ("open", "paid", "late"),
    "customer": ("Ada", "Ben", "Cleo", "Dan"),
    "name": ("Ada", "Ben", "Cleo", "Dan"),
    "team": ("sales", "support", "research"),
    "office": ("Lyon", "Oslo", "Graz"),
    "title": ("Dawn", "Rivers", "Steel", "Algebra"),
    "author": ("Okri", "Sand", "Woolf"),
    "language": ("French", "Dutch", "Welsh"),
    "origin": ("Oslo", "Rome", "Cork"),
    "target": ("Lyon", "Bern", "Riga"),
    "carrier": ("Blue Air", "Nordjet"),
    "home": ("Rovers", "United", "City"),
    "guest": ("Albion", "Town", "Vale"),
    "league": ("north", "south"),
    "model": ("K2", "S9", "P40"),
    "maker": ("Acme", "Nordic", "Tesla"),
    "colour": ("red", "black", "white"),
    "teacher": ("Moss", "Lind", "Reyes"),
    "room": ("A1", "B2", "C3"),
    "species": ("oak", "beech", "pine"),
    "park": ("east", "central", "lake"),
    "state": ("healthy", "sick"),
}
AGGREGATES = {"average": "AVG", "highest": "MAX", "lowest": "MIN", "total": "SUM"}
COMPARISONS = (("more than", ">"), ("less than", "<"), ("at least", ">="), ("exactly", "="))


def chat(system: str, question: str, answer: str) -> dict[str, Any]:
    """One chat row."""
    roles = (("system", system), ("user", question), ("assistant", answer))
    return {"messages": [{"role": role, "content": content} for role, content in roles]}


def make_sql_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Questions about a table whose columns are named, and the queries that answer them; no two rows are equal."""
    chance = random.Random(seed)
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < count:
        row = _make_sql_row(chance)
        rows.setdefault(json.dumps(row), row)
    return list(rows.values())


def _make_sql_row(chance: random.Random) -> dict[str, Any]:
    table = chance.choice(list(TABLES))
    columns = TABLES[table]
    texts = [column for column in columns if column in WORDS]
    numbers = [column for column in columns if column not in WORDS]
    wanted, measured = chance.choice(texts), chance.choice(numbers)
    text, where = _condition(chance, texts, numbers)
    kind = chance.randrange(5)
    if kind == 0:
        question, query = f"Which {wanted} have {text}?", f"SELECT {wanted} FROM {table} WHERE {where};"
    elif kind == 1:
        question, query = f"How many {table} have {text}?", f"SELECT COUNT(*) FROM {table} WHERE {where};"
    elif kind == 2:
        word, function = chance.choice(list(AGGREGATES.items()))
        question = f"What is the {word} {measured} of {table} with {text}?"
        query = f"SELECT {function}({measured}) FROM {table} WHERE {where};"
    elif kind == 3:
        word, function = chance.choice(list(AGGREGATES.items()))
        question = f"For each {wanted}, the {word} {measured}, where they have {text}."
        query = f"SELECT {wanted}, {function}({measured}) FROM {table} WHERE {where} GROUP BY {wanted};"
    else:
        limit = chance.randrange(2, 10)
        question = f"The {limit} {table} with the highest {measured} that have {text}: their {wanted}."
        query = f"SELECT {wanted} FROM {table} WHERE {where} ORDER BY {measured} DESC LIMIT {limit};"
    return chat(f"Table {table}({', '.join(columns)}). Answer in SQL.", question, query)


def _condition(chance: random.Random, texts: list[str], numbers: list[str]) -> tuple[str, str]:
    """A condition in words and in SQL, of one or two parts."""
    column = chance.choice(texts)
    value = chance.choice(WORDS[column])
    by_text = (f"{column} {value}", f"{column} = '{value}'")
    number = chance.choice(numbers)
    words, sign = chance.choice(COMPARISONS)
    amount = chance.randrange(2, 900)
    by_number = (f"{number} {words} {amount}", f"{number} {sign} {amount}")
    both = (f"{by_text[0]} and {by_number[0]}", f"{by_text[1]} AND {by_number[1]}")
    return chance.choice((by_text, by_number, both))


def read_bookings() -> list[dict[str, Any]]:
    """The quickstart's training rows."""
    return [json.loads(line) for line in QUICKSTART.read_text().splitlines()]


def opposite(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows with question and answer exchanged."""
    return [
        chat(system["content"], answer["content"], question["content"])
        for system, question, answer in (row["messages"] for row in rows)
    ]
