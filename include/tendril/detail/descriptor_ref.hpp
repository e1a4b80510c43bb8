// SPDX-License-Identifier: Apache-2.0
//
// How a handle names its open descriptor: the number and which opening of that number it means. The
// pair never changes while the handle lives, so that a fiber may close what another is parked on; all
// that changes is the table entry behind it.
#pragma once

#include <cstdint>
#include <utility>

namespace tendril::detail {

struct descriptor_ref {
  int fd = -1;
  std::uint32_t generation = 0;  ///< 0: never opened

  bool valid() const noexcept { return generation != 0; }
};

/// Takes the reference out of a handle that is moved from.
inline descriptor_ref take(descriptor_ref& from) noexcept { return std::exchange(from, {}); }

}  // namespace tendril::detail
