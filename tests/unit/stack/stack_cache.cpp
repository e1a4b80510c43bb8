// SPDX-License-Identifier: Apache-2.0
#include "stack/stack_cache.hpp"

#include "platform/memory.hpp"
#include "stack/stack_source.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

using namespace tendril;
using namespace tendril::detail;

namespace {

constexpr unsigned k64 = 2;  // the class of 64 KiB
constexpr unsigned spread64 = spread_bit | k64;
constexpr std::size_t MiB = std::size_t{1} << 20;

/// Whether slices have this class: there are gaps between the two kinds.
bool exists(unsigned c) { return is_spread(c) || c < size_class_count; }

std::vector<stack_slice> acquire_many(stack_cache& cache, unsigned size_class, std::size_t n) {
  std::vector<stack_slice> slices;
  for (std::size_t i = 0; i < n; ++i) {
    slices.push_back(cache.acquire(size_class));
    if (!slices.back()) {
      slices.pop_back();
      break;
    }
    slices.back().high[-1] = std::byte{1};  // as a fiber's first frame would
  }
  return slices;
}

void release_all(stack_cache& cache, unsigned size_class, const std::vector<stack_slice>& slices) {
  for (const stack_slice& s : slices) cache.release(s, size_class);
}

std::size_t resident(const std::vector<stack_slice>& slices) {
  return static_cast<std::size_t>(
      std::count_if(slices.begin(), slices.end(),
                    [](const stack_slice& s) { return platform::is_resident(s.high - 1); }));
}

}  // namespace

