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
poller& this_poller() noexcept { return *worker_use().events(); }

int this_worker_index() noexcept {
  const worker_use here;
  return here.get() != nullptr ? static_cast<int>(here.get()->index()) : -1;
}

void post_to_worker(unsigned index, worker_task& task) noexcept {
  current_scheduler()->worker_at(index).push_inbox(task);
}

}  // namespace detail

namespace this_fiber {

void yield() noexcept {
  if (detail::worker* const w = detail::hold_to_leave()) [[likely]]
    detail::worker::yield_current(w);
  else detail::yield_in_place();
}

void sleep_until_steady(detail::time_point deadline) {
  const detail::outcome why =
      detail::wait_until_done([](const void*) noexcept { return false; }, nullptr,
                              {.deadline = deadline, .reason = "this_fiber::sleep"});
  if (why != detail::outcome::timed_out) detail::throw_outcome(why, "this_fiber::sleep");
}

fiber_id get_id() noexcept {
  detail::fiber_core* const c = detail::current_fiber();
  return c != nullptr ? fiber_id(detail::ensure_id(c)) : fiber_id();
}

std::stop_token get_stop_token() {
  detail::fiber_core* const c = detail::current_fiber();
  return c != nullptr ? detail::stop_source_of(c).get_token() : std::stop_token();
}

bool stop_requested() noexcept {
  const detail::fiber_core* const c = detail::current_fiber();
  return c != nullptr && c->stop_requested();
}

bool is_fiber() noexcept { return detail::current_fiber() != nullptr; }

std::string_view name() noexcept {
  const detail::fiber_core* const c = detail::current_fiber();
  return c != nullptr ? std::string_view(detail::name_of(c)) : std::string_view();
}

int worker_index() noexcept { return is_fiber() ? detail::this_worker_index() : -1; }

}  // namespace this_fiber
}  // namespace tendril
