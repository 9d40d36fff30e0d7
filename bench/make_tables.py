"""Tables of records with known truth, each of another structure: what linkage must not have been fitted to.

    python bench/make_tables.py DIR [--seed 1]

Writes CSV files with the column `truth`, for `bench/linkage.py --truth truth`. Everything follows from the
seed. Some names are common and most are rare; errors are typing errors and missing values, and what the
line of a table says.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from random import Random

Record = dict[str, str]
ALPHABETS = {
    "latin": ("la ki ma ra to ne vi sa hu pe ko li ja tu mi an er os il un".split(), "abcdefghijklmnop"),
    "cyrillic": ("ва на ко ми ра ло ти се ов ев ин ка да ле ни го".split(), "абвгдежзиклмн"),
    "greek": ("πα νι κο λα ος ης ρα μα δη γε θε σι ια φω".split(), "αβγδεζηθικλμν"),
    "han": (list("王李張劉陳楊黃趙吳周徐孫馬朱胡林郭何高羅鄭梁謝宋唐許鄧馮韓曹曾彭"), "一二三四五六七八九十"),
    "arabic": ("مح مد اح علي حس ين عم ر خا لد سا ره فا طم ة نو".split(), "ابتثجحخدذرز"),
}


class Maker:
    """Draws values: `word` from a vocabulary of its own for each name, common ones more often."""

    def __init__(self, seed: int, script: str = "latin") -> None:
        self.chance = Random(seed)
        self._parts, self._letters = ALPHABETS[script]
        self._words: dict[tuple[str, int], list[str]] = {}

    def word(self, kind: str, n: int, n_parts: int) -> str:
        if (kind, n) not in self._words:
            own = Random(f"{kind} {n}")
            words = {
                "".join(own.choice(self._parts) for _ in range(n_parts + own.randint(0, 1))) for _ in range(n)
            }
            self._words[kind, n] = sorted(words)
            own.shuffle(self._words[kind, n])
        words = self._words[kind, n]
        return words[min(int(len(words) * self.chance.random() ** 2), len(words) - 1)]

    def digits(self, n: int) -> str:
        return "".join(self.chance.choice("0123456789") for _ in range(n))

    def date(self) -> str:
        month, day = self.chance.randint(1, 12), self.chance.randint(1, 28)
        return f"{self.chance.randint(1930, 2008)}-{month:02}-{day:02}"

    def mistyped(self, value: str) -> str:
        if not value:
            return value
        place, letter = self.chance.randrange(len(value)), self.chance.choice(self._letters + "0123456789")
        return self.chance.choice(
            [
                value[:place] + letter + value[place + 1 :],
                value[:place] + value[place + 1 :],
                value[:place] + letter + value[place:],
                value[:place] + value[place : place + 2][::-1] + value[place + 2 :],
            ]
        )

    def copied(self, one: Record, missing: float, mistyped: float) -> Record:
        """The same, as another system has it."""
        found = {}
        for name, value in one.items():
            draw = self.chance.random()
            found[name] = (
                "" if draw < missing else self.mistyped(value) if draw < missing + mistyped else value
            )
        return found


def person(make: Maker, names: int = 3_000) -> Record:
    return {
        "first": make.word("first", 300, 2),
        "last": make.word("last", names, 3),
        "born": make.date(),
        "street": f"{make.word('street', 2_000, 3)} {make.chance.randint(1, 150)}",
        "post": make.digits(5),
        "town": make.word("town", 120, 2),
    }


def repeated(
    make: Maker, n: int, one: Callable[[], Record], copies: Callable[[], int], missing: float, mistyped: float
) -> list[Record]:
    rows = []
    for who in range(n):
        whole = one()
        rows += [{**make.copied(whole, missing, mistyped), "truth": str(who)} for _ in range(copies())]
    make.chance.shuffle(rows)
    return rows


def small(make: Maker) -> list[Record]:
    """300 records of 130 persons."""
    rows = repeated(make, 400, lambda: person(make), lambda: make.chance.choice([1, 2, 2, 3, 4]), 0.05, 0.1)
    return [row for row in rows if int(row["truth"]) < 130][:300]


def swapped(make: Maker) -> list[Record]:
    """First and last name in the wrong columns in a quarter of the records; houses moved in a fifth."""
    rows = repeated(make, 3_000, lambda: person(make), lambda: make.chance.randint(1, 4), 0.05, 0.08)
    for row in rows:
        if make.chance.random() < 0.25:
            row["first"], row["last"] = row["last"], row["first"]
        if make.chance.random() < 0.2:
            row |= {key: value for key, value in person(make).items() if key in ("street", "post", "town")}
    return rows


def sparse(make: Maker) -> list[Record]:
    """Two values of five are missing."""
    return repeated(
        make,
        3_000,
        lambda: (
            person(make)
            | {"mail": f"{make.word('mail', 20_000, 4)}@example.com", "mobile": "04" + make.digits(8)}
        ),
        lambda: make.chance.randint(1, 4),
        0.4,
        0.05,
    )


def undated(make: Maker) -> list[Record]:
    """Names, a town and an employer: no date, no number."""

    def one() -> Record:
        whole = person(make)
        employer = f"{make.word('firm', 1_500, 3)} {make.chance.choice(['Oy', 'AB', 'Ltd'])}"
        return {"first": whole["first"], "last": whole["last"], "town": whole["town"], "employer": employer}

    return repeated(make, 3_000, one, lambda: make.chance.randint(1, 3), 0.05, 0.1)


def companies(make: Maker) -> list[Record]:
    """Companies: a name with a legal form or without, an address, a number of the register, a website."""

    def one() -> Record:
        name = f"{make.word('firm', 6_000, 3)} {make.word('trade', 60, 3)}"
        street = f"{make.word('street', 2_000, 3)} {make.chance.randint(1, 150)}"
        return {
            "company": f"{name} {make.chance.choice(['Oy', 'AB', 'Ltd', 'GmbH', ''])}".strip(),
            "register": f"{make.digits(7)}-{make.digits(1)}",
            "address": f"{street}, {make.word('town', 120, 2)}",
            "web": f"www.{name.replace(' ', '')}.com",
            "country": make.chance.choice(["FI", "SE", "DE", "UK"]),
        }

    return repeated(make, 3_000, one, lambda: make.chance.randint(1, 4), 0.15, 0.1)


def orders(make: Maker) -> list[Record]:
    """Guests' orders: name and address in one text each; what they bought says nothing of them."""

    def one() -> Record:
        whole = person(make)
        return {
            "customer": f"{whole['first']} {whole['last']}",
            "ship_to": f"{whole['street']}, {whole['town']}",
        } | {"phone": "+35840" + make.digits(7)}

    rows = repeated(make, 2_500, one, lambda: make.chance.choice([1, 1, 2, 3, 5, 9]), 0.05, 0.08)
    for row in rows:
        row["product"] = make.word("product", 300, 3)
        row["ordered_at"] = f"2026-{make.chance.randint(1, 12):02}-{make.chance.randint(1, 28):02}"
        row["price"] = f"{make.chance.randint(5, 300)}.{make.chance.choice(['00', '50', '90'])}"
    return rows


