// SPDX-License-Identifier: Apache-2.0
//
// Compiled once or twice, with FIB = fib_unsplit or fib_split: see fib.hpp.

#include "bench/scenario/fib.hpp"

namespace bench {
namespace {

[[gnu::noinline]] std::uint64_t fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

}  // namespace

std::uint64_t FIB(unsigned n) { return fib(n); }

}  // namespace bench
