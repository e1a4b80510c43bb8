// SPDX-License-Identifier: Apache-2.0
#include "stack/segment_support.hpp"

#include "platform/split_stack.hpp"
#include "stack/split_probe.hpp"

namespace tendril::detail {

const char* segments_missing() noexcept {
#if TENDRIL_SEGMENTED
  static const char* const why =
      platform::prologue_was_adjusted(reinterpret_cast<const void*>(&split_probe))
          ? nullptr
          : "this program was not linked for segmented stacks: link it to tendril::segmented, "
            "which "
            "uses lld or gold (GNU ld leaves calls into other libraries unprotected)";
  return why;
#else
  return TENDRIL_SEGMENTED_WHY_NOT;
#endif
}

}  // namespace tendril::detail
