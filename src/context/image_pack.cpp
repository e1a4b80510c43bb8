// SPDX-License-Identifier: Apache-2.0
#include "context/image_pack.hpp"

#include "base/check.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#if TENDRIL_LZ4
#include <lz4.h>
#endif

namespace tendril::detail {
namespace {

struct pack_header {
  std::uint32_t stack_bytes;
  std::uint32_t image_bytes;
};

using block_size = std::uint16_t;

pack_header header_of(const std::byte* pack) noexcept {
  pack_header h;
  std::memcpy(&h, pack, sizeof h);
  return h;
}

block_size block_size_at(const std::byte* at) noexcept {
  block_size size;
  std::memcpy(&size, at, sizeof size);
  return size;
}

}  // namespace

#if TENDRIL_LZ4

static_assert(LZ4_COMPRESSBOUND(pack_reader::chunk_bytes) <= UINT16_MAX);

bool packing_available() noexcept { return true; }

std::byte* make_pack(const std::byte* data, std::size_t bytes, std::uint32_t stack_bytes) noexcept {
  // Not worth a copy at each wake-up unless an eighth is saved.
  const std::size_t most = bytes - bytes / 8;
  if (most <= sizeof(pack_header)) return nullptr;
  auto* const pack = static_cast<std::byte*>(std::malloc(most));
  if (pack == nullptr) return nullptr;
  const pack_header header{stack_bytes, static_cast<std::uint32_t>(bytes)};
  std::memcpy(pack, &header, sizeof header);
  std::size_t used = sizeof header;
  for (std::size_t done = 0; done != bytes;) {
    const std::size_t chunk = std::min(bytes - done, pack_reader::chunk_bytes);
    int size = 0;
    if (used + sizeof(block_size) < most)
      size = LZ4_compress_default(
          reinterpret_cast<const char*>(data + done),
          reinterpret_cast<char*>(pack + used + sizeof(block_size)), static_cast<int>(chunk),
          static_cast<int>(std::min(most - used - sizeof(block_size), std::size_t{UINT16_MAX})));
    if (size <= 0) {
      std::free(pack);
      return nullptr;
    }
    const auto written = static_cast<block_size>(size);
    std::memcpy(pack + used, &written, sizeof written);
    used += sizeof written + written;
    done += chunk;
  }
  void* const exact = std::realloc(pack, used);
  return exact != nullptr ? static_cast<std::byte*>(exact) : pack;
}

std::size_t pack_reader::read(std::byte* to) noexcept {
  if (left_ == 0) return 0;
  const std::size_t chunk = std::min(left_, chunk_bytes);
  const block_size size = block_size_at(in_);
  const int got = LZ4_decompress_safe(reinterpret_cast<const char*>(in_ + sizeof size),
                                      reinterpret_cast<char*>(to), size, static_cast<int>(chunk));
  TENDRIL_CHECK(got == static_cast<int>(chunk), "the packed stack of a tasklet is as it was left");
  in_ += sizeof size + size;
  left_ -= chunk;
  return chunk;
}

#else

bool packing_available() noexcept { return false; }
std::byte* make_pack(const std::byte*, std::size_t, std::uint32_t) noexcept { return nullptr; }
std::size_t pack_reader::read(std::byte*) noexcept { return 0; }

#endif

void free_pack(const std::byte* pack) noexcept { std::free(const_cast<std::byte*>(pack)); }

std::uint32_t stack_bytes_of_pack(const std::byte* pack) noexcept {
  return header_of(pack).stack_bytes;
}
std::size_t image_bytes_of_pack(const std::byte* pack) noexcept {
  return header_of(pack).image_bytes;
}

std::size_t size_of_pack(const std::byte* pack) noexcept {
  const std::size_t bytes = image_bytes_of_pack(pack);
  const std::byte* at = pack + sizeof(pack_header);
  for (std::size_t done = 0; done < bytes; done += pack_reader::chunk_bytes)
    at += sizeof(block_size) + block_size_at(at);
  return static_cast<std::size_t>(at - pack);
}

pack_reader::pack_reader(const std::byte* pack) noexcept
    : in_(pack + sizeof(pack_header)), left_(image_bytes_of_pack(pack)) {}

}  // namespace tendril::detail
