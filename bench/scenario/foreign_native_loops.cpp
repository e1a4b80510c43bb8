// SPDX-License-Identifier: Apache-2.0
//
// The loops of E8 that go through native_call: on a segmented fiber each call runs on the worker's native
// stack; elsewhere they are the plain calls of foreign_loops.cpp. The calls are made in the loops
// themselves: a function that uses native_call<&f> does not mention f, so no linker adjusts its entry.

#include "bench/scenario/foreign_calls.hpp"
#include "bench/support/foreign/foreign.hpp"

#include <tendril/ffi.hpp>

#include <zlib.h>

#include <algorithm>

namespace bench::foreign {
namespace {

/// x = step(x), count times.
template <class Step>
[[gnu::always_inline]] inline std::uint64_t repeat(long count, Step step) {
  int x = 0;
  for (long i = 0; i < count; ++i) x = step(x);
  return static_cast<std::uint64_t>(x);
}

struct trivial {
  template <unsigned Place>
  [[gnu::noinline]] static std::uint64_t run(const callees&, long count) {
    this_place<Place>();
    return repeat(count, [](int x) { return tendril::native_call<&foreign_trivial>(x); });
  }
};

struct trivial_noexcept {
  template <unsigned Place>
  [[gnu::noinline]] static std::uint64_t run(const callees&, long count) {
    this_place<Place>();
    return repeat(count, [](int x) { return tendril::native_call_noexcept<&foreign_trivial>(x); });
  }
};

struct trivial_batched {
  template <unsigned Place>
  [[gnu::noinline]] static std::uint64_t run(const callees&, long count) {
    int x = 0;
    for (long left = count; left > 0; left -= calls_in_batch)
      tendril::native_call([&x, now = std::min(left, calls_in_batch)] {
        this_place<Place>();
        int local = x;  // x itself might be the callee's to change: it has been given away
        for (long i = 0; i < now; ++i) local = foreign_trivial(local);
        x = local;
      });
    return static_cast<std::uint64_t>(x);
  }
};

std::uint64_t pointer(const callees& c, long count) {
  return repeat(count, [&c](int x) { return tendril::native_call(c.trivial, x); });
}

std::uint64_t libffi(const callees& c, long count) {
  return repeat(count, [&c](int x) {
    ffi_arg result = 0;
    void* arguments[1] = {&x};
    tendril::native_call<&ffi_call>(const_cast<ffi_cif*>(&c.cif), FFI_FN(c.trivial),
                                    static_cast<void*>(&result), arguments);
    return static_cast<int>(result);
  });
}

std::uint64_t crc32(const callees& c, long count) {
  unsigned long sum = 0;
  for (long i = 0; i < count; ++i)
    sum =
        tendril::native_call<&::crc32>(sum, c.bytes.data(), static_cast<unsigned>(c.bytes.size()));
  return sum;
}

std::uint64_t crc32_noexcept(const callees& c, long count) {
  unsigned long sum = 0;
  for (long i = 0; i < count; ++i)
    sum = tendril::native_call_noexcept<&::crc32>(sum, c.bytes.data(),
                                                  static_cast<unsigned>(c.bytes.size()));
  return sum;
}

/// One change of stacks for the four calls that belong together.
std::uint64_t sqlite(const callees& c, long count) {
  return repeat(count, [&c](int x) {
    return tendril::native_call([&c, x] {
      sqlite3_bind_int(c.statement, 1, x);
      const int result =
          sqlite3_step(c.statement) == SQLITE_ROW ? sqlite3_column_int(c.statement, 0) : -1;
      sqlite3_reset(c.statement);
      return result;
    });
  });
}

int add_one(void* argument) { return *static_cast<int*>(argument) + 1; }

std::uint64_t callback(const callees&, long count) {
  return repeat(count, [](int x) {
    // foreign_callback adds one of its own
    return tendril::native_call<&foreign_callback>(&add_one, static_cast<void*>(&x)) - 1;
  });
}

std::uint64_t throwing(const callees&, long count) {
  return repeat(count, [](int x) {
    try {
      return tendril::native_call<&foreign_throw>(x + 1);
    } catch (int thrown) {
      return thrown;
    }
  });
}

}  // namespace

loops native() {
  loops l{};
  l.in_loop = at_places<trivial>;
  l.pointer = pointer;
  l.libffi = libffi;
  l.crc32 = crc32;
  l.sqlite = sqlite;
  l.callback = callback;
  l.throwing = throwing;
  return l;
}

loops native_noexcept() {
  loops l{};
  l.in_loop = at_places<trivial_noexcept>;
  l.crc32 = crc32_noexcept;
  return l;
}

loops native_batched() {
  loops l{};
  l.in_loop = at_places<trivial_batched>;
  return l;
}

}  // namespace bench::foreign
