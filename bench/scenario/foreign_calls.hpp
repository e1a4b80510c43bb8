// SPDX-License-Identifier: Apache-2.0
//
// The loops of E8: each makes `count` calls into a library that knows nothing of fibers, as a program
// would that uses that library. The file with those that need no help from Tendril is compiled twice:
// as any program's code is (unsplit) and for segmented stacks (split), the latter in
// tendril-experiments-segmented alone.
//
// A loop around a call of a few cycles takes half as long again at some addresses as at others, whatever it
// is aligned to: where branches lie decides how the processor predicts them. So those of the trivial callee exist
// at several places, each makes its share of the calls, and what is compared is the mean over places.
//
// Each call depends on the result of the one before, so that none can be left out or overlap, and a
// loop returns what came out at the end, for the caller to verify.
#pragma once

#include <ffi.h>
#include <sqlite3.h>

#include <array>
#include <cstdint>
#include <utility>

namespace bench::foreign {

/// What the loops call, looked up and prepared beforehand on the main thread.
struct callees {
  int (*trivial)(int) = nullptr;  ///< foreign_trivial, by dlsym
  ffi_cif cif{};                  ///< int (int), for libffi
  ffi_type* argument_types[1] = {nullptr};
  sqlite3* database = nullptr;
  sqlite3_stmt* statement = nullptr;  ///< select ?1 + 1
  std::array<unsigned char, 64> bytes{};

  /// Throws std::runtime_error naming the library that failed.
  callees();
  ~callees();
  callees(const callees&) = delete;
  callees& operator=(const callees&) = delete;
};

using loop = std::uint64_t (*)(const callees& c, long count);

inline constexpr unsigned places = 8;

/// L::run<0> to L::run<places - 1>, the same code at as many addresses, which they keep apart by
/// naming their own: compilers make one of functions that are the same.
template <class L>
std::uint64_t at_places(const callees& c, long count) {
  return [&]<unsigned... Place>(std::integer_sequence<unsigned, Place...>) {
    return (L::template run<Place>(c, count / places) + ...);
  }
  (std::make_integer_sequence<unsigned, places>());
}

/// In the function that is at this place.
template <unsigned Place>
[[gnu::always_inline]] inline void this_place() {
  asm volatile("" : : "i"(Place));
}

/// One for each callee, and `in_loop`: foreign_trivial called in the loop itself, where the others
/// (and `plt`) call from a function of its own that is entered for each call.
struct loops {
  loop in_loop;
  loop plt;
  loop pointer;   ///< foreign_trivial through the pointer from dlsym
  loop libffi;    ///< foreign_trivial through ffi_call
  loop crc32;     ///< zlib, 64 bytes
  loop sqlite;    ///< bind, step, column, reset of a prepared statement
  loop callback;  ///< foreign_callback, which calls back
  loop throwing;  ///< foreign_throw, caught here
  loop declared;  ///< foreign_declared, as `plt` calls foreign_trivial
};

loops unsplit();
loops split();  ///< in tendril-experiments-segmented alone

/// Through native_call; what a variant does not have is null.
loops native();
loops native_noexcept();
loops native_batched();  ///< one native_call around calls_in_batch calls

inline constexpr long calls_in_batch = 1000;

}  // namespace bench::foreign
