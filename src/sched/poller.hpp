// SPDX-License-Identifier: Apache-2.0
//
// What a worker needs of its source of events; src/io implements it (with libuv and the platform's
// readiness set), and the scheduler knows nothing else about I/O.
//
// One poller per worker. poll() and what it calls run on the worker's own stack, with no fiber
// current; completions make fibers runnable by detail::unpark and nothing else.
#pragma once

#include <tendril/runtime.hpp>

#include <chrono>
#include <cstddef>
#include <memory>

namespace tendril::detail {

class poller {
 public:
  virtual ~poller() = default;

  /// Delivers what is ready; blocks up to `timeout` when nothing is (zero: not at all; negative:
  /// until woken). Owner thread only. Rounds a positive timeout up, never down.
  virtual void poll(std::chrono::nanoseconds timeout) = 0;

  /// Makes a poll that blocks, or the next one, return. Any thread; async-signal-safe.
  virtual void wake() noexcept = 0;

  /// Things that may still produce an event: parked reads and writes, pool work, resolves, signals. To
  /// be added up, modulo 2^64, over all pollers of a runtime: a wait may begin on one worker and end on
  /// another. A sum of zero: no event can wake a fiber. Any thread; a snapshot.
  virtual std::size_t pending() const noexcept = 0;

  /// True while events or posted tasks may be waiting that only a poll would find. Any thread; a guess.
  virtual bool in_demand() const noexcept = 0;

  /// False while a non-blocking poll would be wasted: nothing is registered. Owner thread only.
  virtual bool has_sources() const noexcept = 0;
};

/// Defined by src/io.
/// \throws std::system_error  what creating the loop or the descriptor set failed with
std::unique_ptr<poller> make_poller(poller_kind kind);

/// The poller of the worker that runs the calling fiber. Precondition: in the scope of a worker_use that has a
/// worker (worker_thread.hpp); the answer is stale after it.
poller& this_poller() noexcept;

/// A closure that a foreign thread has the worker run between two fibers, on the worker's own stack.
/// The poster owns the memory and learns of the end by what run() does.
struct worker_task {
  worker_task* next = nullptr;
  void (*run)(worker_task&) noexcept = nullptr;
};
/// Index of the worker that runs the calling fiber; pairs with post_to_worker. -1 on a thread, and on one that
/// has lost its worker.
int this_worker_index() noexcept;
/// Runs task on worker `index` of the calling fiber's runtime, soon. Any fiber.
void post_to_worker(unsigned index, worker_task& task) noexcept;

}  // namespace tendril::detail
