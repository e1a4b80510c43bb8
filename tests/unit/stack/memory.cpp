// SPDX-License-Identifier: Apache-2.0
#include "platform/memory.hpp"

#include "support/forked.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <vector>

using namespace tendril;

namespace {

constexpr std::size_t MiB = std::size_t{1} << 20;

struct reservation {
  std::size_t bytes;
  std::byte* low;
  explicit reservation(std::size_t n, std::size_t alignment = 4096)
      : bytes(n), low(static_cast<std::byte*>(platform::reserve_memory(n, alignment))) {}
  ~reservation() {
    if (low != nullptr) platform::release_memory(low, bytes);
  }
};

bool dies_writing(std::byte* p) {
  return test::run_forked([&] { *const_cast<volatile std::byte*>(p) = std::byte{1}; }).signal ==
         SIGSEGV;
}

}  // namespace

TEST_SUITE("memory") {
  TEST_CASE("a reservation is aligned, zero and takes no memory until touched") {
    for (const std::size_t alignment : {std::size_t{4096}, 2 * MiB, 8 * MiB}) {
      reservation r(16 * MiB, alignment);
      REQUIRE(r.low != nullptr);
      CHECK(reinterpret_cast<std::uintptr_t>(r.low) % alignment == 0);
      platform::advise_huge_pages(r.low, r.bytes, platform::huge_pages::never);
      CHECK(!platform::is_resident(r.low));
      CHECK(r.low[12345] == std::byte{0});
      r.low[0] = r.low[r.bytes - 1] = std::byte{1};
      CHECK(platform::is_resident(r.low));
      CHECK(platform::is_resident(r.low + r.bytes - 1));
      CHECK(!platform::is_resident(r.low + r.bytes / 2));
    }
  }

  TEST_CASE("alignment leaves no mapping behind") {
    const std::size_t before = platform::map_count();
    for (int i = 0; i < 200; ++i) reservation r(4 * MiB, 8 * MiB);
    CHECK(platform::map_count() <= before + 8);
  }

  TEST_CASE("discarded memory is given back and reads as zero") {
    reservation r(MiB);
    platform::advise_huge_pages(r.low, r.bytes, platform::huge_pages::never);
    r.low[100] = std::byte{7};
    platform::discard_memory(r.low, r.bytes);
    CHECK(!platform::is_resident(r.low));
    CHECK(r.low[100] == std::byte{0});
  }

  TEST_CASE("populated memory is resident") {
    reservation r(MiB);
    if (platform::populate_memory(r.low, r.bytes))
      CHECK(platform::is_resident(r.low + r.bytes / 2));
  }

  TEST_CASE("a guard faults, survives a discard and adds no mapping") {
    if (!platform::guards_supported()) return;
    reservation r(MiB);
    const std::size_t page = platform::page_size();
    const std::size_t before = platform::map_count();
    REQUIRE(platform::install_guard(r.low + 4 * page, page));
    CHECK(platform::map_count() == before);
    CHECK(dies_writing(r.low + 4 * page));
    CHECK(dies_writing(r.low + 5 * page - 1));
    CHECK(!dies_writing(r.low + 4 * page - 1));
    CHECK(!dies_writing(r.low + 5 * page));
    platform::discard_memory(r.low, r.bytes);
    CHECK(dies_writing(r.low + 4 * page));
  }

  TEST_CASE("many guards at once are those asked for, and no others") {
    if (!platform::guards_supported()) return;
    constexpr unsigned count = 200;  // more than one system call takes
    const std::size_t page = platform::page_size();
    const reservation r(2 * count * page);
    std::vector<std::byte*> pages;
    for (unsigned i = 0; i != count; ++i) pages.push_back(r.low + 2 * i * page);
    REQUIRE(platform::install_guards(pages.data(), count) == count);
    for (const unsigned i : {0U, 1U, 63U, 64U, 199U}) {
      CHECK(dies_writing(pages[i]));
      CHECK(!dies_writing(pages[i] + page));
    }
    platform::fail_guards(true);
    CHECK(platform::install_guards(pages.data(), count) == 0);
    platform::fail_guards(false);
  }

  TEST_CASE("a protected page faults and splits its mapping") {
    reservation r(MiB);
    const std::size_t page = platform::page_size();
    const std::size_t before = platform::map_count();
    REQUIRE(platform::protect_none(r.low + 4 * page, page));
    CHECK(platform::map_count() == before + 2);
    CHECK(dies_writing(r.low + 4 * page));
    platform::discard_memory(r.low, r.bytes);
    CHECK(dies_writing(r.low + 4 * page));
  }

  TEST_CASE("the chosen reservations fail, and no others") {
    platform::fail_reservations(2, 1);
    reservation first(MiB);
    reservation second(MiB);
    reservation third(MiB);
    reservation fourth(MiB);
    platform::fail_reservations(0, 0);
    CHECK(first.low != nullptr);
    CHECK(second.low != nullptr);
    CHECK(third.low == nullptr);
    CHECK(fourth.low != nullptr);
  }

  TEST_CASE("what cannot be had is null") {
    CHECK(platform::reserve_memory(0, 4096) == nullptr);
    CHECK(platform::reserve_memory(SIZE_MAX / 2, 4096) == nullptr);
    CHECK(platform::reserve_memory(SIZE_MAX, 2 * MiB) == nullptr);
  }

  TEST_CASE("the limits of the system are known") {
    CHECK(platform::page_size() >= 4096);
    CHECK(platform::map_count() > 4);
    CHECK(platform::max_map_count() > platform::map_count());
  }
}
