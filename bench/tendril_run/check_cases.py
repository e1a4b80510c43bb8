# SPDX-License-Identifier: Apache-2.0
"""Runs each case of cases.c on threads and on fibers, with copies of the program's thread-locals and with shared ones,
on one OS thread, and compares with what docs/decisions/thread-per-fiber.md says. Prints the page's table."""

import subprocess
import sys

RIGHT = "right"
# On fibers: with copies, with shared thread-locals.
CASES = {
    "own": (RIGHT, "wrong"),
    "address": ("wrong", "wrong"),
    "key": (RIGHT, RIGHT),
    "strerror": ("wrong", "wrong"),
    "uselocale": ("wrong", "wrong"),
    "sigmask": ("wrong", "wrong"),
    "recursive": (RIGHT, RIGHT),
    "spin": ("hangs", "hangs"),
    "exit": (RIGHT, RIGHT),
    "main": (RIGHT, RIGHT),
    "tryjoin": (RIGHT, RIGHT),
    "kill": ("EOPNOTSUPP", "EOPNOTSUPP"),
    "cancel": ("EOPNOTSUPP", "EOPNOTSUPP"),
    "recursion": (RIGHT, RIGHT),
    "fork": (RIGHT, RIGHT),
}


def answer(command, expected):
    """Who is expected to hang gets little time for it, everybody else much."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=2 if expected == "hangs" else 60)
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode != 0:
        return f"status {done.returncode}: {done.stderr.strip()}"
    return done.stdout.strip()


def main():
    run, program = sys.argv[1:]
    failed = []
    print("| case | threads | copies | shared |\n|---|---|---|---|")
    for name, (copies, shared) in CASES.items():
        variants = ((RIGHT, [program, name]),
                    (copies, [run, "--workers", "1", program, name]),
                    (shared, [run, "--workers", "1", "--shared-locals", program, name]))
        cells = []
        for expected, command in variants:
            got = answer(command, expected)
            cells.append(got)
            if got != expected:
                failed.append(f"{name}: expected '{expected}', got '{got}' from {' '.join(command)}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


sys.exit(main())
