// SPDX-License-Identifier: Apache-2.0
//
// What the images of suspended stacks have in common, so that it is kept once.
//
// Idea: tasklets that wait in the same place, called from the same places, have nearly equal stacks: the same return
// addresses and constants at the same offsets. What differs from one to the next is mostly where their own things
// are: pointers into the own slot, the own control block, the own frame. So each word of an image is first taken
// *relative* to its owner, and then only those are kept that differ from a pattern, another tasklet's image in the
// same form. A million that wait for one latch keep a dozen bytes each and one pattern.
//
//     word of the stack --- relative() ---> equal to the pattern's: one bit
//                                           differs in the lower half: two bits and 4 bytes
//                                           differs: two bits and 8 bytes
//
//     a fold:  | pattern* | a bit a word: differs | a bit for each of those: wide | words |
//
// Relative words are addresses in ranges that no program has (bits 63..47 not all equal), one range for each of
// the three things. A stack that has such a word of its own accord is not folded, so nothing is lost.
//
// Patterns are found by the number of words. There are few for each number, and one nobody uses is replaced. While
// there may be more, a stack that has more than a few words that no pattern has becomes one itself: frames contain
// what earlier calls have left there, which has a few values in all, and a first pattern that has rare ones would make
// every fold large. (A million that wait for one latch: 70 bytes each with the first as the only pattern, 35 with 12.)
// A stack that is unlike all of them, while all are in use, is not folded.
//
// Rejected: a general compressor for this purpose. It sees 552 bytes at a time, of which it makes half; and it costs
// several times as much as comparing words, which is fast enough to be done wherever an image falls out of use.
//
// Who may call what: any thread; the fold itself is its image's.
#pragma once

#include "base/spinlock.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace tendril::detail {

/// What the words of an image are relative to.
struct image_owner {
  struct range {
    std::uintptr_t end;  ///< words up to and including this one
    std::size_t bytes;   ///< below it
  };
  range slot, core, frame;
};

struct image_pattern;

struct free_memory {
  void operator()(void* p) const noexcept { std::free(p); }
};
using pattern_words = std::unique_ptr<std::uint64_t[], free_memory>;

class image_patterns {
 public:
  image_patterns();
  ~image_patterns();
  image_patterns(const image_patterns&) = delete;
  image_patterns& operator=(const image_patterns&) = delete;

  /// The fold of an image of `words` words, of which the stack has `bytes` bytes. Null: it is not worth it, or
  /// there is no memory.
  std::byte* fold(const std::byte* data, std::size_t words, std::uint32_t bytes,
                  const image_owner& owner) noexcept;

  std::size_t size() const noexcept { return size_.load(std::memory_order_relaxed); }

 private:
  static constexpr unsigned table_bits = 8;
  /// So many different stacks of one length.
  static constexpr unsigned most_alike = 12;
  /// Fewer where one is large: there it matters less how well it fits, and what becomes a pattern is not packed.
  static constexpr unsigned most_for(std::size_t words) noexcept {
    return words <= 128 ? most_alike : 4;
  }
  /// All of them together, in words: 4 MiB.
  static constexpr std::size_t most_words = std::size_t{1} << 19;

  struct candidates {
    image_pattern* pattern[most_alike];
    unsigned count;
  };
  candidates find(std::size_t words) noexcept;
  image_pattern* add(pattern_words& words, std::size_t count, std::uint32_t bytes) noexcept;

  spinlock lock_;
  image_pattern* table_[1U << table_bits] = {};
  std::size_t words_ = 0;
  std::atomic<std::size_t> size_{0};
};

/// Words and bytes of what a fold stands for.
std::size_t words_of_fold(const std::byte* fold) noexcept;
std::uint32_t bytes_of_fold(const std::byte* fold) noexcept;
/// How many bytes the fold itself has.
std::size_t size_of_fold(const std::byte* fold) noexcept;
/// Gives the words of a fold in their order.
class fold_reader {
 public:
  fold_reader(const std::byte* fold, const image_owner& owner) noexcept;

  /// The next ones, to `to`, which has room for `most`; returns how many. Instrumented as any code is: not to a
  /// stack that a sanitizer watches.
  std::size_t read(std::byte* to, std::size_t most) noexcept;

 private:
  const image_owner owner_;
  const image_pattern& pattern_;
  const unsigned char* const differs_;
  const unsigned char* const wide_;
  const unsigned char* in_;
  std::size_t word_ = 0;
  std::size_t different_ = 0;
};

void free_fold(const std::byte* fold) noexcept;

}  // namespace tendril::detail
