// SPDX-License-Identifier: Apache-2.0
//
// Tendril behind the policy of harness.hpp, with its default options: 64 KiB stacks, guarded, whose
// pages are committed when touched. A runtime lives for one run; its start and end are not measured.
#pragma once

#include <tendril/channel.hpp>
#include <tendril/condition_variable.hpp>
#include <tendril/fiber.hpp>
#include <tendril/mutex.hpp>
#include <tendril/runtime.hpp>

#include <chrono>
#include <cstddef>
#include <utility>

namespace bench::micro {

struct tendril_fibers {
  static constexpr const char* prefix = "";

  using fiber = tendril::fiber;
  using mutex = tendril::mutex;
  using condition_variable = tendril::condition_variable;

  template <class F>
  static void run(unsigned workers, F&& f) {
    tendril::runtime_options options;
    options.workers = workers;
    tendril::run(std::move(options), std::forward<F>(f));
  }

  template <class F>
  static fiber spawn(F&& f) {
    return fiber(std::forward<F>(f));
  }
  template <class F>
  static void spawn_detached(F&& f) {
    tendril::spawn(std::forward<F>(f));
  }

  static void yield() { tendril::this_fiber::yield(); }
  static void sleep_for(std::chrono::milliseconds d) { tendril::this_fiber::sleep_for(d); }

  template <class T, std::size_t Capacity>
  class buffered {
   public:
    void send(T value) { channel_.send(std::move(value)); }
    /// Throws std::bad_optional_access on a closed channel; none is closed here.
    T receive() { return channel_.receive().value(); }

   private:
    tendril::channel<T> channel_{Capacity};
  };
  template <class T>
  using rendezvous = buffered<T, 0>;
  template <class T>
  using one_slot = buffered<T, 1>;
};

}  // namespace bench::micro
