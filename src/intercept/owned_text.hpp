// SPDX-License-Identifier: Apache-2.0
//
// Copies of what a call refers to, for on_thread() (aside.hpp).
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace tendril::detail {

struct free_text {
  void operator()(void* p) const noexcept { std::free(p); }
};
using owned_text = std::unique_ptr<char, free_text>;

/// Null for null, and when there is no memory: then what is not null has a null copy.
inline owned_text copy_of(const char* text) noexcept {
  return owned_text(text != nullptr ? ::strdup(text) : nullptr);
}
inline owned_text copy_of(const void* bytes, std::size_t count) noexcept {
  owned_text copy(static_cast<char*>(std::malloc(count != 0 ? count : 1)));
  if (copy != nullptr && count != 0) std::memcpy(copy.get(), bytes, count);
  return copy;
}

}  // namespace tendril::detail
