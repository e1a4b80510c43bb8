// SPDX-License-Identifier: Apache-2.0
//
// The runtime: worker threads that run fibers, their options, their end, their statistics.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/closure.hpp>
#include <tendril/stack.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

namespace tendril {

class runtime;

namespace detail {
class scheduler;
/// Of a runtime: no later one has it again.
TENDRIL_API std::uint64_t serial_of(const runtime& r) noexcept;
}  // namespace detail

/// What run() and ~runtime do with fibers that are still alive.
enum class exit_policy {
  drain,  ///< wait until every fiber has ended by itself
  stop,   ///< request every fiber to stop, then wait until all have ended
};

/// What to do when nothing inside the runtime can ever wake the parked fibers.
enum class deadlock_policy {
  report,  ///< print the parked fibers to stderr, once, and go on waiting
  stop,    ///< print them, then request every fiber to stop
  abort,   ///< print them, then abort the process
};

/// How workers wait for I/O.
enum class poller_kind {
  native,    ///< the platform's own: edge-triggered epoll on Linux
  portable,  ///< libuv's uv_poll_t, kept armed
};

struct runtime_options {
  /// Worker threads. 0: one per processor this process may run on. At most 64.
  unsigned workers = 0;
  /// Stack of fibers that do not ask for another. As it is: what the environment variable TENDRIL_STACK =
  /// reserved, segmented or tasklet says, so that a program can be tried on each; else reserved.
  stack_options stack = {};
  exit_policy on_exit = exit_policy::drain;
  /// With exit_policy::drain: after this long, what is left is requested to stop.
  std::chrono::nanoseconds drain_timeout = std::chrono::nanoseconds::max();
  deadlock_policy on_deadlock = deadlock_policy::report;
  /// How long all workers must have been idle, with no timer, I/O or pool work pending, before the
  /// parked fibers are reported. Threads outside the runtime may still wake them: the report says so.
  std::chrono::nanoseconds deadlock_grace = std::chrono::seconds(1);
  poller_kind poller = poller_kind::native;
  /// Stacks of ended fibers that a busy worker keeps for the next ones, in bytes of address space (131,072
  /// of the default size, which typically hold one page each). A worker that is idle for a second gives
  /// all but 1/64 of it back to the system.
  std::size_t warm_stack_bytes = std::size_t{8} << 30;
  /// What the segments of one fiber may take together: a fiber that needs more ends the process with a
  /// message. 256 KiB to 1 TiB.
  std::size_t max_stack_bytes = std::size_t{1} << 30;
  /// What fibers of stack_kind::tasklet run in.
  tasklet_options tasklets = {};
  /// Packs the copies of tasklets that have waited for this long, or a little longer, unless they are small because
  /// they are like others': in the background, by liblz4, to about a third. The wake-up of such a tasklet takes a
  /// few microseconds more. nanoseconds::max(), the default: never. Anything else takes a build with liblz4.
  std::chrono::nanoseconds pack_cold_after = std::chrono::nanoseconds::max();
  /// Called with the exception that left a spawned fiber, on that fiber, before it ends.
  /// Empty: print the fiber's name and the exception to stderr and terminate.
  std::function<void(std::string_view fiber_name, std::exception_ptr)> on_unhandled_exception = {};
  /// A fiber that blocks its thread (in a call that is not tendril's, or pinned to it by a native call) for
  /// about 10 ms while work waits loses its worker to another thread. Such threads beyond one for each worker,
  /// blocked or spare: at most this many. Then, or with 0, a block holds up whatever waits for that worker.
  ///
  /// When the call that blocked returns, the fiber goes on in parallel with those that its worker runs by
  /// then, even in a runtime of one worker. Programs that rely on fibers of one worker never running at the
  /// same time either do not block, or set 0.
  unsigned max_spare_threads = 64;
  /// A spare thread that has had nothing to do for this long ends.
  std::chrono::nanoseconds spare_thread_idle = std::chrono::seconds(10);
  /// Called with a text that says which fiber blocked its thread and where: once for each place, by the
  /// monitor or by the fiber itself. It must not wait for fibers of this runtime, nor throw. Empty: print it
  /// to stderr; to silence it, give a function that does nothing.
  std::function<void(std::string_view report)> on_blocked_worker = {};
  /// Seed of the victims' order in work stealing; 0: from the clock.
  std::uint64_t seed = 0;
};

/// Counters since start. A snapshot: the parts are read one after the other.
struct runtime_stats {
  unsigned workers = 0;
  std::uint64_t fibers_spawned = 0;
  std::uint64_t fibers_finished = 0;
  std::uint64_t switches = 0;  ///< fibers resumed
  std::uint64_t steals = 0;    ///< fibers taken from another worker
  std::uint64_t polls = 0;     ///< times a worker asked the system for events
  std::uint64_t sleeps = 0;    ///< times a worker went to sleep
  std::uint64_t wakeups = 0;   ///< times a sleeping worker was woken by another thread
  std::uint64_t timers_fired = 0;
  std::uint64_t stalls =
      0;  ///< times a worker ran one fiber past the monitor's limit while work waited
  std::uint64_t workers_handed_over = 0;  ///< times a worker left a blocked thread for another
  std::uint64_t pinned_parks = 0;         ///< waits that blocked a thread, their fiber being pinned
  unsigned spare_threads = 0;  ///< now: threads beyond one for each worker, blocked or waiting
  stack_stats stacks = {};
  tasklet_stats tasklets = {};

