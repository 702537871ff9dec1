"""SHA-256 of every member of every artifact in a storage folder, or how two folders differ.

Runs of one config at two commits on one machine should give equal members; weights differ between
processors. Reads manifests only, so it works on a storage of any version::

    python benchmarks/member_hashes.py runs/quickstart
    python benchmarks/member_hashes.py before/storage after/storage   # exit status 1 if they differ
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

Hashes = dict[tuple[str, str], str]  # (stage, member) -> hash of its files' hashes


def members(storage: Path) -> Hashes:
    """Of the newest artifact of each stage."""
    newest: dict[str, dict] = {}
    for path in storage.glob("*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        kept = newest.setdefault(manifest["stage"], manifest)
        if manifest["created"] > kept["created"]:
            newest[manifest["stage"]] = manifest
    return {
        (stage, member): _joined([file["sha256"] for file in files])
        for stage, manifest in newest.items()
        for member, files in manifest["files"].items()
    }


def _joined(hashes: list[str]) -> str:
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def differences(before: Hashes, after: Hashes) -> list[str]:
    """A line for each member that is not the same in both."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            where = "differs" if name in before and name in after else "only before"
            lines.append(f"{'only after' if name not in before else where:<12}{' '.join(name)}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("storage", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    args = parser.parse_args()
    before = members(args.storage)
    if args.other is None:
        for (stage, member), found in sorted(before.items()):
            print(f"{found}  {stage} {member}")
        return 0
    lines = differences(before, members(args.other))
    print("\n".join([*lines, f"{len(before)} members, {len(lines)} differences"]))
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
