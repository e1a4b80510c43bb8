// SPDX-License-Identifier: Apache-2.0
//
// Futures where they are not templates: waiting, stopping, the chain of continuations, the errors.
#include "sched/fiber_core.hpp"

#include <tendril/error.hpp>
#include <tendril/future.hpp>
#include <tendril/synchronization_context.hpp>

#include "base/atomics.hpp"

namespace tendril::detail {
namespace {

/// A std::future_error that says what was wrong: std's own say what the code means.
class misused_future final : public std::future_error {
 public:
  misused_future(std::future_errc code, const char* message)
      : std::future_error(code), message_(message) {}
  const char* what() const noexcept override { return message_; }

 private:
  const char* message_;  // static
};

/// The result of s cannot come before `self` goes on.
bool comes_from(const fiber_core* self, future_state_base& s) noexcept {
  future_state_base* at = &s;
  future_state_base* borrowed = nullptr;  // `at`, but for the first
  bool found = false;
  while (at != nullptr) {
    future_state_base* next = nullptr;
    if (at->runner() == self) {
      found = true;
    } else if (at->needs_every_source()) {
      // The first in the loop, as chains are long; the others by recursion, as trees are not deep.
      for (std::size_t i = 1; !found; ++i) {
        future_state_base* const side = at->source(i, source_use::look);
        if (side == nullptr) break;
        found = comes_from(self, *side);
        side->release_reader();
      }
      if (!found) next = at->source(0, source_use::look);
    }
    if (borrowed != nullptr) borrowed->release_reader();
    at = borrowed = next;
  }
  return found;
}

}  // namespace

// ---- Waiting ---------------------------------------------------------------------------------

void throw_if_own_result(future_state_base& s, const waiter* self, const char* what) {
  if (self->what == waiter::kind::fiber && comes_from(static_cast<const fiber_core*>(self), s))
    throw std::system_error(
        make_error_code(errc::would_deadlock),
        std::string(what) +
            ": the fiber waits for a result that only the fiber itself can produce");
}

outcome wait_for_result(future_state_base& s, const wait_options& options) {
  waiter* const self = current_waiter();
  throw_if_own_result(s, self, options.reason);
  const outcome result = s.ready.wait_as(self, options);
  // Not to be installed is taken for being set; here it may also be that another is.
  if (result == outcome::signalled && !s.ready.is_set()) throw_waited_twice();
  return result;
}

// ---- Stopping --------------------------------------------------------------------------------

bool request_stop(future_state_base& s) noexcept {
  future_state_base* at = &s;
  future_state_base* borrowed = nullptr;
  bool first = false;
  while (at != nullptr) {
    future_state_base* next = nullptr;
    const auto how = at->life.request();
    if (at == &s) first = how != state_life::request_result::refused;
    if (how == state_life::request_result::locked) {
      at->stop_producer();
      for (std::size_t i = 1;; ++i) {
        future_state_base* const side = at->source(i, source_use::stop);
        if (side == nullptr) break;
        request_stop(*side);
        side->release_reader();
      }
      next = at->source(0, source_use::stop);
    }
    if (borrowed != nullptr) borrowed->release_reader();
    at = borrowed = next;
  }
  return first;
}

void stop_fiber_and_unlock(fiber_core* fiber, state_life& life) noexcept {
  std::stop_source source = begin_stop(fiber);
  life.unlock();
  source.request_stop();  // runs users' callbacks; the fiber may have ended
}

void future_state_base::release_hooked() noexcept {
  request_stop(*this);
  release_reader();
}

void end_hooks(cancel_hook* first, bool run) noexcept {
  while (first != nullptr) {
    cancel_hook* const h = first;
    first = h->next;
    h->end(h, run);
  }
}

void life_atomics::spin_pause() noexcept {
  // The holder's thread may have been preempted within its few instructions.
  thread_local unsigned spins = 0;
  if (++spins % 64 != 0) std_atomics::spin_pause();
  else std_atomics::spin_yield();
}

// ---- Continuations ---------------------------------------------------------------------------

void chain_link::run_chain(continuation* c) noexcept {
  do {
    auto* const link = static_cast<chain_link*>(c);
    c = link->step(link);
    if (c != nullptr && c->run != &run_chain) return c->run(c);
  } while (c != nullptr);
}

void posted_link::post(continuation* c) noexcept {
  auto* const self = static_cast<posted_link*>(c);
  try {
    self->where->post(
        {[](void* link) noexcept { run_chain(static_cast<continuation*>(link)); }, c});
  } catch (...) {
    self->not_posted = std::current_exception();
    run_chain(self);
  }
}

// ---- Errors ----------------------------------------------------------------------------------

void throw_future_error(std::future_errc e) { throw std::future_error(e); }

void throw_no_result(slot_kind why) {
  const char* message = "tendril::future: it never had a result: default-constructed";
  if (why == slot_kind::moved)
    message =
        "tendril::future: its result has gone elsewhere: the future was moved from, or its then(), "
        "share() or the like was called";
  else if (why == slot_kind::consumed)
    message =
        "tendril::future: its result was already read; a future is read once, share() gives one "
        "that can be read often";
  throw misused_future(std::future_errc::no_state, message);
}

void throw_waited_twice() {
  throw misused_future(
      std::future_errc::future_already_retrieved,
      "tendril::future: another fiber, thread or continuation already waits for it; share() gives "
      "one that many can wait for");
}

std::exception_ptr broken_promise_error() noexcept {
  return std::make_exception_ptr(std::future_error(std::future_errc::broken_promise));
}

std::exception_ptr canceled_error() noexcept {
  return std::make_exception_ptr(std::system_error(
      std::make_error_code(std::errc::operation_canceled), "tendril::future: cancelled"));
}

}  // namespace tendril::detail
