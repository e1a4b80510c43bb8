// SPDX-License-Identifier: Apache-2.0
#include "stack/small_segments.hpp"

#include "platform/memory.hpp"
#include "stack/arena_table.hpp"
#include "stack/guard.hpp"
#include "stack/stack_cache.hpp"
#include "support/forked.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

using namespace tendril;
using namespace tendril::detail;

namespace {

constexpr std::size_t MiB = std::size_t{1} << 20;

using segments = std::vector<std::byte*>;

segments acquire_many(small_segment_cache& cache, std::size_t n) {
  segments got;
  for (std::size_t i = 0; i < n; ++i) {
    std::byte* const base = cache.acquire();
    if (base == nullptr) break;
    base[small_segment_bytes - 100] = std::byte{1};  // as a first frame would
    got.push_back(base);
  }
  return got;
}

void release_all(small_segment_cache& cache, const segments& all) {
  for (std::byte* base : all) cache.release(base);
}

segments take_many(small_segment_source& source, unsigned n) {
  segments got(n);
  got.resize(source.take(got.data(), n));
  return got;
}

void give_all(small_segment_source& source, segments all) {
  source.give(all.data(), static_cast<unsigned>(all.size()));
}

std::set<std::uintptr_t> pages_of(const segments& all) {
  std::set<std::uintptr_t> pages;
  for (std::byte* base : all)
    pages.insert(reinterpret_cast<std::uintptr_t>(base) / platform::page_size());
  return pages;
}

std::set<std::byte*> slabs_of(const segments& all) {
  std::set<std::byte*> slabs;
  for (std::byte* base : all) slabs.insert(slab_of(base));
  return slabs;
}

std::size_t resident_bytes(const segments& all) {
  std::size_t n = 0;
  for (const std::uintptr_t page : pages_of(all))
    n += platform::is_resident(reinterpret_cast<void*>(page * platform::page_size()));
  return n * platform::page_size();
}

}  // namespace