TEST_SUITE("stack_cache") {
  TEST_CASE("a slice of any class can be written from end to end") {
    stack_source source;
    stack_cache cache(source);
    for (unsigned c = 0; c < class_count; ++c) {
      if (!exists(c)) continue;
      const stack_slice slice = cache.acquire(c);
      REQUIRE(slice);
      const auto usable = static_cast<std::size_t>(slice.high - slice.low);
      CHECK(usable <= class_bytes(c) - platform::page_size());
      CHECK(usable >= class_bytes(c) - platform::page_size() - 1920);
      std::memset(slice.low, 0xee, usable);
      cache.release(slice, c);
    }
  }

  TEST_CASE("the slice released last is acquired first") {
    stack_source source;
    stack_cache cache(source);
    const auto slices = acquire_many(cache, k64, 3);
    release_all(cache, k64, slices);
    CHECK(cache.acquire(k64) == slices[2]);
    CHECK(cache.acquire(k64) == slices[1]);
    cache.release(slices[1], k64);
    CHECK(cache.acquire(k64) == slices[1]);
    CHECK(cache.acquire(k64) == slices[0]);
    release_all(cache, k64, slices);
  }

  TEST_CASE("slices in use never overlap") {
    stack_source source;
    stack_cache cache(source);
    std::vector<stack_slice> slices;
    for (unsigned c = 0; c < 4; ++c) {
      const auto more = acquire_many(cache, c, 200);
      slices.insert(slices.end(), more.begin(), more.end());
    }
    std::sort(slices.begin(), slices.end(), [](auto& a, auto& b) { return a.low < b.low; });
    for (std::size_t i = 1; i < slices.size(); ++i) {
      CHECK(slices[i - 1].high + platform::page_size() <= slices[i].low);
    }
  }

  TEST_CASE("spread slices are cut to the end of each arena, and used again") {
    // Two groups each: 62 slices of the 64 there would be room for.
    stack_source source({.first_arena_bytes = 4 * MiB, .largest_arena_bytes = 4 * MiB});
    std::set<std::byte*> bases;
    std::byte* some[62];
    for (std::size_t arenas = 1; arenas != 4; ++arenas) {
      REQUIRE(source.take(spread64, some, 62) == 62);
      for (std::byte* b : some) {
        CHECK(slice_base(b + 12345, spread64) == b);
        CHECK(bases.insert(b).second);
      }
      CHECK(source.stats().arenas == arenas);
    }
    for (auto i = bases.begin(); std::next(i) != bases.end(); ++i)
      CHECK(*std::next(i) - *i >= static_cast<std::ptrdiff_t>(class_bytes(spread64)));
    for (std::byte* b : bases) source.give(spread64, &b, 1, stack_source::memory::touched);
    for (int i = 0; i != 3; ++i) {
      REQUIRE(source.take(spread64, some, 62) == 62);
      for (std::byte* b : some) CHECK(bases.erase(b) == 1);
    }
    CHECK(source.stats().arenas == 3);
  }

  TEST_CASE("a slice that was never used takes no memory") {
    stack_source source;
    stack_cache cache(source);
    const stack_slice slice = cache.acquire(k64);
    CHECK(!platform::is_resident(slice.high - 1));
    CHECK(!platform::is_resident(slice.low));
    cache.release(slice, k64);
  }

  TEST_CASE("a shallow stack takes one page, whatever its colour") {
    stack_source source;
    stack_cache cache(source);
    const auto slices = acquire_many(cache, k64, 64);
    for (const stack_slice& s : slices) {
      std::memset(s.high - 2000, 1, 2000);
      CHECK(!platform::is_resident(s.high - platform::page_size() - 1));
    }
    release_all(cache, k64, slices);
  }

  TEST_CASE("within the watermark released stacks keep their memory") {
    stack_source source;
    stack_cache cache(source, 8 * MiB);
    const auto slices = acquire_many(cache, k64, 128);  // 8 MiB
    release_all(cache, k64, slices);
    CHECK(resident(slices) == slices.size());
    CHECK(source.stats().trimmed == 0);
    CHECK(source.stats().warm == 128);
  }

  TEST_CASE("past the watermark memory is given back down to an eighth below it") {
    stack_source source;
    stack_cache cache(source, 8 * MiB);
    const auto slices = acquire_many(cache, k64, 1000);
    CHECK(resident(slices) == 1000);
    release_all(cache, k64, slices);
    const stack_stats s = source.stats();
    CHECK(s.warm <= 128);
    CHECK(s.warm >= 112);
    CHECK(s.trimmed == 1000 - s.warm);
    CHECK(resident(slices) == s.warm);
  }

  TEST_CASE("a trimmed slice is zero, guarded and usable") {
    stack_source source;
    stack_cache cache(source, 0);
    const stack_slice slice = cache.acquire(k64);
    std::memset(slice.low, 0xee, static_cast<std::size_t>(slice.high - slice.low));
    cache.release(slice, k64);
    CHECK(!platform::is_resident(slice.low));
    CHECK(source.stats().warm == 0);
    stack_slice again;
    std::vector<stack_slice> others;
    while ((again = cache.acquire(k64)) != slice) others.push_back(again);
    CHECK(slice.low[0] == std::byte{0});
    CHECK(source.guard_intact(slice, k64));
    release_all(cache, k64, others);
    cache.release(slice, k64);
  }

  TEST_CASE("the class with most warm memory gives when another needs room") {
    stack_source source;
    stack_cache cache(source, 8 * MiB);
    const auto large = acquire_many(cache, 6, 8);  // 1 MiB each: the watermark exactly
    const auto small = acquire_many(cache, 0, 8);
    release_all(cache, 6, large);
    release_all(cache, 0, small);
    CHECK(resident(small) == 8);
    CHECK(resident(large) == 6);
  }

  TEST_CASE("trim gives all warm memory back at once") {
    stack_source source;
    stack_cache cache(source);
    const auto slices = acquire_many(cache, k64, 200);
    release_all(cache, k64, slices);
    cache.trim();
    CHECK(resident(slices) == 0);
    CHECK(source.stats().warm == 0);
    CHECK(source.stats().cold == source.stats().created);
  }

  TEST_CASE("a cache that ends gives everything back for others to use") {
    stack_source source;
    std::vector<stack_slice> slices;
    {
      stack_cache cache(source);
      slices = acquire_many(cache, k64, 100);
      release_all(cache, k64, slices);
    }
    const stack_stats s = source.stats();
    CHECK(s.in_use == 0);
    CHECK(s.cold == s.created);
    CHECK(resident(slices) == 0);
    stack_cache cache(source);
    const auto again = acquire_many(cache, k64, s.created);
    CHECK(again.size() == s.created);
    CHECK(source.stats().created == s.created);
    release_all(cache, k64, again);
  }

  TEST_CASE("a cache of a closed source ends without giving memory back") {
    stack_source source;
    {
      stack_cache cache(source);
      const stack_slice used = cache.acquire(k64);
      used.high[-1] = std::byte{1};
      cache.release(used, k64);
      source.close();
    }
    CHECK(source.stats().trimmed == 0);
    CHECK(source.stats().warm == 0);
  }

  TEST_CASE("a slice may be released into another cache than it came from") {
    stack_source source;
    stack_cache one(source);
    stack_cache two(source);
    const stack_slice slice = one.acquire(k64);
    two.release(slice, k64);
    CHECK(two.acquire(k64) == slice);
    CHECK(source.stats().in_use == 1);
    one.release(slice, k64);
    CHECK(source.stats().in_use == 0);
  }

  TEST_CASE("statistics add up") {
    stack_source source;
    stack_cache cache(source);
    CHECK(source.stats().created == 0);
    CHECK(source.stats().arenas == 0);
    const auto slices = acquire_many(cache, k64, 10);
    stack_stats s = source.stats();
    CHECK(s.in_use == 10);
    CHECK(s.created == 16);  // cut sixteen at a time
    CHECK(s.cold == 6);
    CHECK(s.warm == 0);
    CHECK(s.arenas == 1);
    CHECK(s.address_space_bytes == 64 * MiB);
    release_all(cache, k64, slices);
    s = source.stats();
    CHECK(s.in_use == 0);
    CHECK(s.warm == 10);
    CHECK(s.cold == 6);
  }

  TEST_CASE("threads that pass slices on lose none and share none") {
    stack_source source;
    std::mutex mutex;
    std::vector<stack_slice> passed;
    std::atomic<int> torn{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        stack_cache cache(source, 2 * MiB);
        for (unsigned i = 0; i < 3000; ++i) {
          const stack_slice slice = cache.acquire(k64);
          const std::byte mine{static_cast<unsigned char>(t * 50 + i % 50)};
          slice.high[-100] = mine;
          stack_slice other;
          {
            const std::lock_guard lock(mutex);
            passed.push_back(slice);
            if (passed.size() > 100) {
              other = passed[i % passed.size()];
              passed.erase(passed.begin() + i % static_cast<std::ptrdiff_t>(passed.size()));
            }
            if (slice.high[-100] != mine) ++torn;
          }
          if (other) cache.release(other, k64);
        }
      });
    }
    for (std::thread& t : threads) t.join();
    CHECK(torn == 0);
    std::set<std::byte*> distinct;
    for (const stack_slice& s : passed) distinct.insert(s.low);
    CHECK(distinct.size() == passed.size());
    CHECK(source.stats().in_use == passed.size());
    stack_cache cache(source);
    release_all(cache, k64, passed);
    CHECK(source.stats().in_use == 0);
  }
}

