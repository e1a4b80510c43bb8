#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Generates the shapes of functions that the ABI test calls: generate.py --seed N --compiler C --output DIR.

What passes between a caller and a callee when the call begins a new segment must arrive as if it had
not: registers of every class, arguments on the stack (they are copied), hidden result pointers, the
static chain, results. Compilers decide all that from the types, so the types are generated: first each
kind of argument and result by itself, then mixtures from the seed. Callers and callees are in separate
files, so that no call is inlined; both compute the values from shape, place and depth.

Rejected: foreign-function libraries, which know none of alignment, classes, chains or hidden pointers
of C++; a list written by hand, which has the cases one thought of.

Writes types.hpp, callees_K.cpp, callers_K.cpp, varargs_callees.cpp, shapes.cpp, for gcc nested.c.
"""
import argparse
import os
import random

FILES = 4  # pairs of callers and callees; the build compiles each pair with another -O


class Type:
    """How a type is spelled, made, compared. `vector`: bytes of a vector in it, else 0."""

    def __init__(self, name, vector=0, move=False, extra="", va=None):
        self.name, self.vector, self.move = name, vector, move
        self.definition = extra
        self.va = va  # usable behind an ellipsis

    def local(self, variable, key):
        if self.vector:
            return f"{self.name} {variable}; abi::fill({variable}, {key});"
        return f"{self.name} {variable} = abi::make<{self.name}>({key});"

    def check(self, variable, key):
        if self.vector:
            return f"abi::filled({variable}, {key})"
        if self.move:
            return f"abi::same<{self.name}>({variable}, abi::make<{self.name}>({key}))"
        return f"abi::same<{self.name}>({variable}, abi::make<{self.name}>({key}))"

    def passed(self, variable):
        return f"std::move({variable})" if self.move else variable


SCALARS = [Type(n, va=v) for n, v in [
    ("bool", False), ("char", False), ("signed char", False), ("unsigned char", False),
    ("short", False), ("unsigned short", False), ("int", True), ("unsigned", True),
    ("long", True), ("unsigned long", True), ("long long", True), ("char16_t", False),
    ("float", False), ("double", True), ("long double", True), ("void*", True), ("const char*", True),
    ("abi::small", False), ("abi::wide", False),
    # Behind an ellipsis clang 19 misplaces them, with any stack.
    ("abi::i128", False), ("abi::u128", False)]]
COMPLEX = [Type(f"std::complex<{t}>") for t in ("float", "double", "long double")]
VECTORS = [Type("abi::v4f", 16), Type("abi::v2d", 16)]
WIDE_VECTORS = [Type("abi::v8f", 32), Type("abi::v16f", 64)]
OBJECTS = [Type("std::string"), Type("std::unique_ptr<abi::u64>", move=True), Type("abi::tracked"),
           Type("abi::nothing")]


def structure(index, fields, align=0, packed=False, union=False):
    """fields: (type name, array length or 0, bits or 0)"""
    name = f"s{index}"
    attributes = (f"alignas({align}) " if align else "") + ("__attribute__((packed)) " if packed else "")
    kind = "union" if union else "struct"
    out = [f"{kind} {attributes}{name} {{"]
    for i, (t, count, bits) in enumerate(fields):
        out.append(f"  {t} m{i}{f'[{count}]' if count else ''}{f' : {bits}' if bits else ''};")
    out.append("};")
    make, same = [], []
    for i, (t, count, bits) in enumerate(fields):
        if union and i:
            break  # the first member is the one in use
        key = f"abi::mix(seed + {i + 1})"
        if bits:
            make.append(f"    v.m{i} = static_cast<{t}>({key} & {(1 << (bits - (0 if 'unsigned' in t else 1))) - 1});")
            same.append(f"a.m{i} == b.m{i}")
        elif count:
            make.append(f"    for (int i = 0; i < {count}; ++i) v.m{i}[i] = abi::make<{t}>({key} + abi::u64(i));")
            same.append(f"[&] {{ for (int i = 0; i < {count}; ++i) if (!(a.m{i}[i] == b.m{i}[i])) return false; "
                        "return true; }()")
        else:
            make.append(f"    v.m{i} = abi::make<{t}>({key});")
            same.append(f"a.m{i} == b.m{i}")
    if align:  # the callee may assume it, and so do instructions that it uses
        same.append(f"reinterpret_cast<std::uintptr_t>(&a) % {align} == 0")
    out.append(f"template <> struct abi::value<{name}> {{")
    out.append(f"  static {name} make(u64 seed) {{\n    {name} v{{}};\n" + "\n".join(make) + "\n    return v;\n  }")
    out.append(f"  static bool same(const {name}& a, const {name}& b) {{\n    return {' && '.join(same)};\n  }}\n}};")
    return Type(name, extra="\n".join(out) + "\n", va=not align)


def structures(rng):
    plain = ["char", "short", "int", "long", "float", "double"]
    made = []

    def add(*arguments, **options):
        made.append(structure(len(made), *arguments, **options))

    for size in list(range(1, 18)) + [20, 24, 31, 32, 33, 40, 48, 63, 64, 65, 96, 128, 200, 256]:
        add([("unsigned char", size, 0)])
    for fields in (["float"], ["float"] * 2, ["float"] * 3, ["float"] * 4, ["float"] * 5, ["double"],
                   ["double"] * 2, ["double"] * 3, ["long double"], ["long double"] * 2, ["abi::i128"],
                   ["double", "long"], ["long", "double"], ["float", "int"], ["int", "float", "float"],
                   ["float", "float", "int"], ["char", "double"], ["double", "char"], ["long"] * 2,
                   ["long"] * 3, ["void*", "int"], ["char", "abi::i128"], ["long double", "char"],
                   ["float", "double", "float"], ["char", "short", "int", "long"]):
        add([(t, 0, 0) for t in fields])
    add([("int", 3, 0), ("float", 0, 0)])
    add([("float", 2, 0), ("double", 0, 0)])
    add([("unsigned", 0, 3), ("unsigned", 0, 13), ("int", 0, 16), ("unsigned long", 0, 33)])
    add([("char", 0, 0), ("double", 0, 0), ("short", 0, 0)], packed=True)
    add([("long", 0, 0), ("char", 0, 0)], packed=True)
    add([("double", 0, 0), ("unsigned char", 8, 0)], union=True)
    add([("long", 4, 0), ("char", 0, 0)], union=True)
    for align in (16, 32, 64):
        add([("int", 0, 0)], align=align)
        add([("double", 3, 0), ("int", 0, 0)], align=align)
        add([("float", 16, 0), ("char", 0, 0)], align=align)
    for _ in range(12):
        add([(rng.choice(plain), rng.choice([0, 0, 0, 2, 3]), 0) for _ in range(rng.randint(1, 6))])
    return made


class Shape:
    def __init__(self, result, arguments, kind="free", references=(), rest=(), body="plain"):
        self.result, self.arguments, self.kind = result, arguments, kind
        self.references = dict(references)  # place -> "&", "const&", "&&"
        self.rest = rest  # behind the ellipsis
        self.body = body

    def vector_bytes(self):
        every = list(self.arguments) + list(self.rest) + ([self.result] if self.result else [])
        return max([t.vector for t in every], default=0)

    def target(self):
        return {32: '__attribute__((target("avx"))) ', 64: '__attribute__((target("avx512f"))) '}.get(
            self.vector_bytes(), "")

    def parameter(self, i, name=True):
        t, how = self.arguments[i], self.references.get(i)
        text = t.name
        if how == "&":
            text += "&"
        elif how == "const&":
            text = f"const {t.name}&" if not t.name.endswith("*") else f"{t.name} const&"
        elif how == "&&":
            text += "&&"
        return text + (f" a{i}" if name else "")

    def parameters(self, name=True):
        every = [self.parameter(i, name) for i in range(len(self.arguments))]
        return ", ".join(every + (["..."] if self.rest else []))

    def result_name(self):
        return self.result.name if self.result else "void"

    def noexcept(self):
        return " noexcept" if self.kind == "noexcept" else ""

    def what(self):
        return f"{self.kind} {self.result_name()} ({self.parameters(False)})" + (
            "".join(f" +{t.name}" for t in self.rest)) + f", {self.body}"


def key(n, place):
    return f"abi::key({n}, {place})"


def declaration(n, s):
    r, p = s.result_name(), s.parameters(False)
    if s.kind in ("member", "constructor"):
        head = f"  h{n}({p});\n  int mark;" if s.kind == "constructor" else f"  {s.target()}{r} f({p}) const;\n  abi::u64 tag;"
        return f"struct h{n} {{\n{head}\n}};\n"
    if s.kind == "virtual":
        return (f"struct h{n} {{\n  {s.target()}virtual {r} f({p}) = 0;\n  virtual ~h{n}() = default;\n"
                f"  abi::u64 tag = 0;\n}};\nh{n}& object_{n}();\n")
    return f"{s.target()}{r} f{n}({p}){s.noexcept()};\n"


def callee(n, s, rng):
    # Prologues of frames below 256 bytes let them begin anywhere above the limit; larger ones end there.
    size = rng.choice([272, 320, 400, 600, 1000])
    lines = [f"  volatile char pad[{size}];", "  abi::keep(pad);", f"  pad[0] = 1; pad[{size - 1}] = 2;",
             f"  abi::entered({n}, abi::limit_word());"]
    if s.kind in ("member", "virtual"):
        lines.append(f"  abi::check(this->tag == {key(n, 400)}, {n}, 200);")
    if s.kind == "constructor":
        lines.append(f"  mark = {n};")
    for i, t in enumerate(s.arguments):
        if s.references.get(i) == "&":
            lines.append(f"  abi::check({t.check(f'a{i}', key(n, i))}, {n}, {i});")
            lines.append(f"  {{ {t.local('now', key(n, 500 + i))} a{i} = {t.passed('now')}; }}")
        else:
            lines.append(f"  abi::check({t.check(f'a{i}', key(n, i))}, {n}, {i});")
    if s.rest:
        lines.append(f"  va_list rest; va_start(rest, a{len(s.arguments) - 1});")
        for j, t in enumerate(s.rest):
            i = len(s.arguments) + j
            lines.append(f"  {{ {t.name} v = va_arg(rest, {t.name}); abi::check({t.check('v', key(n, i))}, {n}, {i}); }}")
        lines.append("  va_end(rest);")
    if s.body == "alloca":
        lines += [f"  const unsigned bytes = 16 + unsigned({key(n, 600)} % 3000);",
                  "  volatile char* more = static_cast<volatile char*>(__builtin_alloca(bytes));",
                  "  more[0] = 3; more[bytes - 1] = 4;", "  user_of_memory(const_cast<char*>(more), bytes);",
                  f"  abi::check(more[0] == 3 && more[bytes - 1] == 4, {n}, 201);"]
    elif s.body == "vla":
        lines += [f"  const unsigned bytes = 16 + unsigned({key(n, 600)} % 3000);",
                  "  volatile char more[bytes];", "  more[0] = 3; more[bytes - 1] = 4;",
                  "  user_of_memory(const_cast<char*>(more), bytes);",
                  f"  abi::check(more[0] == 3 && more[bytes - 1] == 4, {n}, 201);"]
    elif s.body == "aligned":
        align = rng.choice([32, 64, 128])
        lines += [f"  alignas({align}) volatile char more[{align}]; more[0] = 5;",
                  "  user_of_memory(const_cast<char*>(more), 1);",
                  f"  abi::check(reinterpret_cast<std::uintptr_t>(&more[0]) % {align} == 0 && more[0] == 5, {n}, 202);"]
    elif s.body == "throws":
        lines += [f"  try {{ thrower({n}); abi::check(false, {n}, 203); }} catch (int e) {{ abi::check(e == {n}, {n}, 203); }}"]
    elif s.body == "deep":
        lines += [f"  abi::check(deeper(20, {key(n, 600)}) == {key(n, 600)} + 20, {n}, 204);"]
    lines.append(f"  abi::check(pad[0] == 1 && pad[{size - 1}] == 2, {n}, 205);")
    if s.result:
        lines.append(f"  {s.result.local('r', key(n, 100))}\n  return r;")
    body = "\n".join(lines)
    r, p = s.result_name(), s.parameters()
    if s.kind == "member":
        return f"{s.target()}{r} h{n}::f({p}) const {{\n{body}\n}}\n"
    if s.kind == "constructor":
        return f"h{n}::h{n}({p}) {{\n{body}\n}}\n"
    if s.kind == "virtual":
        return (f"namespace {{\nstruct d{n} : h{n} {{\n  {s.target()}{r} f({p}) override {{\n{body}\n  }}\n}};\n}}\n"
                f"h{n}& object_{n}() {{\n  static d{n} o;\n  o.tag = {key(n, 400)};\n  return o;\n}}\n")
    return f"{s.target()}{r} f{n}({p}){s.noexcept()} {{\n{body}\n}}\n"


def caller(n, s):
    lines = [f"  const abi::u64 kept = {key(n, 101)};", f"  volatile double kept_too = double(kept >> 12);"]
    passed = []
    every = list(s.arguments) + list(s.rest)
    for i, t in enumerate(every):
        lines.append(f"  {t.local(f'a{i}', key(n, i))}")
        how = s.references.get(i)
        passed.append(f"a{i}" if how in ("&", "const&") else f"std::move(a{i})" if how == "&&" or t.move else f"a{i}")
    call = f"f{n}({', '.join(passed)})"
    if s.kind == "member":
        lines.append(f"  h{n} host; host.tag = {key(n, 400)};")
        call = f"host.f({', '.join(passed)})"
    elif s.kind == "virtual":
        lines.append(f"  h{n}& host = object_{n}();")
        call = f"host.f({', '.join(passed)})"
    elif s.kind == "pointer":
        lines.append(f"  {s.result_name()} (*volatile pointer)({s.parameters(False)}) = f{n};")
        call = f"pointer({', '.join(passed)})"
    elif s.kind == "constructor":
        call = f"h{n} host({', '.join(passed)})" if passed else f"h{n} host{{}}"
    lines.append("  abi::leaving(abi::limit_word());")
    if s.kind == "constructor":
        lines += [f"  {call};", f"  abi::check(host.mark == {n}, {n}, 100);"]
    elif s.result:
        lines += [f"  {s.result.name} r = {call};", f"  abi::check({s.result.check('r', key(n, 100))}, {n}, 100);"]
    else:
        lines.append(f"  {call};")
    lines.append(f"  abi::check(kept == {key(n, 101)} && kept_too == double(kept >> 12), {n}, 101);")
    for i, t in enumerate(s.arguments):
        how = s.references.get(i)
        if how == "&":
            lines.append(f"  abi::check({t.check(f'a{i}', key(n, 500 + i))}, {n}, {102 + i});")
        elif how == "const&" or not t.move and how != "&&":
            lines.append(f"  abi::check({t.check(f'a{i}', key(n, i))}, {n}, {102 + i});")
    return f"{s.target()}void call_{n}() {{\n" + "\n".join(lines) + "\n}\n"


def shapes(rng, structs):
    values = SCALARS + COMPLEX + VECTORS + structs
    every = values + WIDE_VECTORS + OBJECTS
    integer, real, int128 = SCALARS[6], SCALARS[13], SCALARS[19]
    out = []
    # Each type by itself, as the argument and the result, and behind others that fill the registers.
    for t in every:
        out.append(Shape(t, [t]))
    for t in rng.sample(structs, 24) + COMPLEX + OBJECTS + WIDE_VECTORS + VECTORS + [int128]:
        out.append(Shape(t, [integer] * 5 + [t] + [real] * 8 + [t, t, integer]))
    # Nothing but one class, many times.
    for t in (SCALARS[0], SCALARS[1], integer, SCALARS[12], real, SCALARS[14], int128, VECTORS[0], structs[30],
              structs[60]):
        out.append(Shape(integer, [t] * rng.randint(20, 28)))
    out.append(Shape(None, []))
    # Mixtures.
    kinds = ["free", "member", "virtual", "pointer", "noexcept", "constructor"]
    bodies = ["plain", "plain", "alloca", "vla", "aligned", "throws", "deep"]
    while len(out) < 250:
        kind = rng.choice(kinds)
        arguments = [rng.choice(every if rng.random() < 0.2 else values) for _ in
                     range(rng.choice([0, 1, 2, 3, 4, 6, 8, 12, 20, 24]))]
        references = {i: rng.choice(["&", "const&", "&&"]) for i, t in enumerate(arguments)
                      if rng.random() < 0.15 and not t.vector and t.name != "abi::nothing"}
        result = None if kind == "constructor" else rng.choice(every + [None])
        if kind == "constructor" and any(t.vector > 16 for t in arguments):
            continue
        out.append(Shape(result, arguments, kind, references, body=rng.choice(bodies)))
    # Ellipses.
    variable = [t for t in SCALARS + structs if t.va] + VECTORS
    for _ in range(30):
        fixed = [rng.choice(SCALARS + structs) for _ in range(rng.randint(0, 4))] + [integer]
        out.append(Shape(rng.choice(values), fixed, "varargs",
                         rest=[rng.choice(variable) for _ in range(rng.choice([1, 2, 5, 10, 20]))]))
    return out


HELPERS = """
namespace {
[[maybe_unused, gnu::noinline]] void user_of_memory(char* p, unsigned bytes) {
  __asm__ volatile("" : : "r"(p), "r"(bytes) : "memory");
}
[[maybe_unused, gnu::noinline]] void thrower(int n) {
  abi::tracked t(static_cast<abi::u64>(n));
  volatile char pad[300];
  abi::keep(pad);
  pad[0] = 1;
  if (t.is(static_cast<abi::u64>(n)) && pad[0] == 1) throw n;
}
[[maybe_unused, gnu::noinline]] abi::u64 deeper(int n, abi::u64 x) {
  volatile char pad[300];
  abi::keep(pad);
  pad[99] = static_cast<char>(n);
  const abi::u64 below = n == 0 ? x : deeper(n - 1, x) + 1;
  return pad[99] == static_cast<char>(n) ? below : 0;
}
}  // namespace
"""


def nested(rng, first):
    """C, where gcc has nested functions: the static chain travels in a register of its own."""
    types = {"int": "i", "long": "l", "double": "d", "long double": "D", "struct trio": "t", "float": "f"}
    out = ["""#include <stdint.h>
