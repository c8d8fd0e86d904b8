"""A few seconds of mixed work for an interpreter: arithmetic, recursion, objects, strings, dictionaries, sorting,
generators, closures and exceptions, in Python itself.

    python mixed_work.py [ROUNDS]
"""

import collections
import functools
import json
import re
import sys


def sieve(limit):
    flags = bytearray([1]) * (limit + 1)
    flags[0:2] = b"\0\0"
    for number in range(2, int(limit**0.5) + 1):
        if flags[number]:
            for multiple in range(number * number, limit + 1, number):
                flags[multiple] = 0
    return sum(flags)


def fibonacci(index):
    return index if index < 2 else fibonacci(index - 1) + fibonacci(index - 2)


class Body:
    def __init__(self, x, v, mass):
        self.x = x
        self.v = v
        self.mass = mass

    def pull(self, other):
        distance = other.x - self.x
        self.v += other.mass * distance / (abs(distance) ** 3 + 1)

    def move(self, time):
        self.x += self.v * time


def simulate(count, ticks):
    bodies = [Body(float(i * i), 0.0, 1.0 + i) for i in range(count)]
    for _ in range(ticks):
        for body in bodies:
            for other in bodies:
                if other is not body:
                    body.pull(other)
        for body in bodies:
            body.move(0.01)
    return round(sum(body.x for body in bodies), 6)


def count_words(text):
    words = re.findall(r"[a-z]+", text.lower())
    ranked = sorted(collections.Counter(words).items(), key=lambda item: (-item[1], item[0]))
    return json.dumps(ranked[:5])


def queens(size):
    def place(row, columns, rising, falling):
        if row == size:
            yield ()
            return
        for column in range(size):
            if column not in columns and row + column not in rising and row - column not in falling:
                for rest in place(row + 1, columns | {column}, rising | {row + column}, falling | {row - column}):
                    yield (column, *rest)

    return sum(1 for _ in place(0, frozenset(), frozenset(), frozenset()))


@functools.cache
def edits(left, right):
    if not left or not right:
        return len(left) + len(right)
    return min(
        edits(left[1:], right) + 1,
        edits(left, right[1:]) + 1,
        edits(left[1:], right[1:]) + (left[0] != right[0]),
    )


def parse_numbers(fields):
    good = 0
    for field in fields:
        try:
            good += int(field)
        except ValueError:
            good -= 1
    return good


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    text = "the quick brown fox jumps over the lazy dog and the dog sleeps on " * 400
    for _ in range(rounds):
        edits.cache_clear()
        results = [
            sieve(300_000),
            fibonacci(21),
            simulate(12, 120),
            count_words(text),
            queens(7),
            edits("a sampling profiler for guests", "an exact walker of the stacks"),
            parse_numbers(str(number) if number % 3 else "none" for number in range(40_000)),
        ]
    print(*results)


if __name__ == "__main__":
    main()
