"""Backups and restores under random faults until the time is over: ``python -m tests.breaking.soak --seconds 600``."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from demo import servers  # before grpc is imported
from tests.breaking.checker import Outcome, Rig, play
from tests.integration.clusters import A_BUCKET, VAULT, Cluster, location

#: Seeds at once: a restore mostly waits for Milvus.
AT_ONCE = 3
#: After so many broken promises more of them tell nothing new.
ENOUGH = 3


def soak(seconds: float, first: int, at_once: int) -> list[Outcome]:
    """Play one seed after the other until the time is over; returns what became of them."""
    outcomes: list[Outcome] = []
    seeds, until = count(first), time.monotonic() + seconds

    def worker(rig: Rig) -> None:
        while time.monotonic() < until and sum(1 for outcome in outcomes if outcome.violation) < ENOUGH:
            outcome = play(rig, next(seeds))  # the numbers come from C, so no two threads get the same
            outcomes.append(outcome)
            print(outcome, flush=True)  # noqa: T201

    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        s3 = stack.enter_context(servers.s3_server(directory / "s3"))
        for bucket in (A_BUCKET, VAULT):
            s3.create_bucket(bucket)
        milvus = stack.enter_context(servers.milvus_server(directory / "milvus", s3, bucket=A_BUCKET))
        cluster = Cluster(milvus, s3, location(s3, A_BUCKET))
        stack.callback(cluster.close)
        rig = Rig(cluster)
        with ThreadPoolExecutor(at_once) as pool:
            for worked in [pool.submit(worker, rig) for _ in range(at_once)]:
                worked.result()
    return outcomes


def main() -> int:
    """Return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="no seed begins after that time")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="seeds at once")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # what the clients say about the faults they meet
    started = time.monotonic()
    outcomes = soak(arguments.seconds, arguments.first, arguments.at_once)
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
    broken = [outcome.seed for outcome in outcomes if outcome.violation]
    tries = sum(sum(outcome.tries) for outcome in outcomes)
    took, met = f"{time.monotonic() - started:.0f} s", f"{sum(faults.values())} faults of {len(faults)} kinds"
    told = f"promises broken by seeds {broken}" if broken else "every backup and every restore was complete or not there"
    print(f"{len(outcomes)} seeds in {took}, {met}, {tries} tries: {told}")  # noqa: T201
    return 1 if broken or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
