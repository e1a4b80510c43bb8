// SPDX-License-Identifier: Apache-2.0
#include "stack/arena_table.hpp"

#include "platform/memory.hpp"
#include "stack/stack_cache.hpp"
#include "stack/stack_source.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

using namespace tendril;
using namespace tendril::detail;

TEST_SUITE("arena_table") {
  TEST_CASE("every byte of a slice leads to it, in every class") {
    stack_source source;
    stack_cache cache(source);
    for (unsigned c = 0; c < class_count; ++c) {
      if (!is_spread(c) && c >= size_class_count) continue;
      const stack_slice slice = cache.acquire(c);
      REQUIRE(slice);
      std::byte* base = slice_base(slice.low, c);
      found_stack found;
      for (const std::byte* p :
           {base, slice.low - 1, slice.low, slice.high - 1, base + class_bytes(c) - 1}) {
        REQUIRE(find_stack(p, found));
        CHECK(found.slice == slice);
        CHECK(found.size_class == c);
        CHECK(found.guard_low == base);
        CHECK(found.in_guard(p) == (p < slice.low));
        CHECK(p >= found.arena_low);
        CHECK(p < found.arena_high);
      }
      CHECK(found.arena_high - found.arena_low >= (std::ptrdiff_t{64} << 20));
      cache.release(slice, c);
    }
  }

  TEST_CASE("neighbouring slices are told apart") {
    for (const unsigned c : {2U, 2U | spread_bit}) {
      stack_source source;
      stack_cache cache(source);
      std::vector<stack_slice> slices;
      for (int i = 0; i < 100; ++i) slices.push_back(cache.acquire(c));
      for (const stack_slice& slice : slices) {
        found_stack found;
        REQUIRE(find_stack(slice.low + 10, found));
        CHECK(found.slice == slice);
      }
      for (const stack_slice& slice : slices) cache.release(slice, c);
    }
  }

  TEST_CASE("what groups of spread slices leave out is no stack") {
    constexpr unsigned c = 2U | spread_bit;
    stack_source source;
    std::byte* base = nullptr;
    REQUIRE(source.take(c, &base, 1) == 1);
    found_stack found;
    REQUIRE(find_stack(base, found));
    std::size_t outside = 0;
    for (std::byte* p = found.arena_low; p != found.arena_high; p += spread_page) {
      found_stack there;
      if (!find_stack(p, there)) {
        ++outside;
      } else if (p < there.guard_low || p >= there.guard_low + class_bytes(c)) {
        FAIL("a slice that the address is not in");
      }
    }
    CHECK(outside * spread_page * 32 ==
          static_cast<std::size_t>(found.arena_high - found.arena_low));
  }

  TEST_CASE("other addresses are in no arena") {
    int local = 0;
    static int global = 0;
    found_stack found;
    CHECK(!find_stack(&local, found));
    CHECK(!find_stack(&global, found));
    CHECK(!find_stack(nullptr, found));
    CHECK(!find_stack(reinterpret_cast<void*>(UINTPTR_MAX), found));
  }

  TEST_CASE("a source that ends takes its arenas out, and their entries are used again") {
    for (int i = 0; i < 40000; ++i) {  // more than the table has entries
      const void* inside;
      found_stack found;
      {
        stack_source source;
        std::byte* base = nullptr;
        REQUIRE(source.take(0, &base, 1) == 1);
        inside = base;
        REQUIRE(find_stack(inside, found));
      }
      REQUIRE(!find_stack(inside, found));
    }
  }

  TEST_CASE("arenas come and go while others look up theirs") {
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t) {
      threads.emplace_back([&wrong, c = t % 3] {
        for (int i = 0; i < 500; ++i) {
          stack_source source;
          stack_cache cache(source);
          const stack_slice slice = cache.acquire(c);
          found_stack found;
          if (!find_stack(slice.low, found) || found.slice != slice || found.size_class != c)
            ++wrong;
          cache.release(slice, c);
        }
      });
    }
    for (std::thread& t : threads) t.join();
    CHECK(wrong == 0);
  }
}
