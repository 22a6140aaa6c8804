"""Stores a tree of argv[2] files, 40 % of them duplicates, on the server at argv[1]; reads it back."""

import multiprocessing
import os
import random
import sys
import tempfile

from filetracker.client import Client

FILES = int(sys.argv[2])
DISTINCT = FILES * 6 // 10
PROCESSES = 4


def content(number):
    """The first six tenths of the numbers give all distinct contents, the others repeat them."""
    distinct = number if number < DISTINCT else (number * 7) % DISTINCT
    size = random.Random(distinct).choice([0, 10, 1000, 5000, 20000, 60000])
    # The number itself keeps the contents apart, the empty ones included.
    return b"%d:" % distinct + random.Random(distinct).randbytes(size)


def name(number):
    return "/tree/%d/%02d/file%04d" % (number % 3, number % 50, number)


def store_and_read(job):
    url, numbers = job
    with tempfile.TemporaryDirectory() as work:
        client = Client(local_store=None, remote_url=url)
        versioned = {}
        for number in numbers:
            path = os.path.join(work, "in")
            with open(path, "wb") as out:
                out.write(content(number))
            versioned[number] = client.put_file(name(number), path, compress_hint=number % 4 != 0)
        for number in numbers:
            path = os.path.join(work, "out%d" % number)
            client.get_file(versioned[number], path)
            with open(path, "rb") as stored:
                assert stored.read() == content(number), name(number)
            if number % 10 == 0:
                assert client.file_size(versioned[number]) == len(content(number))
    return len(versioned)


def main():
    url = sys.argv[1]
    jobs = [(url, range(first, FILES, PROCESSES)) for first in range(PROCESSES)]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        assert sum(pool.map(store_and_read, jobs)) == FILES


if __name__ == "__main__":
    main()
