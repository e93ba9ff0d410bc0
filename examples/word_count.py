"""Map-reduce: the words of a large text are counted, and the text never comes here.

Run it with `python examples/word_count.py`; a local cluster starts, or DRUMBEAT_ADDRESS says which
one is used. Texts are made by tasks; each is counted by another task that reads it in the memory
where it lies. A count is divided by the words' first letters, and each part of all counts is added
up by one task. At the end it says who used how much memory: no process ever has more than a text
or two of its own, and the scheduler none.
"""

import argparse
import random
import time
from collections import Counter, deque
from typing import Any

import drumbeat
from memory import Watch

#: so many texts are under way at a time: the rest is not made yet
AHEAD = 6
WORDS = 5_000


@drumbeat.remote
def make(seed: int, size: int) -> bytes:
    """Return a text of that size; some words are frequent, most are rare."""
    chance = random.Random(seed)
    names = [f"{chr(97 + number % 26)}{number:x}" for number in range(WORDS)]
    weights = [1 / (number + 1) for number in range(WORDS)]
    piece = " ".join(chance.choices(names, weights, k=20_000)).encode() + b"\n"
    return (piece * (size // len(piece) + 1))[:size]


@drumbeat.remote
def count(text: bytes, parts: int) -> Any:
    """Return how often each word occurs, divided by first letters into so many parts."""
    divided: list[Counter[bytes]] = [Counter() for _ in range(parts)]
    for word, times in Counter(text.split()).items():
        divided[word[0] % parts][word] = times
    return divided


@drumbeat.remote
def add(*counts: Counter[bytes]) -> Counter[bytes]:
    """Return the sum of counts of the same words."""
    total: Counter[bytes] = Counter()
    for one in counts:
        total.update(one)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="of text, in all")
    parser.add_argument("--text", type=int, default=16, help="megabytes of each text")
    parser.add_argument("--parts", type=int, default=4, help="by which words are divided")
    given = parser.parse_args()
    texts, size = max(1, given.megabytes // given.text), given.text * 1_000_000
    with drumbeat.init(), Watch() as watch:
        begun_s = time.perf_counter()
        divide = count.options(num_returns=given.parts)
        counts: list[list[Any]] = []
        under_way: deque[Any] = deque()
        for seed in range(texts):
            counts.append(divide.remote(make.remote(seed, size), given.parts))
            under_way.append(counts[-1][0])
            if len(under_way) > AHEAD:
                drumbeat.wait([under_way.popleft()])
        totals = drumbeat.get([add.remote(*part) for part in zip(*counts, strict=True)])
        took_s = time.perf_counter() - begun_s
    words: Counter[bytes] = sum(totals, Counter())
    print(f"{words.total():,} words, {len(words):,} of them different")
    for word, times in words.most_common(5):
        print(f"  {word.decode():<8}{times:>14,}")
    print(f"{texts} texts, {texts * size / 1e6 / took_s:,.0f} MB/s")
    watch.print()


if __name__ == "__main__":
    main()
