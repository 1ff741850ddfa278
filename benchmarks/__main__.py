"""Run all benchmarks, or those named on the command line."""

from __future__ import annotations

import importlib
import sys

MODULES = (
    "importing",
    "listing",
    "catalog",
    "verifying",
    "deleting",
    "copying",
    "resuming",
    "waiting",
    "streaming",
    "backing_up",
    "restoring",
    "rest_waiting",
    "rest_restoring",
)


def main() -> None:
    chosen = sys.argv[1:] or MODULES
    if unknown := set(chosen) - set(MODULES):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
    for module in chosen:
        print(f"{module}:", file=sys.stderr, flush=True)
        for result in importlib.import_module(f"benchmarks.{module}").run():
            print(result, flush=True)


if __name__ == "__main__":
    main()
