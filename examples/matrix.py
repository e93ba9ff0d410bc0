"""A blocked matrix multiplication: blocks are made once, and read where they lie.

Run it with `python examples/matrix.py` (it needs NumPy); a local cluster starts, or
DRUMBEAT_ADDRESS says which one is used. Tasks make the blocks of two matrices; another task for
each block of the product takes a row and a column of them as arguments. All of that is data of
gigabytes, of which the workers of a machine share one copy. Whether the product is right is seen
with a random vector: (A B) x must be A (B x).
"""

import argparse
import time
from typing import Any

import drumbeat
import numpy as np
from memory import Watch


@drumbeat.remote
def make(seed: int, size: int) -> Any:
    """Return a block of random numbers."""
    return np.random.default_rng(seed).random((size, size))


@drumbeat.remote
def multiply(*blocks: Any) -> Any:
    """Return a block of the product, of a row of blocks and then a column of them."""
    half = len(blocks) // 2
    product = np.zeros_like(blocks[0])
    for left, right in zip(blocks[:half], blocks[half:], strict=True):
        product += left @ right
    return product


@drumbeat.remote
def apply(vector: Any, *row: Any) -> Any:
    """Return a row of blocks times a vector."""
    size = len(vector) // len(row)
    parts = [vector[number * size : (number + 1) * size] for number in range(len(row))]
    return sum(block @ part for block, part in zip(row, parts, strict=True))


def times(rows: list[list[Any]], vector: Any) -> Any:
    """Return a matrix of blocks times a vector."""
    given = drumbeat.put(vector)
    return np.concatenate(drumbeat.get([apply.remote(given, *row) for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=8192, help="rows and columns of a matrix")
    parser.add_argument("--block", type=int, default=1024, help="rows and columns of a block")
    given = parser.parse_args()
    count = given.size // given.block
    if count * given.block != given.size:
        parser.error("--size must be a multiple of --block")
    with drumbeat.init(), Watch() as watch:
        begun_s = time.perf_counter()
        seeds = iter(range(2 * count * count))
        left, right = (
            [[make.remote(next(seeds), given.block) for _ in range(count)] for _ in range(count)]
            for _ in range(2)
        )
        columns = list(zip(*right, strict=True))
        product = [[multiply.remote(*row, *column) for column in columns] for row in left]
        drumbeat.wait([block for row in product for block in row], num_returns=count * count)
        took_s = time.perf_counter() - begun_s
        vector = np.random.default_rng(0).random(given.size)
        is_right = np.allclose(times(product, vector), times(left, times(right, vector)))
    print(f"{given.size:,} x {given.size:,} in blocks of {given.block:,}: {took_s:,.1f} s")
    print(f"{2 * given.size**3 / took_s / 1e9:,.1f} GFLOP/s, the product is "
          f"{'right' if is_right else 'WRONG'}")  # fmt: skip
    print(f"{3 * 8 * given.size**2 / 1e6:,.0f} MB of blocks in all")
    watch.print()
    if not is_right:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