extern uint64_t abi_c_key(int, int);
extern void abi_c_leaving(void);
extern void abi_c_entered(int);
extern void abi_c_check(int, int, int);
struct trio { long a, b; double c; };
static int make_i(uint64_t k) { return (int)k; }
static long make_l(uint64_t k) { return (long)k; }
static double make_d(uint64_t k) { return (double)(int)k / 16; }
static float make_f(uint64_t k) { return (float)(short)k; }
static long double make_D(uint64_t k) { return (long double)(long)k; }
static struct trio make_t(uint64_t k) { struct trio v = {(long)k, (long)(k * 3), (double)(int)k}; return v; }
static int same_i(int a, int b) { return a == b; }
static int same_l(long a, long b) { return a == b; }
static int same_d(double a, double b) { return a == b; }
static int same_f(float a, float b) { return a == b; }
static int same_D(long double a, long double b) { return a == b; }
static int same_t(struct trio a, struct trio b) { return a.a == b.a && a.b == b.b && a.c == b.c; }
"""]
    what = []
    for n in range(first, first + 20):
        names = [rng.choice(list(types)) for _ in range(rng.choice([0, 1, 3, 6, 7, 9, 14, 20]))]
        result = rng.choice(list(types))
        parameters = ", ".join(f"{t} a{i}" for i, t in enumerate(names)) or "void"
        lines = [f"static __attribute__((noinline)) void parent_{n}(volatile long chained) {{",
                 f"  long touched = 0;", f"  __attribute__((noinline)) {result} inner({parameters}) {{",
                 "    volatile char pad[400];", '    __asm__ volatile("" : : "r"(pad) : "memory");', "    pad[0] = 1;", "    pad[399] = 2;", f"    abi_c_entered({n});",
                 f"    abi_c_check(chained == make_l(abi_c_key({n}, 400)), {n}, 200);", "    touched = chained + 1;"]
        for i, t in enumerate(names):
            lines.append(f"    abi_c_check(same_{types[t]}(a{i}, make_{types[t]}(abi_c_key({n}, {i}))), {n}, {i});")
        lines.append(f"    abi_c_check(pad[0] == 1 && pad[399] == 2, {n}, 205);")
        lines += [f"    return make_{types[result]}(abi_c_key({n}, 100));", "  }", "  abi_c_leaving();",
                  f"  {result} r = inner({', '.join(f'make_{types[t]}(abi_c_key({n}, {i}))' for i, t in enumerate(names))});",
                  f"  abi_c_check(same_{types[result]}(r, make_{types[result]}(abi_c_key({n}, 100))), {n}, 100);",
                  f"  abi_c_check(touched == chained + 1, {n}, 101);", "}",
                  f"void call_{n}(void) {{ parent_{n}(make_l(abi_c_key({n}, 400))); }}"]
        out.append("\n".join(lines) + "\n")
        what.append(f"nested {result} ({parameters})")
    return "\n".join(out), what


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--compiler", choices=("gcc", "clang"), required=True,
                        help="gcc has nested functions in C; clang splits no variadic function")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    structs = structures(rng)
    all_shapes = shapes(rng, structs)
    os.makedirs(options.output, exist_ok=True)
    head = f"// Generated by generate.py --seed {options.seed}.\n"

    def write(name, text):
        with open(os.path.join(options.output, name), "w", encoding="utf-8") as f:
            f.write(head + text)

    write("types.hpp", '#pragma once\n#include "abi.hpp"\n#include <utility>\n' +
          "\n".join(t.definition for t in structs) + "\n" +
          "".join(declaration(n, s) for n, s in enumerate(all_shapes)))
    callees, callers = [[] for _ in range(FILES)], [[] for _ in range(FILES)]
    variable = []
    for n, s in enumerate(all_shapes):
        (variable if s.rest else callees[n % FILES]).append(callee(n, s, rng))
        callers[n % FILES].append(caller(n, s))
    for i in range(FILES):
        write(f"callees_{i}.cpp", '#include "types.hpp"\n' + HELPERS + "\n".join(callees[i]))
        write(f"callers_{i}.cpp", '#include "types.hpp"\n' + "\n".join(callers[i]))
    write("varargs_callees.cpp", '#include "types.hpp"\n#include <cstdarg>\n' + "\n".join(variable))

    def crosses(s):
        # Operations on strings are the library's, which is not split: their caller moves, then stays.
        strings = any("string" in t.name for t in list(s.arguments) + [s.result] if t)
        return not strings and not (s.rest and options.compiler == "clang")

    table = [(f"call_{n}", s.what(), s.vector_bytes(), crosses(s)) for n, s in enumerate(all_shapes)]
    text = '#include "abi.hpp"\n' + "".join(f"void call_{n}();\n" for n in range(len(all_shapes)))
    if options.compiler == "gcc":
        c, what = nested(rng, len(all_shapes))
        write("nested.c", c)
        text += """extern "C" {
abi::u64 abi_c_key(int shape, int place);
void abi_c_leaving();
void abi_c_entered(int shape);
void abi_c_check(int same, int shape, int place);
abi::u64 abi_c_key(int shape, int place) { return abi::key(shape, place); }
void abi_c_leaving() { abi::leaving(abi::limit_word()); }
void abi_c_entered(int shape) { abi::entered(shape, abi::limit_word()); }
void abi_c_check(int same, int shape, int place) { abi::check(same != 0, shape, place); }
"""
        for i, w in enumerate(what):
            n = len(all_shapes) + i
            text += f"void call_{n}();\n"
            table.append((f"call_{n}", w, 0, True))
        text += "}\n"
    text += "namespace abi {\nextern const shape shapes[];\nextern const int shape_count;\nconst shape shapes[] = {\n"
    text += "".join(f'    {{{name}, "{w}", {v}, {str(c).lower()}}},\n' for name, w, v, c in table)
    text += f"}};\nconst int shape_count = {len(table)};\n}}  // namespace abi\n"
    write("shapes.cpp", text)
    print(f"{len(table)} shapes from seed {options.seed}")


if __name__ == "__main__":
    main()
