// SPDX-License-Identifier: Apache-2.0
//
// Images of suspended stacks, compressed by liblz4: for those that are like no pattern (image_patterns.hpp) and that
// nobody has wanted for seconds.
//
//     a pack:  | stack bytes | image bytes | | size | lz4 block | size | lz4 block | ...
//
// Each block stands for chunk_bytes of the image, the last for the rest, and is compressed by itself. So who may take
// no memory, as a collector that has stopped the world, reads a pack through a buffer of one chunk. Stacks are mostly
// smaller than a chunk.
//
// Rejected: zlib (four times slower to unpack, which is paid by who is woken); one stream with a dictionary of the
// bytes before (a tenth smaller from the second chunk on, and few have one).
//
// The only user of lz4.h. Without the library nothing is packed. Who may call what: any thread; the pack is its image's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tendril::detail {

/// Whether this build has liblz4.
bool packing_available() noexcept;

/// The pack of an image of `bytes` bytes, of a stack that has `stack_bytes`. Null: it would be hardly smaller, or there
/// is no memory, or no liblz4.
std::byte* make_pack(const std::byte* data, std::size_t bytes, std::uint32_t stack_bytes) noexcept;
void free_pack(const std::byte* pack) noexcept;

std::uint32_t stack_bytes_of_pack(const std::byte* pack) noexcept;
std::size_t image_bytes_of_pack(const std::byte* pack) noexcept;
/// How many bytes the pack itself has.
std::size_t size_of_pack(const std::byte* pack) noexcept;

/// Gives the bytes of a pack in their order.
class pack_reader {
 public:
  static constexpr std::size_t chunk_bytes = 8192;

  explicit pack_reader(const std::byte* pack) noexcept;

  /// The next chunk, to `to`, which has room for chunk_bytes or for what is left; returns how many. 0: that was all.
  /// Not to a stack that a sanitizer watches.
  std::size_t read(std::byte* to) noexcept;

 private:
  const std::byte* in_;
  std::size_t left_;
};

}  // namespace tendril::detail
