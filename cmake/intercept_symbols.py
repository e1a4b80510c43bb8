# SPDX-License-Identifier: Apache-2.0
#
# Reads platform/intercept_symbols.def: for the table in docs/interception.md and for check_binary.py.
"""The symbols that tendril::intercept defines."""

import os
import re

DEFINITIONS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "platform",
                           "intercept_symbols.def")


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


def _text(field):
    """A string literal, or several that follow each other."""
    parts = re.findall(r'"((?:[^"\\]|\\.)*)"', field)
    return "".join(parts).replace('\\"', '"')


def read(path=DEFINITIONS):
    """The entries in the order of the file."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    entries, by_name, section = [], {}, ""
    pattern = re.compile(r"^// ---- (?P<section>.*)$|^(?P<macro>TENDRIL_INTERCEPT(?:_ALIAS)?)\(",
                         re.MULTILINE)
    at = 0
    while True:
        found = pattern.search(text, at)
        if not found:
            break
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
        fields[6:] = [_text(f) for f in fields[6:]]
        entry = Entry(section, fields)
        if entry.name in by_name:
            raise Malformed(f"{path}: {entry.name} twice")
        by_name[entry.name] = entry
        entries.append(entry)
    if not entries:
        raise Malformed(f"{path}: no symbols")
    return entries


def covered(path=DEFINITIONS):
    """Every name that is defined, aliases too."""
    return {name for e in read(path) for name in [e.name, *e.aliases]}
