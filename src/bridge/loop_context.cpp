// SPDX-License-Identifier: Apache-2.0
//
// The loop's queue, its host, and the watch over the host's waits.
//
// Everything is behind one lock, held for a few instructions. The host waits for works as anybody waits, in a
// wait_list, but not on its own context. While it is in another wait, `blocked` says so, and who posts
// unparks it: it then looks again (before_host_waits), and either goes on waiting, to be asked again when
// the grace is over, or says what holds it up. So the watch needs no thread and no timer of its own.
//
// Works are run without the lock. The queue is a ring of the two words each: posting allocates only
// when it grows.
#include <tendril/detail/timed.hpp>
#include <tendril/error.hpp>
#include <tendril/loop_context.hpp>

#include "base/check.hpp"

#include <cstdio>
#include <deque>
#include <mutex>
#include <system_error>

namespace tendril {

using detail::time_point;

struct loop_context::state {
  explicit state(loop_options o) : options(std::move(o)) {}

  struct entry {
    posted_work work;
    time_point since;  // when it was posted, or the host began to wait if that was later
  };

  const loop_options options;
  mutable detail::tiny_lock lock;
  std::deque<entry> works;
  detail::wait_list idle;  // the host, while it waits for works
  detail::waiter* host = nullptr;
  bool stopping = false;
  bool woken = false;

  bool idling = false;  // so it does; the host's alone
  // The host's wait for something else.
  bool blocked = false;
  bool reported = false;

  std::exception_ptr failure;  // the host's alone

  /// The host, with nothing to do, is to look again. Under the lock; unpark the result after it.
  detail::waiter* call_host() noexcept {
    if (detail::wait_node* const n = idle.pop_front()) return detail::complete(*n);
    return blocked ? host : nullptr;
  }

  /// Locked before, not after.
  void wait_for_works() {
    detail::wait_node& mine = detail::own_node(host);
    idle.push_back(mine);
    idling = true;
    const detail::outcome result =
        detail::wait_locked(lock, idle, mine, {.reason = "loop_context::run", .on_context = false});
    detail::await_waker(lock);
    idling = false;
    detail::require_signalled(result, "loop_context::run");
  }

  void report(const host_wait& wait, time_point oldest, std::size_t count) const noexcept;
};

namespace {

long long milliseconds_since(time_point t) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(detail::clock::now() - t).count();
}

/// The calling flow runs the loop, until the end of the scope.
class host_of {
 public:
  host_of(detail::tiny_lock& lock, detail::waiter*& place) : lock_(lock), place_(place) {
    detail::waiter* const self = detail::current_waiter();
    const std::scoped_lock hold(lock_);
    if (place_ != nullptr)
      throw std::system_error(make_error_code(errc::would_deadlock),
                              place_ == self ? "loop_context::run: called by one of its own works"
                                             : "loop_context::run: somebody else runs it");
    place_ = self;
  }
  ~host_of() {
    const std::scoped_lock hold(lock_);
    place_ = nullptr;
  }
  host_of(const host_of&) = delete;
  host_of& operator=(const host_of&) = delete;

 private:
  detail::tiny_lock& lock_;
  detail::waiter*& place_;
};

}  // namespace

void loop_context::state::report(const host_wait& wait, time_point oldest,
                                 std::size_t count) const noexcept {
  try {
    const std::string loop = "loop '" + options.name + "'";
    std::string text = "tendril: " + loop + ": " + detail::describe_this_caller().text +
                       ", which runs it, has waited in " + wait.reason + " for " +
                       std::to_string(milliseconds_since(wait.since)) + " ms, while " +
                       std::to_string(count) + (count == 1 ? " work is" : " works are") +
                       " queued for it, the oldest for " +
                       std::to_string(milliseconds_since(oldest)) +
                       " ms. If it waits for what one of them does, it waits for itself:\n"
                       "  the host of " +
                       loop + " -> " + wait.reason + " -> what completes it -> a work queued on " +
                       loop + " -> the host of " + loop +
                       "\n  Await it in a continuation, wait for it on a fiber, or let it continue "
                       "elsewhere (configure_await(false)).\n";
    if (options.on_report) options.on_report(text);
    else std::fputs(text.c_str(), stderr);
  } catch (...) {  // no memory, or a handler that throws against its contract
  }
}

