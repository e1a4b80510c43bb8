# SPDX-License-Identifier: Apache-2.0
#
#   check_binary_test.py <check_binary.py> <intercept_checked> <its library> <a static library>
#
# What the checker says of a program made for it, of files that it cannot read, and of client libraries that happen to be
# installed.
"""Tests of ./dev check-binary."""

import ctypes.util
import os
import re
import subprocess
import sys
import unittest

CHECKER, PROGRAM, LIBRARY, ARCHIVE = sys.argv[1:5]


def check(*arguments):
    run = subprocess.run([sys.executable, CHECKER, *arguments], capture_output=True, text=True, check=False)
    return run.returncode, run.stdout, run.stderr


def uncovered(text):
    """Name: who uses it."""
    return {name: users.split(", ")
            for name, users in re.findall(r"^    (\S+) +waits for .*; used by (.*)$", text, re.MULTILINE)}


class CheckBinary(unittest.TestCase):
    def test_a_program_and_its_library(self):
        status, out, _ = check(PROGRAM)
        left = uncovered(out)
        self.assertEqual(status, 1)
        self.assertEqual(left.get("pause"), [os.path.basename(PROGRAM)])
        self.assertEqual(left.get("fcloseall"), [os.path.basename(LIBRARY)])
        self.assertNotIn("read", left)
        self.assertRegex(out, r"\n  covered: \d+ functions that may wait: .*\bread\b")

    def test_a_library_alone(self):
        status, out, _ = check(LIBRARY)
        self.assertEqual(status, 1)
        self.assertEqual(list(uncovered(out)), ["fcloseall"])

    def test_calls_that_wait_for_a_disk(self):
        _, without, _ = check(LIBRARY)
        _, out, _ = check("--disk", LIBRARY)
        self.assertNotIn("pread", uncovered(without))
        self.assertIn("pread", {name.removesuffix("64") for name in uncovered(out)})

    def test_what_is_covered_altogether(self):
        name = ctypes.util.find_library("hiredis")
        paths = [os.path.join(folder, name) for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")
                 ] if name else []
        path = next((p for p in paths if os.path.exists(p)), None)
        if path is None:
            self.skipTest("hiredis is not installed")
        self.assertEqual(check(path)[0], 0)

    def test_client_libraries_are_read(self):
        found = 0
        for name in ("pq", "curl"):
            file = ctypes.util.find_library(name)
            path = file and os.path.join("/usr/lib/x86_64-linux-gnu", file)
            if not path or not os.path.exists(path):
                continue
            found += 1
            status, out, _ = check(path)
            self.assertIn(status, (0, 1))
            self.assertRegex(out, r"covered: \d+ functions that may wait: .*\bpoll\b.*\brecv\b")
        if not found:
            self.skipTest("neither libpq nor libcurl is installed")

    def test_files_that_are_no_programs(self):
        for path, why in ((ARCHIVE, "not an ELF file"), (__file__, "not an ELF file"),
                          ("/nowhere/at/all", "No such file")):
            status, _, err = check(path)
            self.assertEqual(status, 2)
            self.assertIn(why, err)

    def test_a_file_that_is_cut_off(self):
        cut = PROGRAM + ".cut"
        with open(PROGRAM, "rb") as whole, open(cut, "wb") as part:
            part.write(whole.read(70))
        status, _, err = check(cut)
        os.remove(cut)
        self.assertEqual(status, 2)
        self.assertIn("is cut off", err)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
