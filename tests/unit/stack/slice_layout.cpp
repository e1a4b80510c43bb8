// SPDX-License-Identifier: Apache-2.0
#include "stack/slice_layout.hpp"

#include "stack/stack_choice.hpp"

#include <tendril/error.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <system_error>
#include <vector>

using namespace tendril::detail;

namespace {
constexpr std::size_t KiB = 1024;
constexpr std::size_t MiB = 1024 * KiB;

std::byte* at(std::uintptr_t address) { return reinterpret_cast<std::byte*>(address); }
}  // namespace

TEST_SUITE("slice_layout") {
  TEST_CASE("a size is rounded up to the next class") {
    for (unsigned c = 0; c < size_class_count; ++c) {
      CHECK(class_bytes(c) == (16 * KiB << c));
      CHECK(size_class_for(class_bytes(c), 4096) == c);
      CHECK(size_class_for(class_bytes(c) - 1, 4096) == c);
      CHECK(size_class_for(class_bytes(c) + 1, 4096) ==
            (c + 1 < size_class_count ? c + 1 : no_size_class));
    }
  }

  TEST_CASE("the smallest size is class 0, and too large ones have none") {
    CHECK(size_class_for(0, 4096) == 0);
    CHECK(size_class_for(1, 4096) == 0);
    CHECK(size_class_for(8 * MiB, 4096) == 9);
    CHECK(size_class_for(8 * MiB + 1, 4096) == no_size_class);
    CHECK(size_class_for(SIZE_MAX, 4096) == no_size_class);
  }

  TEST_CASE("a class has room for a stack beside its guard, however large pages are") {
    CHECK(class_bytes(size_class_for(1, 16 * KiB)) == 32 * KiB);
    CHECK(class_bytes(size_class_for(1, 64 * KiB)) == 128 * KiB);
  }

  TEST_CASE("sixteen neighbours have sixteen colours within two thousand bytes") {
    for (unsigned c = 0; class_bytes(c) <= 64 * KiB; ++c) {
      std::set<std::size_t> seen;
      for (std::uintptr_t i = 0; i < colour_count; ++i) {
        const std::uintptr_t base = 128 * MiB + (i << class_shift(c));
        const std::size_t colour = slice_colour(base, c);
        CHECK(colour == i * 5 % 16 * 128);
        seen.insert(colour);
      }
      CHECK(seen.size() == colour_count);
      CHECK(*std::max_element(seen.begin(), seen.end()) == 1920);
    }
  }

  TEST_CASE("of more than 64 KiB the tops are at most a cache line from the end") {
    for (unsigned c = size_class_for(65 * KiB, 4 * KiB); c < size_class_count; ++c) {
      std::set<std::size_t> seen;
      for (std::uintptr_t i = 0; i < 40; ++i)
        seen.insert(slice_colour(128 * MiB + (i << class_shift(c)), c));
      CHECK(seen == std::set<std::size_t>{0, 64});
    }
  }

  TEST_CASE("from the top of a slice follows its base") {
    for (unsigned c = 0; c < size_class_count; ++c) {
      for (std::uintptr_t i = 0; i < 40; ++i) {
        std::byte* base = at(64 * MiB + (i << class_shift(c)));
        const stack_slice slice = slice_at(base, c, 4096);
        CHECK(reinterpret_cast<std::uintptr_t>(slice.high) % 64 == 0);
        CHECK(slice.low == base + 4096);
        CHECK(slice_base(slice.high - 1, c) == base);
        CHECK(slice_base(slice.low, c) == base);
        CHECK(slice_base(base, c) == base);
      }
    }
  }
}

TEST_SUITE("spread slices") {
  constexpr std::uintptr_t arena = std::uintptr_t{1} << 40;
  constexpr std::uintptr_t group_slices = std::uintptr_t{1} << group_shift;

  /// The slices of `groups` groups, by their bases.
  std::vector<std::byte*> bases_of(unsigned size_class, std::uintptr_t groups) {
    std::vector<std::byte*> bases;
    for (std::uintptr_t g = 0; g != groups; ++g) {
      const std::uintptr_t first = arena + g * group_slices * class_bytes(size_class);
      for (std::uintptr_t i = 0; i + 1 != group_slices; ++i)
        bases.push_back(at(first + group_spread(first, size_class) + i * class_bytes(size_class)));
    }
    return bases;
  }

  TEST_CASE("their top pages differ in the lowest bits of their numbers, evenly") {
    for (unsigned c = spread_bit; c != class_count; ++c) {
      CAPTURE(c);
      const std::uintptr_t pages = class_bytes(c) / spread_page;
      std::vector<unsigned> seen(pages);
      for (std::byte* base : bases_of(c, pages)) {
        const stack_slice slice = slice_at(base, c, spread_page);
        ++seen[(reinterpret_cast<std::uintptr_t>(slice.high) - 1) / spread_page % pages];
      }
      CHECK(std::all_of(seen.begin(), seen.end(), [](unsigned n) { return n == 31; }));
    }
  }

  TEST_CASE("every byte leads to its slice, none overlaps another or leaves its group") {
    for (unsigned c = spread_bit; c != class_count; ++c) {
      CAPTURE(c);
      const std::uintptr_t pages = class_bytes(c) / spread_page;
      const std::byte* end = at(arena);
      bool right = true;
      for (std::byte* base : bases_of(c, pages)) {
        const stack_slice slice = slice_at(base, c, spread_page);
        right = right && base >= end && slice.low == base + spread_page &&
                slice.high <= base + class_bytes(c) &&
                slice.high >= base + class_bytes(c) - (colour_count - 1) * colour_step;
        end = base + class_bytes(c);
        for (std::byte* p : {base, slice.low, slice.high - 1, base + class_bytes(c) - 1})
          right = right && slice_base(p, c) == base &&
                  !between_groups(reinterpret_cast<std::uintptr_t>(p), c);
      }
      CHECK(right);
      CHECK(end <= at(arena + pages * group_slices * class_bytes(c)));
    }
  }

  TEST_CASE("what a group leaves out is in no slice") {
    constexpr unsigned c = spread_bit | 2;
    constexpr std::uintptr_t group = group_slices * class_bytes(c);
    for (std::uintptr_t g = 0; g != 16; ++g) {
      const std::uintptr_t first = arena + g * group;
      const std::size_t shift = group_spread(first, c);
      CHECK(shift == g * spread_page);
      if (shift != 0) {
        CHECK(between_groups(first, c));
        CHECK(between_groups(first + shift - 1, c));
      }
      CHECK(between_groups(first + shift + 31 * class_bytes(c), c));
      CHECK(between_groups(first + group - 1, c));
    }
    CHECK(!between_groups(arena + group - 1, 2));
  }

  TEST_CASE("sizes up to 512 KiB have such a class, where pages have 4 KiB") {
    for (unsigned c = 0; c != size_class_count; ++c) {
      const unsigned spread = spread_class(c, 4096);
      CHECK(is_spread(spread) == (class_bytes(c) <= 512 * KiB));
      CHECK(class_bytes(spread) == class_bytes(c));
      CHECK(spread < class_count);
      CHECK(spread_class(c, 16 * KiB) == c);
    }
  }
}

