#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The table of docs/interception.md, made of platform/intercept_symbols.def.
#
#   python3 cmake/interception_table.py           writes it
#   python3 cmake/interception_table.py --check   says whether the page has it as it is (a test)
"""Writes the table of symbols into docs/interception.md, or checks it."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import intercept_symbols  # noqa: E402

PAGE = os.path.join(os.path.dirname(intercept_symbols.DEFINITIONS), "..", "docs", "interception.md")
BEGIN = "<!-- begin of the table: made by cmake/interception_table.py -->\n"
END = "<!-- end of the table -->\n"

ON_A_THREAD = {
    "parks": "libc's",
    "disk": "libc's",
    "pool": "libc's",
    "aside": "libc's",
    "opens": "libc's; the number is noted",
    "creates": "libc's; the number is noted",
    "always": "as on a fiber; never parks",
    "own": "libc's",
    "alone": "libc's",
}


def cell(text):
    return text.replace("|", "\\|")


def table():
    lines, section = [], None
    entries = intercept_symbols.read()
    names = sum(1 + len(e.aliases) for e in entries)
    lines.append(f"{len(entries)} functions, {names} names.\n")
    for e in entries:
        if e.section != section:
            section = e.section
            lines.append(f"\n### {section[:1].upper()}{section[1:]}\n\n")
            lines.append("| symbol | on a fiber | on a thread | what differs |\n|---|---|---|---|\n")
        names = ", ".join(f"`{n}`" for n in [e.name, *e.aliases])
        fiber = e.fiber or "libc's; the number is noted"
        if e.cannot_block:
            fiber += f"; libc's where `{e.cannot_block}`"
        lines.append(f"| {names} | {cell(fiber)} | {ON_A_THREAD[e.kind]} | {cell(e.differs) or 'nothing'} |\n")
    return "".join(lines) + "\n"


def main():
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    begin, end = page.find(BEGIN), page.find(END)
    if begin < 0 or end < begin:
        print(f"{PAGE}: has no place for the table: the lines\n{BEGIN}{END}", file=sys.stderr)
        return 2
    current = page[:begin] + BEGIN + "\n" + table() + page[end:]
    if sys.argv[1:] == ["--check"]:
        if current == page:
            return 0
        print("docs/interception.md does not have the symbols of platform/intercept_symbols.def; run\n"
              "  python3 cmake/interception_table.py", file=sys.stderr)
        return 1
    if sys.argv[1:]:
        print(f"interception_table.py: '{sys.argv[1]}'? Known: --check", file=sys.stderr)
        return 2
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(current)
    return 0


if __name__ == "__main__":
    sys.exit(main())
