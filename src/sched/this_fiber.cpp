// SPDX-License-Identifier: Apache-2.0
//
// The calling fiber's own affairs, and what other layers ask about where they run.
#include "sched/poller.hpp"
#include "sched/scheduler.hpp"
#include "sched/worker.hpp"

#include <tendril/fiber.hpp>

#include <thread>

namespace tendril {
namespace detail {
namespace {

fiber_core* this_core() noexcept {
  worker* const w = this_worker();
  return w != nullptr ? w->current() : nullptr;
}

}  // namespace

poller& this_poller() noexcept { return this_worker()->events(); }

int this_worker_index() noexcept {
  const worker* const w = this_worker();
  return w != nullptr ? static_cast<int>(w->index()) : -1;
}

void post_to_worker(unsigned index, worker_task& task) noexcept {
  this_worker()->owner().worker_at(index).push_inbox(task);
}

}  // namespace detail

namespace this_fiber {

void yield() noexcept {
  detail::worker* const w = detail::this_worker();
  if (w != nullptr && w->current() != nullptr) detail::worker::yield_current(w);
  else std::this_thread::yield();
}

void sleep_until_steady(detail::time_point deadline) {
  const detail::outcome why =
      detail::wait_until_done([](const void*) noexcept { return false; }, nullptr,
                              {.deadline = deadline, .reason = "this_fiber::sleep"});
  if (why != detail::outcome::timed_out) detail::throw_outcome(why, "this_fiber::sleep");
}

fiber_id get_id() noexcept {
  const detail::fiber_core* const c = detail::this_core();
  return c != nullptr ? detail::id_of(c) : fiber_id();
}

std::stop_token get_stop_token() {
  detail::fiber_core* const c = detail::this_core();
  return c != nullptr ? detail::stop_source_of(c).get_token() : std::stop_token();
}

bool stop_requested() noexcept {
  const detail::fiber_core* const c = detail::this_core();
  return c != nullptr && c->stop_requested();
}

bool is_fiber() noexcept { return detail::this_core() != nullptr; }

std::string_view name() noexcept {
  const detail::fiber_core* const c = detail::this_core();
  return c != nullptr ? std::string_view(detail::name_of(c)) : std::string_view();
}

int worker_index() noexcept { return is_fiber() ? detail::this_worker_index() : -1; }

}  // namespace this_fiber
}  // namespace tendril