TEST_SUITE("stack_choice") {
  using tendril::stack_kind;
  using tendril::stack_options;

  std::string error_of(const stack_options& options) {
    try {
      choose_stack_class(options);
    } catch (const std::system_error& e) {
      if (e.code() == tendril::errc::invalid_option) return e.what();
      return e.code() == std::errc::not_supported ? std::string("not supported: ") + e.what()
                                                  : "another code";
    }
    return {};
  }

  TEST_CASE("the default and both ends of the range are accepted") {
    CHECK(first_bytes(choose_stack_class({})) == tendril::default_stack_bytes);
    CHECK(first_bytes(choose_stack_class({.bytes = 0})) == tendril::default_stack_bytes);
    CHECK(choose_stack_class({.bytes = 1}) == reserved_of(0));
    CHECK(first_bytes(choose_stack_class({.bytes = 1})) == 16 * KiB);
    CHECK(choose_stack_class({.bytes = 8 * MiB}) == reserved_of(9));
    CHECK(first_bytes(choose_stack_class({.bytes = 8 * MiB})) == 8 * MiB);
  }

  TEST_CASE("a size out of range is an error that names it") {
    CHECK(
        error_of({.bytes = 8 * MiB + 1}).find("stack.bytes = 8388609: allowed are 1 to 8388608") ==
        0);
  }

  TEST_CASE("segmented stacks: chosen, refused with the reason, or replaced under a sanitizer") {
    const stack_options standard{.kind = stack_kind::segmented};
    const stack_options large{.kind = stack_kind::segmented, .bytes = 100 * KiB};
    if (tendril::stack_kind_available(stack_kind::segmented)) {
      CHECK(choose_stack_class(standard) == small_first);
      CHECK(first_bytes(choose_stack_class(standard)) == 2048);
      CHECK(is_segmented(choose_stack_class(large)));
      CHECK(!is_spread(size_class_of(choose_stack_class(large))));
      CHECK(first_bytes(choose_stack_class(large)) == 128 * KiB);
      CHECK(error_of({.kind = stack_kind::segmented, .bytes = 2047})
                .find("stack.bytes = 2047: a first segment may have 2048 to 8388608") == 0);
      CHECK(error_of({.kind = stack_kind::segmented, .bytes = 8 * MiB + 1})
                .find("stack.bytes = 8388609: a first segment may have 2048 to 8388608") == 0);
    } else if (TENDRIL_ASAN || TENDRIL_TSAN) {
      CHECK(first_bytes(choose_stack_class(standard)) == tendril::default_stack_bytes);
    } else {
      const std::string said = error_of(standard);
      CHECK(said.find("not supported: stack.kind = segmented: ") == 0);
      CHECK(said.find("use stack_kind::reserved") != std::string::npos);
    }
  }

  TEST_CASE("tasklets: the size of a slot unless another is named, and the same range") {
    const stack_choice standard = choose_stack_class({.kind = stack_kind::tasklet});
    CHECK(tendril::detail::is_tasklet(standard));
    CHECK(!tendril::detail::is_tasklet(choose_stack_class({})));
    const stack_choice large =
        choose_stack_class({.kind = stack_kind::tasklet, .bytes = 100 * KiB});
    CHECK(tendril::detail::is_tasklet(large));
    CHECK(!is_spread(size_class_of(large)));
    CHECK(first_bytes(large) == 128 * KiB);
    CHECK(error_of({.kind = stack_kind::tasklet, .bytes = 8 * MiB + 1})
              .find("stack.bytes = 8388609: a tasklet may have 1 to 8388608") == 0);
  }

  TEST_CASE("kinds that do not exist are errors that say so") {
    CHECK(error_of({.kind = static_cast<stack_kind>(7)}).find("stack.kind = 7: no such") == 0);
    std::error_code ec;
    CHECK(choose_stack_class({.kind = static_cast<stack_kind>(7)}, ec) == no_stack_class);
    CHECK(ec == tendril::errc::invalid_option);
    CHECK(choose_stack_class({.bytes = 16 * KiB}, ec) == reserved_of(0));
    CHECK(!ec);
  }
}
