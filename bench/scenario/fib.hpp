// SPDX-License-Identifier: Apache-2.0
//
// fib(n) by two calls of itself: calls and little else, so that what a compiler adds to the entry of each
// function shows. One source, compiled as any program's code is and for segmented stacks.
#pragma once

#include <cstdint>

namespace bench {

std::uint64_t fib_unsplit(unsigned n);
std::uint64_t fib_split(unsigned n);  ///< in tendril-experiments-segmented alone

}  // namespace bench
