// SPDX-License-Identifier: Apache-2.0
//
// The bytes of a suspended stack, kept on the heap while somebody else uses its addresses.
//
// Idea: C++ has pointers into the stack, so nothing is translated: a stack goes back to where it came from. What
// is copied is exactly [low, top), from the saved stack pointer to the first frame. The block is as large as that
// and is kept for the next time, unless the next image is larger or less than half as large: a tasklet that parks
// in the same place again takes no memory.
//
// Sanitizers: AddressSanitizer's red zones lie between the locals of a suspended stack, so the copy is not
// instrumented, and the shadow of the stack travels with it, behind its bytes. ThreadSanitizer's memory of who
// accessed the addresses stays with them; it is told of the order by the synchronization around a capture.
//
// Rejected: copying only what the next tasklet will overwrite (it grows later); remapping pages (pays from 256 KiB on);
// return addresses that fetch frames one by one (unsound: a pointer to a frame may be used before its frame returns).
#pragma once

#include <cstddef>
#include <cstdint>

namespace tendril::detail {

class stack_image {
 public:
  stack_image() noexcept = default;
  stack_image(const stack_image&) = delete;
  stack_image& operator=(const stack_image&) = delete;
  ~stack_image() { drop(); }

  /// Copies [low, top). False: no memory; nothing has changed.
  bool capture(const std::byte* low, const std::byte* top) noexcept;
  /// Copies it back, ending at `top`, which is where it came from.
  void restore(std::byte* top) const noexcept;
  /// Frees the block.
  void drop() noexcept;

  /// Of the captured stack; 0 before the first capture.
  std::size_t bytes() const noexcept { return bytes_; }
  const std::byte* data() const noexcept { return data_; }

 private:
  std::byte* data_ = nullptr;
  std::uint32_t bytes_ = 0;
  std::uint32_t capacity_ = 0;
};

/// Overwrites the bytes of a stack that was captured, so that whoever uses one of them is found out: under
/// AddressSanitizer at once, else by what he reads.
void spoil_stack(std::byte* low, std::byte* top) noexcept;
/// The first byte of a stack that was spoiled and is not as it was left; null: there is none.
const std::byte* find_unspoiled(const std::byte* low, const std::byte* top) noexcept;
/// Before anybody runs there again.
void unspoil_stack(std::byte* low, std::byte* top) noexcept;

}  // namespace tendril::detail
