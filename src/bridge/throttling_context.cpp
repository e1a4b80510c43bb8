// SPDX-License-Identifier: Apache-2.0
//
// A queue and a count. Whoever posts below the limit starts a *runner*: a work of the inner context, or a fiber.
// A runner on a fiber runs works until none is queued; one in an inner context runs one and posts itself
// again, so that others get their turn between.
#include <tendril/detail/timed.hpp>
#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/throttling_context.hpp>

#include <deque>
#include <mutex>
#include <string>
#include <system_error>

namespace tendril {

struct throttling_context::state {
  state(throttling_context& c, std::size_t n, synchronization_context* i) noexcept
      : self(c), limit(n), inner(i) {}

  throttling_context& self;
  const std::size_t limit;
  synchronization_context* const inner;

  mutable detail::tiny_lock lock;
  std::deque<posted_work> works;
  std::size_t runners = 0;
  detail::wait_list ending;  // the destructor

  void start_runner() {
    if (inner != nullptr)
      inner->post({[](void* s) noexcept { static_cast<state*>(s)->run_one(); }, this});
    else
      spawn([this] {
        while (run_next()) {
        }
      });
  }

  /// Runs the next work. False: there was none, and the runner has ended; *this may be gone.
  bool run_next() noexcept {
    posted_work next;
    {
      std::unique_lock hold(lock);
      if (works.empty()) {
        detail::waiter* last = nullptr;
        if (--runners == 0)
          if (detail::wait_node* const n = ending.pop_front()) last = detail::complete(*n);
        hold.unlock();
        if (last != nullptr) detail::unpark(last);
        return false;
      }
      next = works.front();
      works.pop_front();
    }
    const hosting here(self);
    next();
    return true;
  }

  /// For who has queued `work`, and counted a runner that could not be started. True: it is not queued any
  /// more, and nobody has run it. False: it has been, or will be run.
  bool take_back(const posted_work& work) noexcept {
    bool taken = false;
    {
      const std::scoped_lock hold(lock);
      if (runners != 1) {  // another comes by
        --runners;
        return false;
      }
      for (auto w = works.rbegin(); w != works.rend() && !taken; ++w) {
        taken = w->run == work.run && w->argument == work.argument;
        if (taken) works.erase(std::next(w).base());
      }
    }
    // Others, who saw our runner counted, may have queued works that rely on it: here, then, since there is
    // nowhere else. This ends the count, too.
    while (run_next()) {
    }
    return taken;
  }

  void run_one() noexcept {
    while (run_next()) {
      try {
        inner->post({[](void* s) noexcept { static_cast<state*>(s)->run_one(); }, this});
        return;
      } catch (...) {  // it takes no more: then the rest at once
      }
    }
  }
};

throttling_context::throttling_context(std::size_t limit, synchronization_context* inner)
    : state_(std::make_unique<state>(*this, limit, inner)) {
  if (limit == 0)
    throw std::system_error(
        make_error_code(errc::invalid_option),
        "throttling_context: limit is 0; at least one work must be allowed to run");
}

throttling_context::~throttling_context() {
  state_->lock.lock();
  if (state_->runners == 0) {
    state_->lock.unlock();
    return;
  }
  detail::wait_node& mine = detail::own_node(detail::current_waiter());
  state_->ending.push_back(mine);
  detail::wait_locked(state_->lock, state_->ending, mine,
                      {.cancelable = false, .reason = "~throttling_context", .on_context = false});
  detail::await_waker(state_->lock);
}

void throttling_context::post(posted_work work) {
  {
    const std::scoped_lock hold(state_->lock);
    state_->works.push_back(work);
    if (state_->runners == state_->limit) return;
    ++state_->runners;
  }
  try {
    state_->start_runner();
  } catch (...) {
    if (state_->take_back(work)) throw;
  }
}

std::size_t throttling_context::active() const noexcept {
  const std::scoped_lock hold(state_->lock);
  return state_->runners;
}

std::size_t throttling_context::queued() const noexcept {
  const std::scoped_lock hold(state_->lock);
  return state_->works.size();
}

}  // namespace tendril
