// SPDX-License-Identifier: Apache-2.0
//
// Threads behind those members of harness.hpp's policy that make sense for them.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

namespace bench::micro {

struct std_threads {
  static constexpr const char* prefix = "std_thread/";

  using fiber = std::thread;
  using mutex = std::mutex;
  using condition_variable = std::condition_variable;

  /// The operating system decides how many processors they run on.
  template <class F>
  static void run(unsigned /*workers*/, F&& f) {
    std::forward<F>(f)();
  }
  template <class F>
  static fiber spawn(F&& f) {
    return fiber(std::forward<F>(f));
  }
};

}  // namespace bench::micro
