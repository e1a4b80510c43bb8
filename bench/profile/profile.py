#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Where the time of a throw goes: runs tendril-throws under callgrind (instructions, exact and repeatable) or perf
# (time, by sampling) for each model, and sorts functions into the parts of unwinding. Two runs with different
# counts are subtracted, so that what happens once (loading, warming up, building tables) is not counted.
#
#   profile.py PROGRAM [--tool callgrind|perf|both] [--models plain,task] [--frames 1,64] [--functions]

import argparse
import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile

# The first pattern that matches decides. Names as in libgcc's unwind-dw2.c, unwind-dw2-fde*.c and libsupc++.
PARTS = [
    ("find FDE", r"_Unwind_Find_FDE|_dl_find_object|_dl_find_dso|find_fde_tail|search_object|unseen_|"
                 r"linear_search|binary_search|dl_iterate_phdr|dl_iterate|frame_hdr|init_object|base_from|"
                 r"get_cie_encoding|read_encoded_value_with_base|size_of_encoded"),
    ("CFA programs", r"execute_cfa_program|uw_frame_state_for|uw_update_context|extract_cie_info|"
                     r"execute_stack_op|uw_install_context|uw_init_context|_Unwind_(Get|Set)GR|read_sleb|"
                     r"read_uleb|uw_identify|init_dwarf_reg|uw_copy_context|uw_advance"),
    ("personality", r"__gxx_personality|parse_lsda|get_ttype|check_exception_spec|get_adjusted_ptr|"
                    r"__do_catch|can_catch|type_info|strcmp|read_encoded_value|base_of_encoded|"
                    r"_Unwind_GetLanguage|_Unwind_GetRegionStart|_Unwind_GetIPInfo|_Unwind_SetIP|"
                    r"_Unwind_GetTextRel|_Unwind_GetDataRel"),
    ("rethrow", r"rethrow_exception|__cxa_rethrow|_Unwind_Resume_or_Rethrow|current_exception|exception_ptr|"
                r"dependent_exception"),
    ("driver", r"_Unwind_RaiseException|_Unwind_ForcedUnwind|_Unwind_Resume|__cxa_throw|__cxa_begin_catch|"
               r"__cxa_end_catch|__cxa_get_globals|_Unwind_DeleteException|__cxa_init_primary|"
               r"gxx_exception_cleanup|get_globals|__cxa_get_exception_ptr|tls_get_addr"),
    ("allocation", r"^(_int_)?(malloc|free|calloc|realloc)|tcache|_int_|unlink_chunk|__cxa_(allocate|free)|"
                   r"operator (new|delete)|allocate_frame|free_frame|arena|_mid_memalign|memset|memcpy|memmove|"
                   r"pool::"),
    ("landing pads", r"finally|locals|run_code|\[clone \.cold\]|\.cold"),
]
REST = "the model"


def part_of(function):
    for name, pattern in PARTS:
        if re.search(pattern, function):
            return name
    return REST


def arguments(setup, count):
    model, frames, finally_, suspend = setup
    return (["--model", model, "--frames", str(frames), "--count", str(count)]
            + (["--finally"] if finally_ else []) + (["--suspend"] if suspend else []))


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit("failed: %s\n%s" % (" ".join(command), done.stderr[-2000:]))


def callgrind(program, setup, count, folder):
    """Instructions by function."""
    out = os.path.join(folder, "callgrind.out")
    run(["valgrind", "--tool=callgrind", "--compress-strings=no", "--compress-pos=no",
         "--callgrind-out-file=" + out, program] + arguments(setup, count))
    costs = collections.Counter()
    function, inclusive = "?", False
    with open(out) as lines:
        for line in lines:
            if line.startswith("fn="):
                function = re.sub(r"'\d+$", "", line[3:].strip())
            elif line.startswith("calls="):
                inclusive = True  # the next line is what the callee took
            elif re.match(r"[\d+*-]", line):
                if not inclusive:
                    costs[function] += int(line.split()[1])
                inclusive = False
    return costs


