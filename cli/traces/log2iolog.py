#!/usr/bin/env python3
"""Turns an nbdkit log (--filter=log) into a fio iolog, version 3, on standard output.

Usage: log2iolog.py NBDKIT_LOG [PHASES]

Each request is one row at the time it reached the disk, in microseconds from the first
one. Flush becomes `sync`, Trim and Zero become `trim`; a write or trim with the FUA flag,
which an iolog cannot say, is followed by a `datasync`. PHASES holds `unix_time name` lines;
when given, a summary per phase goes to standard error.
"""

import re
import sys
from bisect import bisect_right
from collections import Counter
from datetime import datetime

DISK = "disk"
START = re.compile(
    r"(\S+ \S+) connection=\d+ (Read|Write|Flush|Trim|Zero) id=\d+"
    r"(?: offset=(\S+) count=(\S+)(.*))? \.\.\.$"
)
ACTION = {"Read": "read", "Write": "write", "Trim": "trim", "Zero": "trim"}


def requests(lines):
    """Yields (unix time in us, action, offset, length) for each line that starts a request."""
    for line in lines:
        m = START.match(line.rstrip("\n"))
        if not m:
            continue
        when, verb, offset, count, flags = m.groups()
        t = datetime.fromisoformat(when)
        us = int(t.replace(microsecond=0).timestamp()) * 1_000_000 + t.microsecond
        if verb == "Flush":
            yield us, "sync", 0, 0
            continue
        offset, count = int(offset, 0), int(count, 0)
        yield us, ACTION[verb], offset, count
        if "fua=1" in flags:
            yield us, "datasync", 0, 0


def main():
    with open(sys.argv[1]) as log:
        # Several connections write one log: sort by time, equal times in the log's order.
        rows = sorted(requests(log), key=lambda r: r[0])
    start = rows[0][0]
    print("fio version 3 iolog")
    print(f"0 {DISK} add")
    print(f"0 {DISK} open")
    for us, action, offset, length in rows:
        print(f"{us - start} {DISK} {action} {offset} {length}")
    print(f"{rows[-1][0] - start} {DISK} close")

    if len(sys.argv) > 2:
        with open(sys.argv[2]) as f:
            marks = [line.rstrip("\n").split(" ", 1) for line in f]
        times = [int(float(t) * 1_000_000) for t, _ in marks]
        counts = [Counter() for _ in marks]
        for us, action, _, length in rows:
            c = counts[max(bisect_right(times, us) - 1, 0)]
            c[action] += 1
            c[action + " bytes"] += length
        for t, (_, name), c in zip(times, marks, counts):
            at = max(t - start, 0) / 1e6
            print(f"{at:8.3f} s  {name}: {dict(c)}", file=sys.stderr)


if __name__ == "__main__":
    main()
