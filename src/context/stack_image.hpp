// SPDX-License-Identifier: Apache-2.0
//
// The bytes of a suspended stack, kept on the heap while somebody else uses its addresses.
//
// Idea: C++ has pointers into the stack, so nothing is translated: a stack goes back to where it came from. What
// is copied is exactly [low, top), from the saved stack pointer to the first frame. The block is as large as that
// and is kept for the next time, unless the next image is larger or less than half as large: a tasklet that parks
// in the same place again takes no memory.
//
//            capture                  fold                     capture: the block is used again
//     empty ---------> whole -------------------------> folded
//       ^              |   ^                              |
//       '--- drop      '---' restore: the block is kept   '-- restore, drop
//
// An image that nobody has wanted for a while is *folded*: only what differs from a pattern is kept, see
// image_patterns.hpp.
//
// Sanitizers: AddressSanitizer's red zones lie between the locals of a suspended stack, so the copy is not
// instrumented, and the shadow of the stack travels with it, behind its bytes. ThreadSanitizer's memory of who
// accessed the addresses stays with them; it is told of the order by the synchronization around a capture.
//
// Rejected: copying only what the next tasklet will overwrite (it grows later); remapping pages (pays from 256 KiB on);
// return addresses that fetch frames one by one (unsound: a pointer to a frame may be used before its frame returns).
//
// Who may call what: one thread at a time.
#pragma once

#include "context/image_patterns.hpp"

#include <cstddef>
#include <cstdint>

namespace tendril::detail {

class stack_image {
 public:
  stack_image() noexcept = default;
  stack_image(const stack_image&) = delete;
  stack_image& operator=(const stack_image&) = delete;
  ~stack_image() { drop(); }

  /// In front of the bytes of a whole image. The pointers are its user's; nobody else looks at them.
  struct block {
    block* older = nullptr;
    block* newer = nullptr;
    void* owner = nullptr;
    std::uint32_t bytes = 0;     ///< of the stack
    std::uint32_t capacity = 0;  ///< behind this header

    std::byte* data() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
    const std::byte* data() const noexcept { return reinterpret_cast<const std::byte*>(this + 1); }
  };

  /// Copies [low, top). False: no memory; nothing has changed.
  bool capture(const std::byte* low, const std::byte* top) noexcept;
  /// Copies it back, ending at `top`, which is where it came from. Returns how many bytes the stack has. A folded one
  /// is dropped by its user afterwards, when nobody looks at it any more.
  std::size_t restore(std::byte* top, const image_owner& owner) noexcept;
  /// Folds a whole image. False: it is unlike any pattern and stays as it is.
  bool fold(image_patterns& patterns, const image_owner& owner) noexcept;
  /// Frees what it has.
  void drop() noexcept;

  bool folded() const noexcept { return (word_ & folded_bit) != 0; }
  /// Of a whole one, or of one whose block is kept; else null.
  block* whole() const noexcept { return folded() ? nullptr : reinterpret_cast<block*>(word_); }
  /// Of the captured stack.
  std::size_t bytes() const noexcept;
  /// Of the memory that a folded one takes.
  std::size_t folded_bytes() const noexcept;
  /// To read a folded one.
  fold_reader reader(const image_owner& owner) const noexcept { return {fold_data(), owner}; }

 private:
  static constexpr std::uintptr_t folded_bit = 1;

  bool unfold_whole(const image_owner& owner) noexcept;
  void replace(std::uintptr_t word) noexcept;
  const std::byte* fold_data() const noexcept {
    return reinterpret_cast<const std::byte*>(word_ & ~folded_bit);
  }

  std::uintptr_t word_ = 0;  ///< null, a block, or a fold and folded_bit
};

/// Overwrites the bytes of a stack that was captured, so that whoever uses one of them is found out: under
/// AddressSanitizer at once, else by what he reads.
void spoil_stack(std::byte* low, std::byte* top) noexcept;
/// The first byte of a stack that was spoiled and is not as it was left; null: there is none.
const std::byte* find_unspoiled(const std::byte* low, const std::byte* top) noexcept;
/// Before anybody runs there again.
void unspoil_stack(std::byte* low, std::byte* top) noexcept;

}  // namespace tendril::detail
