// SPDX-License-Identifier: Apache-2.0
//
// Compiled once or twice, with FOREIGN_LOOPS = unsplit or split: see foreign_calls.hpp. Nothing here
// may be shared by the two, so everything is a static function, and no header with inline functions of
// weight is used.

#include "bench/scenario/foreign_calls.hpp"
#include "bench/support/foreign/foreign.hpp"

#include <zlib.h>

namespace bench::foreign {
namespace {

// Each callee in a function that is entered for each call: what a linker adjusts is the entry of the
// function that calls, so a loop around the call itself pays once (in_loop shows that). keep() makes
// the caller come back, where a compiler would jump to the callee.

template <class T>
inline void keep(T& value) {
  asm volatile("" : "+r"(value));
}

template <unsigned Place>
[[gnu::noinline]] int call_plt(int x) {
  this_place<Place>();
  int result = foreign_trivial(x);
  keep(result);
  return result;
}

template <unsigned Place>
[[gnu::noinline]] int call_declared(int x) {
  this_place<Place>();
  int result = foreign_declared(x);
  keep(result);
  return result;
}

[[gnu::noinline]] int call_pointer(int (*f)(int), int x) {
  int result = f(x);
  keep(result);
  return result;
}

[[gnu::noinline]] int call_libffi(const callees& c, int x) {
  ffi_arg result = 0;
  void* arguments[1] = {&x};
  ffi_call(const_cast<ffi_cif*>(&c.cif), FFI_FN(c.trivial), &result, arguments);
  return static_cast<int>(result);
}

[[gnu::noinline]] unsigned long call_crc32(const callees& c, unsigned long sum) {
  unsigned long result = ::crc32(sum, c.bytes.data(), static_cast<unsigned>(c.bytes.size()));
  keep(result);
  return result;
}

[[gnu::noinline]] int call_sqlite(const callees& c, int x) {
  sqlite3_bind_int(c.statement, 1, x);
  const int result =
      sqlite3_step(c.statement) == SQLITE_ROW ? sqlite3_column_int(c.statement, 0) : -1;
  sqlite3_reset(c.statement);
  return result;
}

int add_one(void* argument) { return *static_cast<int*>(argument) + 1; }

[[gnu::noinline]] int call_callback(int x) {
  int result = foreign_callback(add_one, &x);
  keep(result);
  return result - 1;  // foreign_callback adds one of its own
}

[[gnu::noinline]] int call_throwing(int x) {
  try {
    return foreign_throw(x + 1);
  } catch (int thrown) {
    return thrown;
  }
}

struct in_loop {
  template <unsigned Place>
  [[gnu::noinline]] static std::uint64_t run(const callees&, long count) {
    this_place<Place>();
    int x = 0;
    for (long i = 0; i < count; ++i) x = foreign_trivial(x);
    return static_cast<std::uint64_t>(x);
  }
};

struct plt {
  template <unsigned Place>
  [[gnu::noinline]] static std::uint64_t run(const callees&, long count) {
    this_place<Place>();
    int x = 0;
    for (long i = 0; i < count; ++i) x = call_plt<Place>(x);
    return static_cast<std::uint64_t>(x);
  }
};

struct declared {
  template <unsigned Place>
  [[gnu::noinline]] static std::uint64_t run(const callees&, long count) {
    this_place<Place>();
    int x = 0;
    for (long i = 0; i < count; ++i) x = call_declared<Place>(x);
    return static_cast<std::uint64_t>(x);
  }
};

std::uint64_t pointer(const callees& c, long count) {
  int x = 0;
  for (long i = 0; i < count; ++i) x = call_pointer(c.trivial, x);
  return static_cast<std::uint64_t>(x);
}

std::uint64_t libffi(const callees& c, long count) {
  int x = 0;
  for (long i = 0; i < count; ++i) x = call_libffi(c, x);
  return static_cast<std::uint64_t>(x);
}

std::uint64_t crc32(const callees& c, long count) {
  unsigned long sum = 0;
  for (long i = 0; i < count; ++i) sum = call_crc32(c, sum);
  return sum;
}

std::uint64_t sqlite(const callees& c, long count) {
  int x = 0;
  for (long i = 0; i < count; ++i) x = call_sqlite(c, x);
  return static_cast<std::uint64_t>(x);
}

std::uint64_t callback(const callees&, long count) {
  int x = 0;
  for (long i = 0; i < count; ++i) x = call_callback(x);
  return static_cast<std::uint64_t>(x);
}

std::uint64_t throwing(const callees&, long count) {
  int x = 0;
  for (long i = 0; i < count; ++i) x = call_throwing(x);
  return static_cast<std::uint64_t>(x);
}

}  // namespace

loops FOREIGN_LOOPS() {
  return {at_places<in_loop>, at_places<plt>,     pointer, libffi, crc32, sqlite, callback,
          throwing,           at_places<declared>};
}

}  // namespace bench::foreign
