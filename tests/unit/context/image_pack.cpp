// SPDX-License-Identifier: Apache-2.0
//
// Packs: what is read back is what was packed, and what would be hardly smaller is not packed.
#include "context/image_pack.hpp"
#include "context/stack_image.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

using namespace tendril::detail;

namespace {

using bytes_t = std::vector<std::byte>;

/// Half of it repeats.
bytes_t compressible(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  bytes_t all(size);
  for (std::size_t i = 0; i < size; ++i)
    all[i] = i % 64 < 32 || i < 64 ? static_cast<std::byte>(random() & 3) : all[i - 64];
  return all;
}

bytes_t incompressible(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  bytes_t all(size);
  for (std::byte& b : all) b = static_cast<std::byte>(random());
  return all;
}

bytes_t read_whole(const std::byte* pack) {
  bytes_t all;
  bytes_t chunk(pack_reader::chunk_bytes);
  pack_reader in(pack);
  while (const std::size_t n = in.read(chunk.data()))
    all.insert(all.end(), chunk.begin(), chunk.begin() + static_cast<std::ptrdiff_t>(n));
  return all;
}

}  // namespace

TEST_SUITE("image_pack") {
  TEST_CASE("of any size, what is packed is read back") {
    if (!packing_available()) return;
    constexpr std::size_t chunk = pack_reader::chunk_bytes;
    for (const std::size_t size : {std::size_t{256}, std::size_t{1000}, chunk - 8, chunk, chunk + 8,
                                   5 * chunk, std::size_t{65'000}}) {
      CAPTURE(size);
      const bytes_t before = compressible(size, size);
      std::byte* const pack = make_pack(before.data(), size, static_cast<std::uint32_t>(size - 8));
      REQUIRE(pack != nullptr);
      CHECK(stack_bytes_of_pack(pack) == size - 8);
      CHECK(image_bytes_of_pack(pack) == size);
      CHECK(size_of_pack(pack) <= size - size / 8);
      CHECK(read_whole(pack) == before);
      free_pack(pack);
    }
  }

  TEST_CASE("what is hardly smaller packed is not packed, nor what is tiny") {
    for (const std::size_t size : {std::size_t{8}, std::size_t{512}, std::size_t{20'000}}) {
      const bytes_t random = incompressible(size, size);
      CHECK(make_pack(random.data(), size, static_cast<std::uint32_t>(size)) == nullptr);
    }
    bytes_t half = compressible(20'000, 1);
    const bytes_t random = incompressible(18'000, 2);
    std::copy(random.begin(), random.end(), half.begin());
    CHECK(make_pack(half.data(), half.size(), 20'000) == nullptr);
  }

  TEST_CASE("an image: captured, packed, seen, restored") {
    if (!packing_available()) return;
    struct area {
      alignas(64) std::byte bytes[2048];
    };
    const auto slot = std::make_unique<area>();
    std::byte* const top = slot->bytes + sizeof slot->bytes;
    std::byte* const low = top - 1536;
    const image_owner owner{{reinterpret_cast<std::uintptr_t>(top), 2048}, {1, 0}, {1, 0}};
    const bytes_t before = compressible(1536, 3);
    stack_image image;
    for (int round = 0; round != 2; ++round) {
      std::copy(before.begin(), before.end(), low);
      REQUIRE(image.capture(low, top));
      if (round == 1) {  // who has looked before it was packed may go on looking
        const image_visit visit;
        const image_word seen = image.seen();
        REQUIRE(image.pack());
        REQUIRE(seen.whole() != nullptr);
        CHECK(std::equal(before.begin(), before.end(), seen.whole()->data()));
      } else {
        REQUIRE(image.pack());
      }
      CHECK(image.packed());
      CHECK_FALSE(image.folded());
      CHECK(image.whole() == nullptr);
      CHECK(image.bytes() == 1536);
      CHECK(image.small_bytes() < 1536 * 7 / 8 + 1);
      std::memset(low, 0x55, 1536);
      CHECK(image.restore(top, owner) == 1536);
      CHECK(std::equal(before.begin(), before.end(), low));
    }
  }
}