  std::uint64_t fibers_alive() const noexcept { return fibers_spawned - fibers_finished; }
};

/// A scheduler with its worker threads. Several may exist in one process.
///
/// \threads every member but the destructor may be called from any thread
class TENDRIL_API runtime {
 public:
  /// Starts the workers.
  ///
  /// \throws std::system_error  errc::invalid_option naming the option, or TENDRIL_STACK, and its value;
  ///                            std::errc::not_supported: a kind of stack, or packing, that this build has not, or a
  ///                            tendril::intercept that is of another build; what creating threads, pollers or
  ///                            stacks failed with
  explicit runtime(runtime_options options = {});
  /// stop() or drain(), as the options say, then ends the workers. Not from one of its own fibers.
  ~runtime();
  runtime(const runtime&) = delete;
  runtime& operator=(const runtime&) = delete;

  /// Runs f as a fiber and waits for it; returns or throws what f does. Other fibers go on.
  ///
  /// \switch  on a fiber: yes; on a thread: blocks it
  template <class F>
  auto run(F&& f) -> std::invoke_result_t<std::decay_t<F>&>;

  /// Starts f as a fiber of this runtime that nobody joins.
  template <class F>
  void spawn(F&& f);

  /// Waits until no fiber is left. Threads only (a fiber would wait for itself).
  void drain();
  /// Waits until no fiber is left or the timeout has passed; true when none is left.
  bool drain_for(std::chrono::nanoseconds timeout);
  /// Requests every fiber to stop, also those started from now on. Returns at once.
  void request_stop() noexcept;
  /// request_stop() and drain().
  void stop();

  runtime_stats stats() const;
  unsigned workers() const noexcept;

  /// The runtime of the calling fiber; else the one that was started last; else null.
  static runtime* current() noexcept;

 private:
  friend class detail::scheduler;
  friend std::uint64_t detail::serial_of(const runtime&) noexcept;
  std::unique_ptr<detail::scheduler> impl_;
};

namespace detail {

/// Runs a type-erased body as a fiber of s and blocks or parks until it has ended.
TENDRIL_API void run_to_completion(scheduler& s, void (*body)(void*), void* argument);

template <class F>
auto run_on(scheduler& s, F&& f) -> std::invoke_result_t<std::decay_t<F>&> {
  using R = std::invoke_result_t<std::decay_t<F>&>;
  // The caller waits in place, but its stack may be one that is moved away while it waits: the
  // result and the callable live on the heap.
  struct call {
    std::decay_t<F> f;
    std::exception_ptr error{};
    std::optional<
        std::conditional_t<std::is_void_v<R>, char,
                           std::conditional_t<std::is_reference_v<R>, std::add_pointer_t<R>, R>>>
        result{};
  };
  auto state = std::make_unique<call>(call{std::forward<F>(f)});
  run_to_completion(
      s,
      [](void* p) {
        auto& c = *static_cast<call*>(p);
        try {
          if constexpr (std::is_void_v<R>) c.f();
          else if constexpr (std::is_reference_v<R>) c.result.emplace(std::addressof(c.f()));
          else c.result.emplace(c.f());
        } catch (...) {
          c.error = std::current_exception();
        }
      },
      state.get());
  if (state->error) std::rethrow_exception(std::move(state->error));
  if constexpr (std::is_reference_v<R>) return static_cast<R>(**state->result);
  else if constexpr (!std::is_void_v<R>) return std::move(*state->result);
}

}  // namespace detail

template <class F>
auto runtime::run(F&& f) -> std::invoke_result_t<std::decay_t<F>&> {
  return detail::run_on(*impl_, std::forward<F>(f));
}

template <class F>
void runtime::spawn(F&& f) {
  detail::start_detached(detail::make_fiber_core(std::forward<F>(f)), impl_.get());
}

/// Starts a runtime, runs f on it as a fiber, ends the runtime as the options say, and returns or
/// throws what f did.
///
///     int main() { return tendril::run([] { return serve(); }); }
///
/// \switch  called from a plain thread: blocks it
template <class F>
auto run(runtime_options options, F&& f) -> std::invoke_result_t<std::decay_t<F>&> {
  runtime rt(std::move(options));
  return rt.run(std::forward<F>(f));
}

template <class F>
auto run(F&& f) -> std::invoke_result_t<std::decay_t<F>&> {
  return tendril::run(runtime_options{}, std::forward<F>(f));
}

}  // namespace tendril
