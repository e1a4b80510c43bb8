// SPDX-License-Identifier: Apache-2.0
//
// Whether fibers can have segmented stacks in this program: what the build decided, and whether the
// program was linked by a linker that knows split stacks.
//
// GNU ld links split code without a word and leaves the calls into unsplit code as they are, so that the
// first printf on a 2-KiB segment would overwrite another fiber. The runtime has one split function that
// calls an unsplit one (split_probe.cpp) and looks at its first instruction: a linker that knows replaces
// the comparison with the limit by one that always goes the long way.
#pragma once

namespace tendril::detail {

/// Null if fibers may use them, else why not. Any thread; async-signal-safe after the first call.
const char* segments_missing() noexcept;

}  // namespace tendril::detail
