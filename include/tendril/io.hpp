// SPDX-License-Identifier: Apache-2.0
//
// What else blocks: foreign descriptors, work that cannot be made to park, signals.
#pragma once

#include <tendril/buffer.hpp>
#include <tendril/config.hpp>
#include <tendril/detail/waiting.hpp>

#include <chrono>
#include <cstddef>
#include <exception>
#include <initializer_list>
#include <memory>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

namespace tendril {

namespace detail {

/// A call that is run on the pool. On the heap, as the pool's thread writes into it while the fiber's
/// own stack may be elsewhere.
struct pool_call {
  void (*run)(pool_call&) noexcept = nullptr;
};

/// Runs call.run on libuv's pool and parks until it has ended; in place on a plain thread. A code:
/// it was not run, and why.
TENDRIL_API std::error_code run_on_pool(pool_call& call);

}  // namespace detail

/// Runs f on a thread pool and parks until it has ended; returns or throws what f does. For calls that
/// would block the worker: file systems, compressors, foreign libraries.
///
/// A stop request or an expired deadline takes f back while it is still queued; once it runs, the wait
/// goes on to its end and its result is returned.
///
/// f may refer to the caller's variables, on every kind of stack: a tasklet keeps its slot meanwhile, and others that
/// are bound to it wait until f has ended. So f must not wait for fibers.
///
///     auto hash = tendril::blocking([&] { return argon2(password); });
///
/// \throws std::system_error  operation_canceled, timed_out: f was not run
/// \switch  yes; on a plain thread runs f in place
/// \cost    two allocations and two thread switches, about 15 us. The pool has four threads
///          (UV_THREADPOOL_SIZE) and is shared with resolve()
template <class F>
auto blocking(F&& f) -> std::invoke_result_t<std::decay_t<F>&> {
  using R = std::invoke_result_t<std::decay_t<F>&>;
  using stored =
      std::conditional_t<std::is_void_v<R>, char,
                         std::conditional_t<std::is_reference_v<R>, std::add_pointer_t<R>, R>>;
  struct call : detail::pool_call {
    explicit call(F&& body) : f(std::forward<F>(body)) {}
    std::decay_t<F> f;
    std::exception_ptr error{};
    std::optional<stored> result{};
  };
  auto c = std::make_unique<call>(std::forward<F>(f));
  c->run = [](detail::pool_call& base) noexcept {
    auto& self = static_cast<call&>(base);
    try {
      if constexpr (std::is_void_v<R>) self.f();
      else if constexpr (std::is_reference_v<R>) self.result.emplace(std::addressof(self.f()));
      else self.result.emplace(self.f());
    } catch (...) {
      self.error = std::current_exception();
    }
  };
  if (const std::error_code ec = detail::run_on_pool(*c)) throw std::system_error(ec, "blocking");
  if (c->error) std::rethrow_exception(std::move(c->error));
  if constexpr (std::is_reference_v<R>) return static_cast<R>(**c->result);
  else if constexpr (!std::is_void_v<R>) return std::move(*c->result);
}

/// Parks the calling fiber until fd is readable or the deadline passes. For descriptors that are not
/// one of Tendril's handles; fd is watched through a duplicate, so that others may do with it, and with
/// its number, what they like.
///
/// \param fd        open; stays the caller's; its flags are not touched
/// \param deadline  steady_clock; time_point::max() = no limit
/// \param ec        timed_out, operation_canceled, or the system's error. Readable includes: at its end,
///                  or in error. Regular files are always ready
/// \switch  yes, unless already readable; off a fiber, blocks the thread
/// \threads any number of waiters on one fd
/// \cost    one system call when ready, else five
TENDRIL_API void wait_readable(int fd, std::chrono::steady_clock::time_point deadline,
                               std::error_code& ec);
TENDRIL_API void wait_writable(int fd, std::chrono::steady_clock::time_point deadline,
                               std::error_code& ec);
TENDRIL_API void wait_readable(int fd);
TENDRIL_API void wait_writable(int fd);

/// Reads what there is from a pipe, terminal or other descriptor, waiting for at least one byte; 0 at
/// the end. The descriptor's flags are not touched: should another process take the bytes between the
/// wait and the read, and the descriptor be in blocking mode, the read blocks the worker.
///
/// \switch yes
TENDRIL_API std::size_t read_some(int fd, mutable_buffer to, std::error_code& ec);
TENDRIL_API std::size_t read_some(int fd, mutable_buffer to);
/// Writes at least one byte, waiting for room. To a pipe in blocking mode at most PIPE_BUF bytes, which
/// do not block once there is room. A pipe without reader raises SIGPIPE, as write(2) does.
TENDRIL_API std::size_t write_some(int fd, const_buffer from, std::error_code& ec);
TENDRIL_API std::size_t write_some(int fd, const_buffer from);

/// Signals that are waited for instead of handled. While the set lives, their default action is off;
/// those that arrive between two waits are kept, one of each number.
///
///     tendril::signal_set stop({SIGTERM, SIGINT});
///     stop.wait();
///     listener.close();
///
/// \threads  constructed on a fiber; waited for and destroyed anywhere
class TENDRIL_API signal_set {
 public:
  /// \throws std::system_error  errc::no_runtime on a plain thread; invalid_argument for signals that
  ///                            cannot be caught
  explicit signal_set(std::initializer_list<int> signals);
  ~signal_set();
  signal_set(const signal_set&) = delete;
  signal_set& operator=(const signal_set&) = delete;

  /// The number of a signal that has arrived.
  ///
  /// \switch yes, unless one is there
  int wait();
  int wait(std::error_code& ec, std::chrono::steady_clock::time_point deadline =
                                    std::chrono::steady_clock::time_point::max());

  struct state;

 private:
  std::shared_ptr<state> state_;
};

}  // namespace tendril
