// SPDX-License-Identifier: Apache-2.0
//
// What the platform tells of other threads, and its barrier on all of them.
#include "platform/thread_state.hpp"

#include "platform/barrier.hpp"

#include <doctest/doctest.h>

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

namespace {

namespace platform = tendril::platform;
using platform::thread_activity;

std::string described(const void* address) {
  char text[200];
  platform::describe_address(address, text, sizeof text);
  return text;
}

}  // namespace

TEST_SUITE("thread_state") {
  TEST_CASE("a thread in read() is blocked, and its system call is found with its caller") {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    std::atomic<platform::thread_number> number{0};
    std::atomic<const void*> frame{nullptr};
    std::thread reader([&] {
      frame = __builtin_frame_address(0);
      number = platform::this_thread_number();
      char byte;
      [[maybe_unused]] const auto n = ::read(ends[0], &byte, 1);
    });
    while (number == 0 || platform::activity_of(number) != thread_activity::blocked ||
           platform::blocked_call_of(number).number != SYS_read)
      std::this_thread::yield();
    const platform::blocked_call call = platform::blocked_call_of(number);
    const auto* const top = static_cast<const char*>(frame.load()) + 64;
    const void* const caller = platform::likely_caller(call, call.stack_pointer, top);
    const void* const outside = platform::likely_caller(call, top, top + 4096);
    [[maybe_unused]] const auto n = ::write(ends[1], "", 1);
    reader.join();
    ::close(ends[0]);
    ::close(ends[1]);

    CHECK(call.number == SYS_read);
    CHECK(call.stack_pointer < frame.load());
    CHECK(described(call.instruction).find("lib") != std::string::npos);
    CHECK(caller != nullptr);
    CHECK(outside == nullptr);
  }

  TEST_CASE("a thread that computes is running, in no system call") {
    std::atomic<platform::thread_number> number{0};
    std::atomic<bool> closing{false};
    std::thread hog([&] {
      number = platform::this_thread_number();
      while (!closing) asm volatile("" : : : "memory");
    });
    while (number == 0) std::this_thread::yield();
    while (platform::activity_of(number) != thread_activity::running) std::this_thread::yield();
    while (platform::blocked_call_of(number).instruction != nullptr) std::this_thread::yield();
    closing = true;
    hog.join();
    CHECK(platform::activity_of(platform::this_thread_number()) == thread_activity::running);
  }

  TEST_CASE("of a thread that does not exist nothing is known") {
    CHECK(platform::activity_of(-1) == thread_activity::unknown);
    CHECK(platform::blocked_call_of(-1).number == -1);
    CHECK(platform::blocked_call_of(-1).instruction == nullptr);
    CHECK(platform::likely_caller({}, nullptr, nullptr) == nullptr);
  }

  TEST_CASE("an address is described by its function and file, and never beyond the buffer") {
    CHECK(described(reinterpret_cast<const void*>(&std::abort)).find("abort") != std::string::npos);
    CHECK(described(nullptr) == "(nil)");
    char text[8] = "xxxxxxx";
    platform::describe_address(reinterpret_cast<const void*>(&std::abort), text, sizeof text);
    CHECK(std::string_view(text).size() < sizeof text);
  }

  TEST_CASE("the heavy barrier works, fails when told to, and can be prepared twice") {
    CHECK(platform::prepare_heavy_barrier());
    CHECK(platform::prepare_heavy_barrier());
    CHECK(platform::heavy_barrier());
    platform::fail_heavy_barriers(true);
    CHECK_FALSE(platform::prepare_heavy_barrier());
    CHECK_FALSE(platform::heavy_barrier());
    platform::fail_heavy_barriers(false);
    CHECK(platform::heavy_barrier());
  }
}
