// SPDX-License-Identifier: Apache-2.0
//
// Which parts of a segmented stack are in use, of a fiber that is suspended or whose thread is stopped. Nothing is
// locked or allocated; the segments change under the hands of their own thread alone, by single stores.
//
// The header of the segment that a stack pointer lies in tells where its frames begin, and which segment it was
// entered from. How far down that one is in use is known to __morestack's frame alone, which lies there, and whose
// address is in rbp while what it has called runs: callee-saved, so one of the callees has stored it, or it lies
// with the registers of the suspended context. Words of the inner segment that could be it are recognized by what
// such a frame has 16 bytes below (the limit word of its segment). Of several candidates the lowest is taken:
// remains of deeper calls make the range larger than need be, never smaller.
#pragma once

#include "stack/segmented.hpp"

#include <tendril/inspect.hpp>

namespace tendril::detail {

/// The segment among those from `first` on whose memory `address` is in, or null.
segment* find_segment(segment* first, const void* address) noexcept;

/// What is in use of `inner`, down to sp, and of those it was entered from. Headers and what lies above their
/// segment's first frame are part of the ranges.
void visit_segments(const segment* inner, const std::byte* sp, range_visitor visit);

/// The same of a thread that was interrupted: what tells how far down outer segments are in use may be in a register
/// only, so all of them is visited.
void visit_interrupted_segments(const segment* inner, const std::byte* sp, range_visitor visit);

/// All of the segments from `first` on, for a fiber that runs elsewhere than on them.
void visit_whole_segments(const segment* first, range_visitor visit);

}  // namespace tendril::detail
