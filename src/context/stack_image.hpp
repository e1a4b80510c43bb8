// SPDX-License-Identifier: Apache-2.0
//
// The bytes of a suspended stack, kept on the heap while somebody else uses its addresses.
//
// Idea: C++ has pointers into the stack, so nothing is translated: a stack goes back to where it came from. What
// is copied is exactly [low, top), from the saved stack pointer to the first frame. The block is as large as that
// and is kept for the next time, unless the next image is larger or less than half as large: a tasklet that parks
// in the same place again takes no memory. Its bytes lie in cache lines as they do in the stack: a copy crosses none twice
// (a round trip with 4 KiB that misses: 150 ns instead of 155).
//
//            capture                  fold                     capture: the block is used again
//     empty ---------> whole -------------------------> folded
//       ^              |   ^  \         pack               |
//       '--- drop      '---'   '----------------------> packed  -- restore, drop: of both
//                     restore: the block is kept
//
// An image that nobody has wanted for a while is *folded*: only what differs from a pattern is kept, see
// image_patterns.hpp. One that is like no pattern can be *packed*, see image_pack.hpp.
//
// Sanitizers: AddressSanitizer's red zones lie between the locals of a suspended stack, so the copy is not
// instrumented, and the shadow of the stack travels with it, behind its bytes. ThreadSanitizer's memory of who
// accessed the addresses stays with them; it is told of the order by the synchronization around a capture.
//
// Rejected: copying only what the next tasklet will overwrite (it grows later); remapping pages (pays from 256 KiB on);
// return addresses that fetch frames one by one (unsound: a pointer to a frame may be used before its frame returns).
//
// Who may call what: one thread at a time; and visits, see image_visit.
#pragma once

#include "context/image_pack.hpp"
#include "context/image_patterns.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tendril::detail {

/// Where an image is, and in which form.
class image_word {
 public:
  /// In front of the bytes of a whole image. The pointers are its user's; nobody else looks at them.
  struct block {
    block* older = nullptr;
    block* newer = nullptr;
    void* owner = nullptr;
    std::uint32_t bytes = 0;       ///< of the stack
    std::uint32_t again : 1 = 0;   ///< has been used again; its user resets it
    std::uint32_t unlike : 1 = 0;  ///< its user's: there was no pattern for it
    std::uint32_t pad : 6 = 0;     ///< before its bytes, which lie in cache lines as the stack does
    std::uint32_t capacity : 24 = 0;  ///< in words
    std::uint32_t since = 0;          ///< its user's: when it was captured

    std::size_t capacity_bytes() const noexcept { return capacity * sizeof(std::uint64_t); }

    std::byte* data() noexcept { return reinterpret_cast<std::byte*>(this + 1) + pad; }
    const std::byte* data() const noexcept {
      return reinterpret_cast<const std::byte*>(this + 1) + pad;
    }
  };

  image_word() noexcept = default;

  /// As it is now, for an image_visit: fold() and pack() may go on meanwhile.
  image_word seen() const noexcept {
    image_word now;
    // Acquire: with what it points to.
    now.word_ = std::atomic_ref(const_cast<std::uintptr_t&>(word_)).load(std::memory_order_acquire);
    return now;
  }

  bool folded() const noexcept { return (word_ & folded_bit) != 0; }
  bool packed() const noexcept { return (word_ & packed_bit) != 0; }
  bool is_small() const noexcept { return (word_ & tag_bits) != 0; }  ///< the one or the other
  /// Of a whole one, or of one whose block is kept; else null.
  block* whole() const noexcept { return is_small() ? nullptr : reinterpret_cast<block*>(word_); }
  /// Of the captured stack.
  std::size_t bytes() const noexcept;
  /// Of the memory that a folded or packed one takes.
  std::size_t small_bytes() const noexcept;
  /// To read a folded one.
  fold_reader reader(const image_owner& owner) const noexcept { return {small_data(), owner}; }
  /// To read a packed one.
  pack_reader reader() const noexcept { return pack_reader(small_data()); }

 protected:
  static constexpr std::uintptr_t folded_bit = 1;
  static constexpr std::uintptr_t packed_bit = 2;
  static constexpr std::uintptr_t tag_bits = folded_bit | packed_bit;

  const std::byte* small_data() const noexcept {
    return reinterpret_cast<const std::byte*>(word_ & ~tag_bits);
  }

  std::uintptr_t word_ = 0;  ///< null, a block, or a fold or a pack and its bit
};

/// Of the block for an image.
enum class image_size : std::uint8_t {
  roomy,  ///< one that is there already, if it is large enough and not twice too large
  exact
};

class stack_image : public image_word {
 public:
  stack_image() noexcept = default;
  stack_image(const stack_image&) = delete;
  stack_image& operator=(const stack_image&) = delete;
  ~stack_image() { drop(); }

  /// Copies [low, top). False: no memory; nothing has changed.
  bool capture(const std::byte* low, const std::byte* top,
               image_size size = image_size::roomy) noexcept {
    return capture_again(low, top, size) || (make_block(low, top) && capture_again(low, top, size));
  }
  /// The same into the block that is there. False: there is none of a fitting size; nothing has changed.
  bool capture_again(const std::byte* low, const std::byte* top, image_size size) noexcept;
  /// Copies it back, ending at `top`, which is where it came from. Returns how many bytes the stack has. One
  /// that is not whole is dropped by its user afterwards, when nobody looks at it any more.
  std::size_t restore(std::byte* top, const image_owner& owner) noexcept;
  /// Folds a whole image. False: it is unlike any pattern and stays as it is.
  bool fold(image_patterns& patterns, const image_owner& owner) noexcept;
  /// Packs a whole image. False: it would be hardly smaller and stays as it is.
  bool pack() noexcept;
  /// Frees what it has.
  void drop() noexcept;

 private:
  void copy_small(std::byte* to, const image_owner& owner) const noexcept;
  bool make_whole(const image_owner& owner) noexcept;
  std::uintptr_t exchange(std::uintptr_t word) noexcept;
  static block* allocate(std::size_t words) noexcept;
  bool make_block(const std::byte* low, const std::byte* top) noexcept;
  void replace(std::uintptr_t word) noexcept;
  void make_small(std::uintptr_t word) noexcept;
};

/// Of who looks at images of stopped threads (inspect.hpp). fold() and pack() may be done meanwhile by a thread that
/// is not stopped, or that was stopped in the middle of it: so nobody waits for the other. Whole images that are replaced
/// during a visit are freed after it.
class image_visit {
 public:
  image_visit() noexcept;
  ~image_visit();
  image_visit(const image_visit&) = delete;
  image_visit& operator=(const image_visit&) = delete;

  /// Whether nobody looks who may have begun before what the caller has changed: who begins later sees that.
  static bool none_before() noexcept;
};

/// Overwrites the bytes of a stack that was captured, so that whoever uses one of them is found out: under
/// AddressSanitizer at once, else by what he reads.
void spoil_stack(std::byte* low, std::byte* top) noexcept;
/// The first byte of a stack that was spoiled and is not as it was left; null: there is none.
const std::byte* find_unspoiled(const std::byte* low, const std::byte* top) noexcept;
/// Before anybody runs there again.
void unspoil_stack(std::byte* low, std::byte* top) noexcept;

}  // namespace tendril::detail
