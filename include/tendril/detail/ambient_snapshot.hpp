// SPDX-License-Identifier: Apache-2.0
//
// The representation of a flow's ambient values: an array of (key, value), sorted by key, immutable once
// anybody else may see it. Counted, and so are the values: setting one copies the array and shares the rest.
//
// Keys are numbers that are never given out twice, so values of a variable that no longer exists stay where
// they are, unseen, until their snapshot goes.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/flow.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tendril::detail {

struct ambient_box {
  explicit ambient_box(void (*how)(ambient_box*) noexcept) noexcept : destroy(how) {}
  std::atomic<std::uint32_t> references{1};
  void (*destroy)(ambient_box*) noexcept;
};

struct ambient_entry {
  std::uint64_t key;
  ambient_box* box;
};

struct alignas(16) ambient_snapshot {
  std::atomic<std::uint32_t> references{1};
  std::uint32_t size = 0;

  ambient_entry* entries() noexcept { return reinterpret_cast<ambient_entry*>(this + 1); }
  const ambient_entry* entries() const noexcept {
    return reinterpret_cast<const ambient_entry*>(this + 1);
  }
  /// Null: not in it.
  const ambient_box* find(std::uint64_t key) const noexcept {
    const ambient_entry* e = entries();
    for (const ambient_entry* const end = e + size; e != end && e->key <= key; ++e)
      if (e->key == key) return e->box;
    return nullptr;
  }
};

TENDRIL_API std::uint64_t new_ambient_key() noexcept;
/// Takes the reference to box, also when it throws; a null box removes the key.
/// \throws std::bad_alloc
TENDRIL_API void set_ambient(flow_locals& flow, std::uint64_t key, ambient_box* box);

}  // namespace tendril::detail
