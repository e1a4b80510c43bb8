// SPDX-License-Identifier: Apache-2.0
//
// Who reads thread-local data, calls a function that switches, and reads it again, must get the new
// thread's. Compilers keep the address of a thread_local, and of errno, over calls; the library reads
// its own through an accessor they cannot see through. This file is compiled into test_context, and
// once more together with the library's sources as one position-independent program with link-time
// optimization, where the compiler sees all of it (tests/CMakeLists.txt).
#include "support/migration.hpp"

#include <doctest/doctest.h>

#include <chrono>

namespace {

using tendril::runtime;
using tendril::test::shuttle;
namespace this_fiber = tendril::this_fiber;

thread_local int marker = -1;  // on each worker's thread: its index

[[gnu::noinline]] void set_marker(int value) {
  marker = value;
  asm volatile("" : : : "memory");
}
[[gnu::noinline]] int read_marker() {
  int value = marker;
  asm volatile("" : "+r"(value) : : "memory");
  return value;
}

}  // namespace

TEST_SUITE("context.thread_local") {
  TEST_CASE("worker_index is the new worker's directly after a migration") {
    runtime rt({.workers = 2});
    shuttle s(rt);
    int wrong = 0, moves = 0;
    rt.run([&] {
      for (int w = 0; w != 2; ++w) {
        s.move_to(w);
        set_marker(w);
      }
      for (int round = 0; round != 1000; ++round) {
        const int target = round % 2;
        const int before = this_fiber::worker_index();  // the address, if kept, is kept from here
        s.move_to(target);
        const int after = this_fiber::worker_index();
        if (after != target || read_marker() != after) ++wrong;
        if (before != after) ++moves;
      }
    });
    CHECK(wrong == 0);
    CHECK(moves == 1000);
  }

  TEST_CASE("the current fiber is the caller, whatever thread it is on") {
    runtime rt({.workers = 2});
    shuttle s(rt);
    int wrong = 0;
    rt.run([&] {
      tendril::fiber other([&] {
        const tendril::fiber_id me = this_fiber::get_id();
        for (int round = 0; round != 500; ++round) {
          s.move_on();
          if (this_fiber::get_id() != me) ++wrong;
        }
      });
      const tendril::fiber_id me = this_fiber::get_id();
      for (int round = 0; round != 500; ++round) {
        const tendril::fiber_id before = this_fiber::get_id();
        s.move_on();
        if (this_fiber::get_id() != before || before != me || !this_fiber::is_fiber()) ++wrong;
      }
      other.join();
    });
    CHECK(wrong == 0);
  }

  TEST_CASE("what yields, parks, sleeps and starts fibers in one loop stays on the right worker") {
    runtime rt({.workers = 2});
    shuttle s(rt);
    int wrong = 0, started = 0;
    rt.run([&] {
      for (int w = 0; w != 2; ++w) {
        s.move_to(w);
        set_marker(w);
      }
      for (int round = 0; round != 200; ++round) {
        s.move_on();
        if (this_fiber::worker_index() != read_marker()) ++wrong;
        this_fiber::yield();
        if (this_fiber::worker_index() != read_marker()) ++wrong;
        tendril::fiber child([&] { ++started; });
        s.move_on();
        child.join();
        if (this_fiber::worker_index() != read_marker()) ++wrong;
        this_fiber::sleep_for(std::chrono::nanoseconds(1));
        if (this_fiber::worker_index() != read_marker()) ++wrong;
      }
    });
    CHECK(wrong == 0);
    CHECK(started == 200);
  }
}