loop_context::loop_context(loop_options options)
    : state_(std::make_unique<state>(std::move(options))) {
  if (state_->options.self_wait_grace < std::chrono::nanoseconds::zero())
    throw std::system_error(make_error_code(errc::invalid_option),
                            "loop_options::self_wait_grace is " +
                                std::to_string(state_->options.self_wait_grace.count()) +
                                " ns; zero or more is allowed");
}

loop_context::~loop_context() {
  TENDRIL_CHECK(state_->host == nullptr, "a loop_context is not destroyed while it runs");
  while (run_queued() != 0) {
  }
}

void loop_context::post(posted_work work) {
  detail::waiter* w;
  {
    const std::scoped_lock hold(state_->lock);
    state_->works.push_back({work, state_->blocked ? detail::clock::now() : time_point{}});
    w = state_->call_host();
  }
  if (w != nullptr) detail::unpark(w);
}

void loop_context::fail(std::exception_ptr e) noexcept {
  if (!state_->failure) state_->failure = std::move(e);
}

void loop_context::run() {
  run_until([] { return false; });
}

void loop_context::run_until(const std::function<bool()>& done) {
  const host_of me(state_->lock, state_->host);
  const hosting here(*this);
  while (!done()) {
    state_->lock.lock();
    if (std::exchange(state_->stopping, false)) {
      state_->lock.unlock();
      return;
    }
    if (state_->works.empty()) {
      if (std::exchange(state_->woken, false)) {
        state_->lock.unlock();
        continue;
      }
      state_->wait_for_works();
      continue;
    }
    const posted_work next = state_->works.front().work;
    state_->works.pop_front();
    state_->lock.unlock();
    next();
    if (state_->failure) std::rethrow_exception(std::exchange(state_->failure, nullptr));
  }
}

std::size_t loop_context::run_queued() {
  const host_of me(state_->lock, state_->host);
  const hosting here(*this);
  std::size_t ran = 0;
  for (std::size_t left = queued(); left != 0; --left, ++ran) {
    state_->lock.lock();
    const posted_work next = state_->works.front().work;
    state_->works.pop_front();
    state_->lock.unlock();
    next();
    if (state_->failure) std::rethrow_exception(std::exchange(state_->failure, nullptr));
  }
  return ran;
}

void loop_context::stop() noexcept {
  detail::waiter* w;
  {
    const std::scoped_lock hold(state_->lock);
    state_->stopping = true;
    w = state_->call_host();
  }
  if (w != nullptr) detail::unpark(w);
}

void loop_context::wake() noexcept {
  detail::waiter* w;
  {
    const std::scoped_lock hold(state_->lock);
    state_->woken = true;
    w = state_->call_host();
  }
  if (w != nullptr) detail::unpark(w);
}

bool loop_context::hosted_here() const {
  const detail::waiter* const self = detail::current_waiter();
  const std::scoped_lock hold(state_->lock);
  return state_->host == self;
}

std::size_t loop_context::queued() const noexcept {
  const std::scoped_lock hold(state_->lock);
  return state_->works.size();
}

std::string_view loop_context::name() const noexcept { return state_->options.name; }

time_point loop_context::before_host_waits(host_wait& wait) noexcept {
  if (state_->idling || state_->options.on_self_wait == self_wait_policy::ignore)
    return detail::no_deadline;
  time_point oldest;
  std::size_t count;
  {
    const std::scoped_lock hold(state_->lock);
    if (!std::exchange(state_->blocked, true)) {
      state_->reported = false;
      for (state::entry& e : state_->works) e.since = wait.since;
    }
    if (state_->works.empty() || state_->reported) return detail::no_deadline;
    oldest = state_->works.front().since;
    const time_point due = oldest + state_->options.self_wait_grace;
    if (detail::clock::now() < due) return due;
    state_->reported = true;
    count = state_->works.size();
  }
  wait.refused = wait.refusable && state_->options.on_self_wait == self_wait_policy::fail;
  state_->report(wait, oldest, count);
  return detail::no_deadline;
}

void loop_context::after_host_waited() noexcept {
  const std::scoped_lock hold(state_->lock);
  state_->blocked = false;
}

}  // namespace tendril
