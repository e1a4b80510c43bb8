// SPDX-License-Identifier: Apache-2.0
//
// Boost.Fiber behind the policy of harness.hpp: round_robin for one worker, work_stealing for two,
// fixedsize_stack of 16 KiB, which is malloc'ed and has no guard page. With smaller stacks these
// benchmarks overflow them, and what lies beside them is overwritten without notice.
#pragma once

#include <boost/fiber/all.hpp>

#include <bit>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <utility>

namespace bench::micro {

struct boost_fibers {
  static constexpr const char* prefix = "boost_fiber/";
  static constexpr std::size_t stack_bytes = 16 * 1024;

  using fiber = boost::fibers::fiber;
  using mutex = boost::fibers::mutex;
  using condition_variable = boost::fibers::condition_variable;

  /// workers: 1 or 2. Throws what f does. From plain threads, one at a time.
  static void run(unsigned workers, std::function<void()> f);

  template <class F>
  static fiber spawn(F&& f) {
    return fiber(std::allocator_arg, boost::fibers::fixedsize_stack(stack_bytes),
                 std::forward<F>(f));
  }
  template <class F>
  static void spawn_detached(F&& f) {
    spawn(std::forward<F>(f)).detach();
  }

  static void yield() { boost::this_fiber::yield(); }
  static void sleep_for(std::chrono::milliseconds d) { boost::this_fiber::sleep_for(d); }

  /// Its capacities are powers of two, one place of which stays empty.
  template <class T, std::size_t Capacity>
  class buffered {
   public:
    void send(T value) { channel_.push(std::move(value)); }
    T receive() { return channel_.value_pop(); }

   private:
    boost::fibers::buffered_channel<T> channel_{std::bit_ceil(Capacity + 1)};
  };
  template <class T>
  using one_slot = buffered<T, 1>;

  template <class T>
  class rendezvous {
   public:
    void send(T value) { channel_.push(std::move(value)); }
    T receive() { return channel_.value_pop(); }

   private:
    boost::fibers::unbuffered_channel<T> channel_;
  };
};

}  // namespace bench::micro
