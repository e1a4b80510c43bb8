// SPDX-License-Identifier: Apache-2.0
//
// Folds: what is read back is what was folded, word for word, whatever is in it; and those that are alike are small.
#include "context/image_patterns.hpp"

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

using words_t = std::vector<std::uint64_t>;

const std::byte* bytes_of(const words_t& w) { return reinterpret_cast<const std::byte*>(w.data()); }

/// The n-th of many tasklets: each has its three ranges elsewhere.
image_owner owner_of(std::uint64_t n) {
  return {{0x7F00'0010'0000 + n * 0x1'0000, 0xF000},
          {0x5500'0000'0080 + n * 0x80, 0x80},
          {0x5600'0000'00E0 + n * 0xE0, 0xE0}};
}

/// A stack with pointers to its owner's things, constants, and something of its own.
words_t stack_of(const image_owner& o, std::uint64_t own) {
  return {0x5555'0000'1234,
          o.slot.end - 0x40,
          o.slot.end,
          o.slot.end - o.slot.bytes,
          o.core.end - 0x80,
          o.frame.end - 8,
          0,
          ~std::uint64_t{0},
          own,
          0x5555'0000'4321,
          o.slot.end + 1,
          o.slot.end - o.slot.bytes - 1};
}

words_t read_whole(const std::byte* fold, const image_owner& o) {
  words_t out(words_of_fold(fold) + 1, 0xDEAD);
  const std::size_t n =
      fold_reader(fold, o).read(reinterpret_cast<std::byte*>(out.data()), SIZE_MAX);
  CHECK(out[n] == 0xDEAD);
  out.resize(n);
  return out;
}

std::byte* fold(image_patterns& p, const words_t& w, const image_owner& o) {
  return p.fold(bytes_of(w), w.size(), static_cast<std::uint32_t>(w.size() * 8), o);
}

}  // namespace