def perf(program, setup, count, folder):
    """Samples by function."""
    out = os.path.join(folder, "perf.data")
    run(["perf", "record", "-q", "-e", "cpu-clock:u", "-F", "10000", "-o", out, program]
        + arguments(setup, count))
    text = subprocess.run(["perf", "report", "-q", "--stdio", "-i", out, "--sort", "symbol", "-F",
                           "sample,symbol", "--no-children"], capture_output=True, text=True).stdout
    costs = collections.Counter()
    for line in text.splitlines():
        found = re.match(r"\s*(\d+)\s+\[.\]\s+(.*\S)", line)
        if found:
            costs[found.group(2)] += int(found.group(1))
    return costs


def table(title, unit, rows, parts):
    print("\n%s\n" % title)
    print("| model | frames | destructors | suspended | %s | %s |" % (unit, " | ".join(parts)))
    print("|" + "---|" * (5 + len(parts)))
    for (model, frames, finally_, suspend), total, shares in rows:
        print("| %s | %d | %s | %s | %s | %s |" % (
            model, frames, "yes" if finally_ else "no", "yes" if suspend else "no", total,
            " | ".join("%.0f %%" % (100 * shares.get(p, 0)) for p in parts)))


def shares_of(costs):
    total = sum(costs.values()) or 1
    by_part = collections.Counter()
    for function, cost in costs.items():
        by_part[part_of(function)] += cost / total
    return by_part


def main():
    parser = argparse.ArgumentParser(description="Where the time of a throw goes.")
    parser.add_argument("program")
    parser.add_argument("--tool", choices=["callgrind", "perf", "both"], default="both")
    parser.add_argument("--models", default="plain,fiber,async1,task,task/passing,lean")
    parser.add_argument("--frames", default="1,64")
    parser.add_argument("--functions", action="store_true", help="the ten costliest functions of each row, too")
    options = parser.parse_args()
    tools = ["callgrind", "perf"] if options.tool == "both" else [options.tool]
    for tool in tools:
        if shutil.which("valgrind" if tool == "callgrind" else tool) is None:
            sys.exit("%s is not installed; ./dev profile installs it, or choose another with --tool" % tool)
    parts = [name for name, _ in PARTS] + [REST]
    setups = [(model, int(frames), finally_, suspend)
              for model in options.models.split(",") for frames in options.frames.split(",")
              for finally_ in ((False, True) if int(frames) > 1 else (False,))  # the lowest has none
              for suspend in ((False, True) if model != "plain" else (False,))]
    with tempfile.TemporaryDirectory() as folder:
        for tool in tools:
            rows = []
            for setup in setups:
                if tool == "callgrind":
                    few, many = 100, 300
                    costs = callgrind(options.program, setup, many, folder)
                    costs.subtract(callgrind(options.program, setup, few, folder))
                    total = "{:,.0f}".format(sum(costs.values()) / (many - few))
                else:
                    count = 400_000 // (setup[1] + 20)
                    costs = perf(options.program, setup, count, folder)
                    total = "%.1f" % (sum(costs.values()) * 100 / count)  # a sample is 100 us
                rows.append((setup, total, shares_of(costs)))
                if options.functions:
                    model, frames, finally_, suspend = setup
                    print("\n%s: %s, %d frames%s%s" % (tool, model, frames, ", destructors" if finally_ else "",
                                                      ", suspended" if suspend else ""))
                    whole = sum(costs.values()) or 1
                    for function, cost in costs.most_common(10):
                        print("  %5.1f %%  %-13s %s" % (100 * cost / whole, part_of(function), function[:90]))
            table("Instructions (callgrind)" if tool == "callgrind" else "Time (perf, cpu-clock)",
                  "instructions a throw" if tool == "callgrind" else "us a throw", rows, parts)


main()
