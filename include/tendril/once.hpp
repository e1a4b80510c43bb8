// SPDX-License-Identifier: Apache-2.0
//
// Running a function once among fibers and threads: std::call_once.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/waiting.hpp>

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

namespace tendril {

/// \source [thread.once]
class TENDRIL_API once_flag {
 public:
  constexpr once_flag() noexcept = default;
  once_flag(const once_flag&) = delete;
  once_flag& operator=(const once_flag&) = delete;

 private:
  template <class F, class... Args>
  friend void call_once(once_flag&, F&&, Args&&...);

  enum : std::uint32_t { fresh, running, done };

  /// True: the caller runs the function and then calls finish(). False: another has run it.
  bool begin();
  void finish(std::uint32_t state) noexcept;

  std::atomic<std::uint32_t> state_{fresh};
  detail::tiny_lock lock_;
  detail::wait_list waiters_;
};

/// If f throws, the exception goes to this caller and the next one tries.
///
/// \throws std::system_error  operation_canceled, timed_out (deadline_scope) while another runs f
/// \switch yes, while another runs f
/// \cost   one load once done
template <class F, class... Args>
void call_once(once_flag& flag, F&& f, Args&&... args) {
  if (flag.state_.load(std::memory_order_acquire) == once_flag::done)
    return;  // pairs with finish()
  if (!flag.begin()) return;
  try {
    std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
  } catch (...) {
    flag.finish(once_flag::fresh);
    throw;
  }
  flag.finish(once_flag::done);
}

}  // namespace tendril
