"""Runs cases of one kind; see harness.py."""

import argparse
import importlib
import json
import tempfile
from pathlib import Path

from fuzz import harness

KINDS = ("calls", "pictures", "nets", "commands")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    args = parser.parse_args()
    module = importlib.import_module(f"fuzz.{args.kind}")
    harness.limit_memory(getattr(module, "ADDRESS_SPACE", harness.ADDRESS_SPACE))
    with tempfile.TemporaryDirectory() as folder:
        result = harness.run(
            module.case, Path(folder), args.seed, args.first, args.count, module.SECONDS
        )
    if args.count == 1:
        print(harness.report(args.kind, args.seed, result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
