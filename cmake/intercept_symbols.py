# SPDX-License-Identifier: Apache-2.0
#
# Reads platform/intercept_symbols.def and its parts: for the table in docs/interception.md and for check_binary.py.
"""The symbols that tendril::intercept defines."""

import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEFINITIONS = os.path.join(ROOT, "platform", "intercept_symbols.def")


class Malformed(Exception):
    pass


class Entry:
    def __init__(self, section, fields):
        self.section = section
        (self.kind, self.result, self.name, self.parameters, self.arguments, self.straight, self.fiber,
         self.differs) = fields
        self.aliases = []

    @property
    def cannot_block(self):
        """The expression for calls that are libc's at once, or nothing."""
        return "" if self.straight == "false" else self.straight


def _fields(text, at):
    """The arguments of the macro whose parenthesis opens before `at`, and where it closes."""
    depth, start, fields, quoted = 0, at, [], False
    while at < len(text):
        c = text[at]
        if quoted:
            if c == "\\":
                at += 1
            elif c == '"':
                quoted = False
        elif c == '"':
            quoted = True
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            if depth == 0:
                fields.append(text[start:at])
                return [" ".join(f.split()) for f in fields], at
            depth -= 1
        elif c == "," and depth == 0:
            fields.append(text[start:at])
            start = at + 1
        at += 1
    raise Malformed("a macro without an end")


def _string(field):
    """A string literal, or several that follow each other."""
    parts = re.findall(r'"((?:[^"\\]|\\.)*)"', field)
    return "".join(parts).replace('\\"', '"')


def _parts(path):
    """The files that the list consists of, in the order in which a compiler reads them."""
    with open(path, encoding="utf-8") as file:
        included = re.findall(r'^#include "(.*)"$', file.read(), re.MULTILINE)
    if not included:
        raise Malformed(f"{path}: includes no lists")
    return [os.path.join(ROOT, name) for name in included]


_LINE = re.compile(r"^// ---- (?P<section>.*)$|^(?P<macro>TENDRIL_INTERCEPT(?:_ALIAS)?)\(", re.MULTILINE)


def _read_part(path, by_name):
    """The entries of one file, put into by_name; aliases go to what they stand for."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    entries, section, at = [], None, 0
    while found := _LINE.search(text, at):
        at = found.end()
        if found["section"] is not None:
            section = found["section"].strip()
            continue
        fields, at = _fields(text, at)
        if found["macro"].endswith("_ALIAS"):
            if len(fields) != 2 or fields[1] not in by_name:
                raise Malformed(f"{path}: an alias of what? {fields}")
            by_name[fields[1]].aliases.append(fields[0])
            continue
        if len(fields) != 8:
            raise Malformed(f"{path}: {len(fields)} fields instead of 8: {fields}")
        fields[6:] = [_string(f) for f in fields[6:]]
        entry = Entry(section, fields)
        if section is None:
            raise Malformed(f"{path}: {entry.name} is in no section")
        if entry.name in by_name:
            raise Malformed(f"{path}: {entry.name} twice")
        by_name[entry.name] = entry
        entries.append(entry)
    if not entries:
        raise Malformed(f"{path}: no symbols")
    return entries


def read(path=DEFINITIONS):
    """The entries in the order of the list."""
    by_name = {}
    return [entry for part in _parts(path) for entry in _read_part(part, by_name)]


def covered(path=DEFINITIONS):
    """Every name that is defined, aliases too."""
    return {name for e in read(path) for name in [e.name, *e.aliases]}