def scripts(make: Maker) -> list[Record]:
    """Names in Cyrillic, Greek, Han and Arabic, dates as day.month.year."""
    rows: list[Record] = []
    for number, script in enumerate(("cyrillic", "greek", "han", "arabic")):
        own = Maker(make.chance.randrange(10**9), script)

        def one(own: Maker = own) -> Record:
            whole = person(own, 800)
            year, month, day = whole["born"].split("-")
            return whole | {"born": f"{day}.{month}.{year}"}

        found = repeated(own, 700, one, lambda: make.chance.randint(1, 4), 0.05, 0.08)
        rows += [row | {"truth": f"{number}-{row['truth']}"} for row in found]
    make.chance.shuffle(rows)
    return rows


def families(make: Maker) -> list[Record]:
    """Four at one address with one last name and one telephone: alike, and not the same."""
    rows, who = [], 0
    for _ in range(900):
        home = person(make) | {"phone": "+35840" + make.digits(7)}
        for _ in range(make.chance.randint(2, 4)):
            one = home | {"first": make.word("first", 300, 2), "born": make.date()}
            copies = make.chance.randint(1, 3)
            rows += [{**make.copied(one, 0.08, 0.08), "truth": str(who)} for _ in range(copies)]
            who += 1
    make.chance.shuffle(rows)
    return rows


def singles(make: Maker) -> list[Record]:
    """Nobody comes twice."""
    return repeated(make, 5_000, lambda: person(make), lambda: 1, 0.05, 0.05)


def junk(make: Maker) -> list[Record]:
    """Persons, 2,000 records of test data, 400 of one person, columns of nothing."""
    rows = repeated(make, 2_000, lambda: person(make), lambda: make.chance.randint(1, 3), 0.05, 0.08)
    test = {
        "first": "test",
        "last": "test",
        "born": "1900-01-01",
        "street": "test 1",
        "post": "00000",
        "town": "test",
    }
    rows += [test | {"truth": f"test {n}"} for n in range(2_000)]
    one = person(make)
    rows += [{**make.copied(one, 0.02, 0.02), "truth": "one"} for _ in range(400)]
    make.chance.shuffle(rows)
    return [row | {"empty": "", "constant": "x", "number": str(n)} for n, row in enumerate(rows)]


def large(make: Maker) -> list[Record]:
    """200,000 records of about 80,000 persons."""
    return repeated(make, 80_000, lambda: person(make, 20_000), lambda: make.chance.randint(1, 4), 0.05, 0.08)


TABLES = (small, swapped, sparse, undated, companies, orders, scripts, families, singles, junk, large)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        rows = table(Maker(given.seed))
        with open(given.folder / f"{table.__name__}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        n_truths = len({row["truth"] for row in rows})
        print(f"{table.__name__}: {len(rows):,} records of {n_truths:,}: {table.__doc__}")


if __name__ == "__main__":
    main()
