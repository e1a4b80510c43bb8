// SPDX-License-Identifier: Apache-2.0
//
// The public runtime in front of the scheduler.
#include "base/check.hpp"
#include "sched/interception.hpp"
#include "sched/interruption.hpp"
#include "sched/scheduler.hpp"
#include "sched/worker.hpp"
#include "stack/overflow.hpp"
#include "stack/segmented.hpp"

#include <tendril/error.hpp>
#include <tendril/runtime.hpp>

#include <cstdio>
#include <mutex>

namespace tendril {
namespace detail {
namespace {

void describe_caller(char* buffer, unsigned long size) noexcept {
  if (fiber_core* const c = current_fiber())
    std::snprintf(buffer, size, "fiber '%s' (id %llu)", name_of(c),
                  static_cast<unsigned long long>(ensure_id(c)));
}

/// For the overflow report, in a signal handler on the thread whose fiber overflowed.
void describe_stack(const stack_slice& slice, fiber_description& out) noexcept {
  fiber_core* const c = current_fiber();
  if (c == nullptr || c->the_frame() == nullptr) return;
  if (c->the_frame()->slice.low != slice.low) {
    out.use = stack_use::other;
    return;
  }
  out.name = name_of(c);
  out.id = ensure_id(c);
  out.use = stack_use::current;
}

/// For the report of unsplit code that ran off a segment; there too.
[[maybe_unused]] std::uintptr_t describe_running(fiber_description& out) noexcept {
  if (fiber_core* const c = current_fiber()) {
    out.name = name_of(c);
    out.id = ensure_id(c);
    out.use = stack_use::current;
  }
  return platform::stack_limit();
}

void install_process_hooks() {
  static std::once_flag once;
  std::call_once(once, [] {
    set_caller_description(&describe_caller);
    set_describe_stack(&describe_stack);
    if constexpr (segments_built) set_describe_running(&describe_running);
    install_overflow_handler();
  });
}

void require_thread_outside(const scheduler& s, const char* what) {
  if (current_scheduler() == &s)
    throw std::system_error(make_error_code(errc::would_deadlock),
                            std::string(what) + ": called on one of the runtime's own fibers");
}

void end_fibers(scheduler& s) {
  const runtime_options& o = s.options();
  if (o.on_exit == exit_policy::drain && s.drain_until(deadline_after(o.drain_timeout))) return;
  s.request_stop();
  s.drain_until(no_deadline);
}

}  // namespace

std::uint64_t serial_of(const runtime& r) noexcept { return r.impl_->serial(); }

void run_to_completion(scheduler& s, void (*body)(void*), void* argument) {
  fiber_core* const c = make_fiber_core([body, argument] { body(argument); });
  if (current_fiber() == nullptr) {
    const run_call noted(*c);
    start_joinable(c, &s);
    join_core(c, false);
  } else {
    start_joinable(c, &s);
    join_core(c, false);
  }
  release_handle(c);
}

}  // namespace detail

runtime::runtime(runtime_options options) {
  detail::install_process_hooks();
  detail::install_interception();
  impl_ = std::make_unique<detail::scheduler>(*this, std::move(options));
}

runtime::~runtime() {
  TENDRIL_CHECK(detail::current_scheduler() != impl_.get(),
                "a runtime cannot be destroyed by one of its own fibers");
  detail::end_fibers(*impl_);
  impl_->guests().close();
  detail::end_fibers(
      *impl_);  // those that began as calls on other threads, and suspended meanwhile
}

void runtime::drain() {
  detail::require_thread_outside(*impl_, "runtime::drain");
  impl_->drain_until(detail::no_deadline);
}

bool runtime::drain_for(std::chrono::nanoseconds timeout) {
  detail::require_thread_outside(*impl_, "runtime::drain_for");
  return impl_->drain_until(detail::deadline_after(timeout));
}

void runtime::request_stop() noexcept { impl_->request_stop(); }

void runtime::stop() {
  detail::require_thread_outside(*impl_, "runtime::stop");
  request_stop();
  impl_->drain_until(detail::no_deadline);
}

runtime_stats runtime::stats() const { return impl_->stats(); }
unsigned runtime::workers() const noexcept { return impl_->worker_count(); }

runtime* runtime::current() noexcept {
  detail::scheduler* s = detail::current_scheduler();
  if (s == nullptr) s = detail::latest_scheduler();
  return s != nullptr ? &s->handle() : nullptr;
}

}  // namespace tendril