TEST_SUITE("stack_source") {
  TEST_CASE("arenas double from the first to the largest") {
    stack_source source({.guard = stack_guard::canary,
                         .first_arena_bytes = 4 * MiB,
                         .largest_arena_bytes = 16 * MiB});
    std::byte* bases[8];
    std::vector<std::size_t> sizes;
    std::size_t before = 0;
    while (sizes.size() < 5) {
      REQUIRE(source.take(5, bases, 8) == 8);
      const std::size_t now = source.stats().address_space_bytes;
      if (now != before) sizes.push_back(now - before);
      before = now;
    }
    CHECK(sizes == std::vector<std::size_t>{4 * MiB, 8 * MiB, 16 * MiB, 16 * MiB, 16 * MiB});
  }

  TEST_CASE("without address space acquire is empty, and works again later") {
    stack_source source;
    stack_cache cache(source);
    platform::fail_reservations(0, 1000);
    for (unsigned c = 0; c < class_count; ++c) CHECK((!exists(c) || !cache.acquire(c)));
    platform::fail_reservations(0, 0);
    CHECK(source.stats().arenas == 0);
    for (unsigned c = 0; c < class_count; ++c) {
      if (!exists(c)) continue;
      const stack_slice slice = cache.acquire(c);
      CHECK(slice);
      cache.release(slice, c);
    }
  }

  TEST_CASE("each reservation may fail: a smaller arena is made, nothing leaks") {
    const std::size_t maps = platform::map_count();
    for (std::size_t n = 0; n < 4; ++n) {
      stack_source source;
      stack_cache cache(source);
      platform::fail_reservations(n, 1);
      const auto slices = acquire_many(cache, 9, 40);  // 8 MiB: the second arena is soon needed
      platform::fail_reservations(0, 0);
      CHECK(slices.size() == 40);
      release_all(cache, 9, slices);
      CHECK(source.stats().in_use == 0);
    }
    CHECK(platform::map_count() <= maps + 8);
  }

  TEST_CASE("what is in use goes on when there is no more") {
    stack_source source({.first_arena_bytes = 2 * MiB, .largest_arena_bytes = 2 * MiB});
    stack_cache cache(source);
    const auto first = acquire_many(cache, k64, 1);
    platform::fail_reservations(0, 100000);
    auto rest = acquire_many(cache, k64, 1000);
    CHECK(rest.size() == 31);
    cache.release(rest.back(), k64);
    CHECK(cache.acquire(k64) == rest.back());
    platform::fail_reservations(0, 0);
    release_all(cache, k64, first);
    release_all(cache, k64, rest);
  }

  TEST_CASE("a hundred thousand guarded stacks take a handful of mappings") {
    if (!platform::guards_supported()) return;
    const std::size_t maps = platform::map_count();
    stack_source source({.guard = stack_guard::madvise});
    stack_cache cache(source);
    std::vector<stack_slice> slices;
    for (int i = 0; i < 100'000; ++i) slices.push_back(cache.acquire(k64));
    CHECK(std::all_of(slices.begin(), slices.end(), [](const stack_slice& s) { return bool(s); }));
    CHECK(platform::map_count() < maps + 100);
    const stack_stats s = source.stats();
    CHECK(s.in_use == 100'000);
    CHECK(s.canaries == 0);
    CHECK(s.address_space_bytes < std::size_t{16} << 30);
  }
}