TEST_SUITE("image_patterns") {
  TEST_CASE("those that differ in nothing but where their things are share a pattern") {
    image_patterns patterns;
    std::vector<std::byte*> folds;
    constexpr std::size_t count = 100;
    for (std::size_t i = 0; i != count; ++i) {
      const words_t w = stack_of(owner_of(i), 7);
      folds.push_back(fold(patterns, w, owner_of(i)));
      REQUIRE(folds.back() != nullptr);
      // Of the two words that lie beside the slot each tasklet has its own: 4 bytes each, and 2 bits.
      CHECK(size_of_fold(folds.back()) <= 8 + 2 + 1 + 2 * 4);
      CHECK(bytes_of_fold(folds.back()) == w.size() * 8);
    }
    CHECK(patterns.size() == 1);
    for (std::size_t i = 0; i != count; ++i) {
      CHECK(read_whole(folds[i], owner_of(i)) == stack_of(owner_of(i), 7));
      free_fold(folds[i]);
    }
  }

  TEST_CASE("what differs is kept: in the lower half, in the upper, in both, everywhere") {
    image_patterns patterns;
    const image_owner o = owner_of(3);
    const std::uint64_t first = 0x1234'5678'9ABC'DEF0;
    std::byte* const base = fold(patterns, stack_of(o, first), o);
    REQUIRE(base != nullptr);
    for (const std::uint64_t x : {std::uint64_t{1}, std::uint64_t{0xFFFF'FFFF},
                                  std::uint64_t{1} << 32, ~std::uint64_t{0}, first}) {
      const words_t w = stack_of(o, first ^ x);
      std::byte* const f = fold(patterns, w, o);
      REQUIRE(f != nullptr);
      CHECK(size_of_fold(f) == 8U + 2 + 1 + (x >> 32 != 0 ? 8 : 4));
      CHECK(read_whole(f, o) == w);
      free_fold(f);
    }
    free_fold(base);
  }

  TEST_CASE("a first stack that is unlike most of the others does not make their folds large") {
    image_patterns patterns;
    // Which leftovers a stack has: one of few combinations, of which the first is rare.
    const auto with_leftovers = [](std::uint64_t n) {
      words_t w = stack_of(owner_of(n), 7);
      for (std::uint64_t i = 0; i != 50; ++i)
        w.push_back(n == 0 || i >= 10 ? 0 : 0x7F12'3456'7800 + n % 4 * 0x1'0000'0000 + i);
      return w;
    };
    std::vector<std::byte*> folds;
    for (std::uint64_t n = 0; n != 200; ++n) {
      folds.push_back(fold(patterns, with_leftovers(n), owner_of(n)));
      REQUIRE(folds.back() != nullptr);
      CHECK(size_of_fold(folds.back()) <= 32);
    }
    CHECK(patterns.size() <= 5);
    for (std::uint64_t n = 0; n != 200; ++n) {
      CHECK(read_whole(folds[n], owner_of(n)) == with_leftovers(n));
      free_fold(folds[n]);
    }
  }

  TEST_CASE("any words: what is folded is read back, in pieces of any size") {
    std::mt19937_64 random(11);
    image_patterns patterns;
    struct kept {
      words_t words;
      std::uint64_t owner;
      std::byte* fold;
    };
    std::vector<kept> all;
    for (std::uint64_t i = 0; i != 2'000; ++i) {
      const image_owner o = owner_of(i);
      words_t w = stack_of(o, random());
      while (w.size() < 12 + i % 5 * 31) w.push_back(w[w.size() % 7]);
      for (std::size_t changes = random() % 6; changes != 0; --changes)
        w[random() % w.size()] = random() >> random() % 60;
      if (std::byte* const f = fold(patterns, w, o)) all.push_back({w, i, f});
    }
    CHECK(all.size() > 500);
    std::shuffle(all.begin(), all.end(), random);
    for (const kept& k : all) {
      words_t out(k.words.size());
      fold_reader reader(k.fold, owner_of(k.owner));
      std::size_t done = 0;
      while (const std::size_t n = reader.read(reinterpret_cast<std::byte*>(out.data() + done),
                                               std::min(out.size() - done, 1 + random() % 20)))
        done += n;
      CHECK(done == out.size());
      CHECK(out == k.words);
      free_fold(k.fold);
    }
  }

  TEST_CASE("a stack with words like those that stand for addresses is not folded") {
    image_patterns patterns;
    const image_owner o = owner_of(1);
    const words_t suspicious{0x5A3C'9D00'0000'0000, 0x5A3C'9D00'FFFF'FF00, 0x5A3C'9D01'FFFF'FFF0,
                             0x5A3C'9D03'FFFF'FFFF};
    for (const std::uint64_t w : suspicious) {
      CHECK(fold(patterns, stack_of(o, w), o) == nullptr);
      std::byte* const other =
          fold(patterns, stack_of(o, 1), o);  // nor with a pattern to compare with
      REQUIRE(other != nullptr);
      CHECK(fold(patterns, stack_of(o, w), o) == nullptr);
      free_fold(other);
    }
  }

  TEST_CASE("patterns that nobody uses make room; while all are in use the unlike stay whole") {
    std::mt19937_64 random(12);
    image_patterns patterns;
    const image_owner o = owner_of(0);
    const auto unlike = [&] {
      words_t w(40);
      for (std::uint64_t& each : w) each = random() >> 8;
      return w;
    };
    std::vector<std::byte*> folds;
    for (;;) {
      std::byte* const f = fold(patterns, unlike(), o);
      if (f == nullptr) break;
      folds.push_back(f);
      REQUIRE(folds.size() < 100);
    }
    const std::size_t most = patterns.size();
    CHECK(most == folds.size());
    CHECK(fold(patterns, unlike(), o) == nullptr);
    free_fold(folds.back());
    folds.back() = fold(patterns, unlike(), o);
    CHECK(folds.back() != nullptr);
    CHECK(patterns.size() == most);
    for (std::byte* const f : folds) free_fold(f);
  }

  TEST_CASE("an image: captured, folded, restored, captured again") {
    image_patterns patterns;
    // As a slot: its top is a multiple of 16, and so is what is captured.
    struct area {
      alignas(64) std::byte bytes[1024];
    };
    const auto slot = std::make_unique<area>();
    std::byte* const top = slot->bytes + sizeof slot->bytes;
    image_owner o = owner_of(2);
    o.slot = {reinterpret_cast<std::uintptr_t>(top), sizeof slot->bytes};
    stack_image image;
    CHECK(image.bytes() == 0);
    for (const std::size_t live : {std::size_t{512}, std::size_t{512}, std::size_t{64}}) {
      std::byte* const low = top - live;
      std::memset(low, static_cast<int>(live / 64), live);
      void* const self = low;
      std::memcpy(low + 8, &self, sizeof self);
      const std::vector<std::byte> before(low, top);
      REQUIRE(image.capture(low, top));
      CHECK(image.bytes() == live);
      CHECK_FALSE(image.folded());
      REQUIRE(image.fold(patterns, o));
      CHECK(image.folded());
      CHECK(image.whole() == nullptr);
      CHECK(image.bytes() == live);
      CHECK(image.small_bytes() < live / 2);
      std::memset(low, 0x55, live);
      CHECK(image.restore(top, o) == live);
      CHECK(std::equal(low, top, before.begin()));
    }
    image.drop();
    CHECK(image.bytes() == 0);
  }

  TEST_CASE("an image of any size comes back byte for byte, and nothing else is touched") {
    struct area {
      alignas(64) std::byte bytes[std::size_t{64} << 10];
    };
    const auto slot = std::make_unique<area>();
    std::byte* const top = slot->bytes + sizeof slot->bytes;
    std::mt19937_64 random(7);
    // On both sides of the sizes from which on copies are made in parts, and in one again.
    for (const unsigned live :
         {8U, 144U, 2040U, 2048U, 2056U, 4096U, 4104U, 20472U, 20480U, 20488U, 65528U}) {
      std::byte* const low = top - live;
      for (std::byte* b = slot->bytes; b != top; ++b) *b = static_cast<std::byte>(random());
      const std::vector<std::byte> before(low, top);
      stack_image image;
      REQUIRE(image.capture(low, top));
      std::memset(slot->bytes, 0x55, sizeof slot->bytes);
      CHECK(image.restore(top, {}) == live);
      CHECK(std::equal(low, top, before.begin()));
      CHECK(std::all_of(slot->bytes, low, [](std::byte b) { return b == std::byte{0x55}; }));
    }
  }

  TEST_CASE("an image's block is used again, unless it is to be exact") {
    struct area {
      alignas(64) std::byte bytes[1024];
    };
    const auto slot = std::make_unique<area>();
    std::memset(slot->bytes, 1, sizeof slot->bytes);
    std::byte* const top = slot->bytes + sizeof slot->bytes;
    const auto capacity_of = [&](stack_image& image, std::size_t live, image_size size) {
      REQUIRE(image.capture(top - live, top, size));
      return image.whole()->capacity_bytes();
    };
    stack_image fresh;
    const std::size_t exact = capacity_of(fresh, 576, image_size::roomy);
    CHECK(exact >= 576);
    CHECK(exact < 1024);
    stack_image image;
    const std::size_t room = capacity_of(image, 1024, image_size::roomy);
    CHECK(capacity_of(image, 576, image_size::roomy) == room);
    CHECK(capacity_of(image, 576, image_size::exact) == exact);
    const stack_image::block* const block = image.whole();
    CHECK(capacity_of(image, 576, image_size::exact) == exact);
    CHECK(image.whole() == block);
  }
}