TEST_SUITE("small_segments") {
  TEST_CASE("segments are aligned, writable from end to end, and never overlap") {
    small_segment_source source;
    small_segment_cache cache(source);
    const segments all = acquire_many(cache, 1000);
    REQUIRE(all.size() == 1000);
    CHECK(std::set<std::byte*>(all.begin(), all.end()).size() == 1000);
    for (std::size_t i = 0; i < all.size(); ++i) {
      REQUIRE(reinterpret_cast<std::uintptr_t>(all[i]) % small_segment_bytes == 0);
      std::memset(all[i] + segment_canary_bytes, static_cast<int>(i % 251),
                  small_segment_bytes - segment_canary_bytes);
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      REQUIRE(segment_canary_intact(all[i]));
      REQUIRE(all[i][segment_canary_bytes] == std::byte(i % 251));
      REQUIRE(all[i][small_segment_bytes - 1] == std::byte(i % 251));
    }
    release_all(cache, all);
  }

  TEST_CASE("two segments share each page, and a slab is full before the next is cut") {
    if (platform::page_size() != 4096) return;
    small_segment_source source;
    small_segment_cache cache(source);
    const segments all = acquire_many(cache, 3000);
    CHECK(pages_of(all).size() == 1500);
    CHECK(slabs_of(all).size() == 100);
    CHECK(resident_bytes(all) == 3000 * small_segment_bytes);
    CHECK(source.stats().slabs == 100);
    release_all(cache, all);
  }

  TEST_CASE("few segments taken from the source take few pages") {
    if (platform::page_size() != 4096) return;
    small_segment_source source;
    const segments all = take_many(source, 3);
    CHECK(resident_bytes(all) == 2 * 4096);
    CHECK(!platform::is_resident(all.back() + 2 * small_segment_bytes));
    give_all(source, all);
  }

  TEST_CASE("the segment released last is acquired first") {
    small_segment_source source;
    small_segment_cache cache(source);
    const segments all = acquire_many(cache, 3);
    release_all(cache, all);
    CHECK(cache.acquire() == all[2]);
    CHECK(cache.acquire() == all[1]);
    cache.release(all[1]);
    CHECK(cache.acquire() == all[1]);
    CHECK(cache.acquire() == all[0]);
    release_all(cache, all);
  }

  TEST_CASE("a partly used slab is preferred to a fresh one, there a half used page") {
    if (platform::page_size() != 4096) return;
    small_segment_source source;
    segments all = take_many(source, 60);
    REQUIRE(slabs_of(all).size() == 2);
    // Of the first slab two whole pages and, behind them, one half.
    segments back{all[2], all[3], all[6], all[7], all[21]};
    give_all(source, back);
    CHECK(take_many(source, 1) == segments{all[21]});
    const segments pair = take_many(source, 2);
    CHECK(pages_of(pair).size() == 1);
    CHECK(take_many(source, 2).size() == 2);
    CHECK(source.stats().slabs == 2);
    const segments more = take_many(source, 1);
    CHECK(source.stats().slabs == 3);
    give_all(source, more);

    // What one slab has not, the next one that is partly used has.
    segments of_both{all[0], all[1], all[40], all[41], all[42]};
    give_all(source, of_both);
    segments got = take_many(source, 5);
    std::sort(got.begin(), got.end());
    CHECK(got == of_both);
    give_all(source, all);
  }

  TEST_CASE("a slab whose segments are all free gives its memory back, others keep theirs") {
    small_segment_source source;
    const unsigned n = source.per_slab();
    segments all = take_many(source, 3 * n);
    for (std::byte* base : all) std::memset(base, 0xee, small_segment_bytes);
    const auto of_slab = [&](unsigned s) {
      return segments(all.begin() + s * n, all.begin() + (s + 1) * n);
    };
    REQUIRE(slabs_of(of_slab(0)).size() == 1);
    segments first = of_slab(0);
    give_all(source, {first.begin() + 1, first.end()});
    CHECK(resident_bytes(first) == n * small_segment_bytes);
    CHECK(source.stats().returned == 0);
    give_all(source, {first[0]});
    CHECK(resident_bytes(first) == 0);
    CHECK(source.stats().returned == 1);
    CHECK(resident_bytes(of_slab(1)) == n * small_segment_bytes);
    CHECK(all[n][0] == std::byte{0xee});

    // In any order, two slabs by one call; then they are used again before new ones are cut.
    segments rest(all.begin() + n, all.end());
    std::reverse(rest.begin(), rest.end());
    give_all(source, rest);
    CHECK(resident_bytes(all) == 0);
    CHECK(source.stats().returned == 3);
    const segments again = take_many(source, 3 * n);
    CHECK(slabs_of(again) == slabs_of(all));
    CHECK(again[0][100] == std::byte{0});
    CHECK(source.stats().slabs == 3);
    give_all(source, again);
  }

  TEST_CASE("within the watermark memory is kept, past it it goes back") {
    small_segment_source source;
    small_segment_cache cache(source, 1 * MiB);  // 512 segments
    const segments all = acquire_many(cache, 3000);
    release_all(cache, {all.begin(), all.begin() + 512});
    CHECK(source.stats().returned == 0);
    CHECK(source.stats().warm == 512);
    release_all(cache, {all.begin() + 512, all.end()});
    const small_segment_stats s = source.stats();
    CHECK(s.warm <= 512);
    CHECK(s.warm >= 448);
    CHECK(s.in_use == 0);
    CHECK(s.returned >= 70);
    CHECK(resident_bytes(all) <= 1 * MiB + 8 * segment_slab_bytes);
  }

  TEST_CASE("an idle worker gives its segments back in portions, down to a rest") {
    small_segment_source source;
    small_segment_cache cache(source, 16 * MiB);
    segments all = acquire_many(cache, 8001);
    std::byte* const last = all.back();
    all.pop_back();
    CHECK(!cache.worth_trimming());
    release_all(cache, all);
    const std::size_t before = source.stats().warm;
    REQUIRE(cache.worth_trimming());
    cache.trim_portion();
    CHECK(source.stats().warm == before - 2048);
    int portions = 1;
    for (; cache.worth_trimming() && portions < 100; ++portions) cache.trim_portion();
    CHECK(portions <= 4);
    CHECK(source.stats().warm == 8192 / 64);
    cache.trim_portion();
    CHECK(source.stats().warm == 8192 / 64);
    cache.release(last);
    CHECK(cache.worth_trimming());
    cache.trim();
    CHECK(source.stats().warm == 0);
    CHECK(resident_bytes(all) == 0);
  }

  TEST_CASE("a cache that ends gives everything back for others to use") {
    small_segment_source source;
    segments all;
    {
      small_segment_cache cache(source);
      all = acquire_many(cache, 100);
      release_all(cache, all);
    }
    CHECK(source.stats().free == source.stats().created);
    CHECK(resident_bytes(all) == 0);
    const std::size_t created = source.stats().created;
    small_segment_cache cache(source);
    const segments again = acquire_many(cache, created);
    CHECK(source.stats().created == created);
    CHECK(source.stats().in_use == created);
    release_all(cache, again);
  }

  TEST_CASE("statistics add up") {
    small_segment_source source;
    small_segment_cache cache(source);
    const std::size_t n = source.per_slab();
    CHECK(source.stats().created == 0);
    const segments all = acquire_many(cache, n + 1);
    small_segment_stats s = source.stats();
    CHECK(s.created == 2 * n);
    CHECK(s.in_use == n + 1);
    CHECK(s.warm == n - 1);
    CHECK(s.free == 0);
    CHECK(s.slabs == 2);
    CHECK(s.arenas == 1);
    CHECK(s.address_space_bytes == 64 * MiB);
    release_all(cache, all);
    s = source.stats();
    CHECK(s.in_use == 0);
    CHECK(s.warm == 2 * n);
  }

  TEST_CASE("a write below the lowest segment of a slab faults where there is a guard page") {
    for (const stack_guard mode : {stack_guard::madvise, stack_guard::mprotect}) {
      if (mode == stack_guard::madvise && !platform::guards_supported()) continue;
      small_segment_source source({.guard = mode});
      const segments all = take_many(source, 3 * source.per_slab());
      const auto write_below = [](std::byte* slab) {
        return test::run_forked([slab] {
          const_cast<volatile std::byte*>(slab)[platform::page_size() - 1] = std::byte{1};
        });
      };
      for (std::byte* slab : slabs_of(all)) CHECK(write_below(slab).signal == SIGSEGV);
      CHECK(source.stats().canaries == 0);
      give_all(source, all);  // over the guards between them
      for (std::byte* slab : slabs_of(all)) CHECK(write_below(slab).signal == SIGSEGV);
    }
  }

  TEST_CASE("each word of the canary is checked at release, the top one also at a park") {
    small_segment_source source;
    small_segment_cache cache(source);
    std::byte* const base = cache.acquire();
    CHECK(segment_canary_intact(base));
    check_segment_canary_word(base);
    check_small_segment_canary(base);
    for (std::size_t word = 0; word < segment_canary_bytes / 8; ++word) {
      base[word * 8 + word] ^= std::byte{1};
      CHECK(!segment_canary_intact(base));
      const auto at_release = test::run_forked([&] { cache.release(base); });
      CHECK(at_release.signal == SIGABRT);
      CHECK(at_release.says("tendril: stack overflow in an unknown fiber"));
      CHECK(at_release.says("not compiled for segmented stacks ran past the reserve of a segment"));
      const auto at_park = test::run_forked([&] { check_segment_canary_word(base); });
      CHECK(at_park.signal == (word == 7 ? SIGABRT : 0));
      base[word * 8 + word] ^= std::byte{1};
    }
    base[segment_canary_bytes] = std::byte{1};  // the lowest byte of the reserve
    cache.release(base);
    CHECK(segment_canary_intact(cache.acquire()));
    cache.release(base);
  }

  TEST_CASE("without guard pages what ran below a slab is found at release") {
    const auto run = [](bool write) {
      return test::run_forked([write] {
        small_segment_source source({.guard = stack_guard::canary});
        small_segment_cache cache(source);
        std::byte* const lowest = cache.acquire();
        std::byte* const other = cache.acquire();
        if (source.stats().canaries != 1) std::_Exit(3);
        if (lowest != slab_of(lowest) + platform::page_size()) std::_Exit(4);
        if (!source.guard_intact(lowest)) std::_Exit(5);
        if (write) slab_of(lowest)[platform::page_size() - 2000] = std::byte{1};
        cache.release(other);
        std::fprintf(stderr, "so far\n");
        cache.release(lowest);
      });
    };
    CHECK(run(false).exit_code == 0);
    const auto result = run(true);
    CHECK(result.signal == SIGABRT);
    CHECK(result.says("so far\ntendril: stack overflow in"));
  }

  TEST_CASE("a refused guard falls back, it does not lose the segment") {
    const auto result = test::run_forked([] {
      platform::fail_guards(true);
      small_segment_source source;
      small_segment_cache cache(source);
      std::byte* const base = cache.acquire();
      if (base == nullptr || source.stats().canaries != 1) std::_Exit(3);
      cache.release(base);
    });
    CHECK(result.exit_code == 0);
    CHECK(result.says("tendril: warning: no more guard pages"));
  }

  TEST_CASE("without address space acquire gives null, and a segment again later") {
    const std::size_t maps = platform::map_count();
    {
      small_segment_source source;
      small_segment_cache cache(source);
      platform::fail_reservations(0, 1000);
      CHECK(cache.acquire() == nullptr);
      std::byte* base = nullptr;
      CHECK(source.take(&base, 1) == 0);
      platform::fail_reservations(0, 0);
      CHECK(source.stats().arenas == 0);
      base = cache.acquire();
      CHECK(base != nullptr);
      cache.release(base);
    }
    for (std::size_t n = 0; n < 2; ++n) {  // the arena's, then its table's: a smaller one is made
      small_segment_source source;
      platform::fail_reservations(n, 1);
      const segments one = take_many(source, 1);
      platform::fail_reservations(0, 0);
      CHECK(one.size() == 1);
      CHECK(source.stats().address_space_bytes == 32 * MiB);
      give_all(source, one);
    }
    CHECK(platform::map_count() <= maps + 8);
  }

  TEST_CASE("what is in use goes on when there is no more") {
    small_segment_source source({.first_arena_bytes = 2 * MiB, .largest_arena_bytes = 2 * MiB});
    small_segment_cache cache(source);
    const segments first = acquire_many(cache, 1);
    platform::fail_reservations(0, 100000);
    const segments rest = acquire_many(cache, 2000);
    CHECK(rest.size() == 32 * source.per_slab() - 1);
    cache.release(rest.back());
    CHECK(cache.acquire() == rest.back());
    platform::fail_reservations(0, 0);
    release_all(cache, first);
    release_all(cache, rest);
  }

  TEST_CASE("arenas double from the first to the largest") {
    small_segment_source source({.guard = stack_guard::canary,
                                 .first_arena_bytes = 2 * MiB,
                                 .largest_arena_bytes = 4 * MiB});
    segments all;
    std::vector<std::size_t> sizes;
    std::size_t before = 0;
    while (sizes.size() < 4) {
      const segments more = take_many(source, source.per_slab());
      REQUIRE(more.size() == source.per_slab());
      all.insert(all.end(), more.begin(), more.end());
      const std::size_t now = source.stats().address_space_bytes;
      if (now != before) sizes.push_back(now - before);
      before = now;
    }
    CHECK(sizes == std::vector<std::size_t>{2 * MiB, 4 * MiB, 4 * MiB, 4 * MiB});
    give_all(source, all);
  }

  TEST_CASE("every byte of a slab leads to its segment, and those of slices to theirs") {
    small_segment_source source;
    stack_source slices;
    small_segment_cache cache(source);
    stack_cache others(slices);
    const stack_slice slice = others.acquire(2);
    const segments all = acquire_many(cache, source.per_slab());
    std::byte* const slab = slab_of(all[0]);
    for (std::byte* base : all) {
      const bool lowest = base == slab + platform::page_size();
      for (const std::byte* p : {base, base + 1000, base + small_segment_bytes - 1}) {
        found_stack found;
        REQUIRE(find_stack(p, found));
        CHECK(found.is_small_segment());
        CHECK(found.bytes() == small_segment_bytes);
        CHECK(found.slice == stack_slice{base, base + small_segment_bytes});
        CHECK(found.guard_low == (lowest ? slab : base));
        CHECK(!found.in_guard(p));
        CHECK(found.arena_low <= slab);
        CHECK(found.arena_high - found.arena_low == 64 * static_cast<std::ptrdiff_t>(MiB));
      }
    }
    for (const std::byte* p : {slab, slab + platform::page_size() - 1}) {
      found_stack found;
      REQUIRE(find_stack(p, found));
      CHECK(found.slice.low == slab + platform::page_size());
      CHECK(found.in_guard(p));
    }
    found_stack found;
    REQUIRE(find_stack(slice.low, found));
    CHECK(!found.is_small_segment());
    CHECK(found.slice == slice);
    CHECK(find_arena(slice.low, small_segment_class) == nullptr);
    CHECK(find_arena(all[0], 2) == nullptr);
    CHECK(find_arena(all[0], small_segment_class) != nullptr);
    others.release(slice, 2);
    release_all(cache, all);
  }

  TEST_CASE("giving a segment twice, to another source or in the middle ends the process") {
    small_segment_source one;
    small_segment_source two;
    const segments all = take_many(one, 2);
    for (auto wrong : {+[](small_segment_source&a, small_segment_source&, std::byte*base) {
                         give_all(a, {base});
                         give_all(a, {base});
                       },
                       +[](small_segment_source&, small_segment_source&b, std::byte*base) {
                         give_all(b, {base});
                       },
                       +[](small_segment_source&a, small_segment_source&, std::byte*base) {
                         give_all(a, {base + 64});
                       }}) {
      const auto result = test::run_forked([&] { wrong(one, two, all[0]); });
      CHECK(result.signal == SIGABRT);
      CHECK(result.says("a small segment goes back"));
    }
    give_all(one, all);
  }

  TEST_CASE("neighbouring pages differ in colour, by whole lines and little") {
    std::set<std::size_t> seen;
    for (std::uintptr_t at = 64 * MiB; at < 64 * MiB + 20480; at += small_segment_bytes) {
      const std::size_t colour = small_segment_colour(reinterpret_cast<std::byte*>(at));
      CHECK(colour % 64 == 0);
      CHECK(colour <= 256);
      if (at % 4096 != 0) CHECK(seen.count(colour) == 1);
      else CHECK(seen.insert(colour).second);
    }
    CHECK(seen.size() == 5);
  }

  TEST_CASE("threads that pass segments on lose none and share none") {
    small_segment_source source;
    std::mutex mutex;
    segments passed;
    std::atomic<int> torn{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        small_segment_cache cache(source, MiB / 4);
        for (unsigned i = 0; i < 4000; ++i) {
          std::byte* const base = cache.acquire();
          const std::byte mark{static_cast<unsigned char>(t * 50 + i % 50)};
          base[1900] = mark;
          std::byte* other = nullptr;
          {
            const std::lock_guard lock(mutex);
            passed.push_back(base);
            if (passed.size() > 300 || i % 3 == 0) {
              other = passed[i % passed.size()];
              passed.erase(passed.begin() + i % static_cast<std::ptrdiff_t>(passed.size()));
            }
            if (base[1900] != mark) ++torn;
          }
          if (other != nullptr) cache.release(other);
        }
      });
    }
    for (std::thread& t : threads) t.join();
    CHECK(torn == 0);
    CHECK(std::set<std::byte*>(passed.begin(), passed.end()).size() == passed.size());
    CHECK(source.stats().in_use == passed.size());
    for (std::byte* base : passed) CHECK(segment_canary_intact(base));
    small_segment_cache cache(source);
    release_all(cache, passed);
    CHECK(source.stats().in_use == 0);
  }
}
