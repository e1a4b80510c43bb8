// SPDX-License-Identifier: Apache-2.0
//
// The threads of calls that wait for somebody. A call is given to an idle thread, or to a new one: never queued
// behind another. A thread that has had nothing to do for a while ends. They run with all signals blocked, but the one by
// which a call is given up (broken_call.hpp).
//
// The queue holds calls that an idle thread is about to take; `idle` counts threads that no call has been
// promised to. Both, and the list of threads, are guarded by one mutex, which a fiber takes inside its worker
// (worker_use): so it neither parks there nor is found blocked.
#include "intercept/aside.hpp"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>

#include "intercept/install.hpp"
#include "intercept/interruptions.hpp"
#include "intercept/report.hpp"
#include "io/blocking.hpp"
#include "io/io_loop.hpp"
#include "sched/thread_stay.hpp"
#include "sched/worker_thread.hpp"

namespace tendril::detail {
namespace {

constexpr auto longest_rest = std::chrono::seconds(5);
/// libc's resolver with name service modules wants much of it; it is address space until it is used.
constexpr std::size_t helper_stack_bytes = std::size_t{1} << 20;

// errno, h_errno and the locale are the thread's: out of line, see errno in io/operation.hpp.
[[gnu::noinline]] void take_along(aside_call& call) noexcept {
  call.error = errno;
  call.resolver_error = h_errno;
  call.locale = ::uselocale(locale_t{});
}
[[gnu::noinline]] void bring_back(const aside_call& call) noexcept {
  h_errno = call.resolver_error;
  errno = call.error;
}

/// On the other thread.
void run_here(aside_call& call) noexcept {
  const locale_t mine = ::uselocale(call.locale);
  h_errno = call.resolver_error;
  errno = call.error;
  if (call.breaks) call.breaking.begin();
  call.body(call);
  if (call.breaks) call.breaking.end();
  call.error = errno;
  call.resolver_error = h_errno;
  ::uselocale(mine);
}

/// The caller's thread after all.
void run_in_place(aside_call& call) noexcept {
  count_blocked(call.what);
  about_to_block(name_of(call.what));
  call.body(call);
  take_along(call);
}

class helpers {
 public:
  /// False: there is no thread for it.
  bool run(aside_call& call) noexcept {
    const std::lock_guard hold(mutex_);
    if (idle_ == 0) return start_locked(call);
    --idle_;
    append_locked(call);
    changed_.notify_one();
    return true;
  }

  /// Ends the threads that rest. Those in the middle of a call are left alone, and go on in it.
  void end() noexcept {
    {
      const std::lock_guard hold(mutex_);
      ending_ = true;
      changed_.notify_all();
    }
    std::list<helper> resting;
    {
      const std::lock_guard hold(mutex_);
      for (auto h = threads_.begin(); h != threads_.end();) {
        const auto one = h++;
        if (!one->busy) resting.splice(resting.end(), threads_, one);
      }
    }
    for (const helper& h : resting) ::pthread_join(h.thread, nullptr);
  }

 private:
  struct helper {
    helpers* pool = nullptr;
    pthread_t thread{};
    aside_call* first = nullptr;
    bool busy = true;
    bool ended = false;
  };

  void append_locked(aside_call& call) noexcept {
    call.next = nullptr;
    (last_ != nullptr ? last_->next : first_) = &call;
    last_ = &call;
  }
  aside_call* take_locked() noexcept {
    aside_call* const call = first_;
    if (call != nullptr && (first_ = call->next) == nullptr) last_ = nullptr;
    return call;
  }

  bool start_locked(aside_call& call) noexcept {
    join_ended_locked();
    try {
      threads_.emplace_back();
    } catch (const std::bad_alloc&) {
      return false;
    }
    helper& h = threads_.back();
    h.pool = this;
    h.first = &call;
    pthread_attr_t attributes;
    ::pthread_attr_init(&attributes);
    ::pthread_attr_setstacksize(&attributes, helper_stack_bytes);
    // From its beginning: a signal that is delivered there would end the call.
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = ::pthread_create(
        &h.thread, &attributes,
        [](void* self) -> void* {
          auto& one = *static_cast<helper*>(self);
          one.pool->main(one);
          return nullptr;
        },
        &h);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    ::pthread_attr_destroy(&attributes);
    if (error != 0) threads_.pop_back();
    return error == 0;
  }

  void join_ended_locked() noexcept {
    threads_.remove_if([](const helper& h) {
      if (h.ended)
        ::pthread_join(h.thread, nullptr);  // it has let go of the lock for the last time
      return h.ended;
    });
  }

  void main(helper& self) noexcept {
    aside_call* call = nullptr;
    {
      // Until our number has been stored.
      const std::lock_guard hold(mutex_);
      call = self.first;
    }
    while (call != nullptr) {
      run_here(*call);
      waiter* const who = call->who;
      call->done.store(true, std::memory_order_release);  // from here on it is the fiber's
      unpark(who);
      call = next(self);
    }
  }

  aside_call* next(helper& self) noexcept {
    std::unique_lock hold(mutex_);
    self.busy = false;
    ++idle_;
    const auto until = std::chrono::steady_clock::now() + longest_rest;
    bool over = false;
    while (first_ == nullptr && !over && !ending_)
      over = changed_.wait_until(hold, until) == std::cv_status::timeout;
    if (first_ == nullptr) {
      // One that was not promised away: a promise is in the queue until it is taken.
      --idle_;
      self.ended = !ending_;  // who ends us all joins
      return nullptr;
    }
    self.busy = true;
    return take_locked();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<helper> threads_;
  aside_call* first_ = nullptr;
  aside_call* last_ = nullptr;
  unsigned idle_ = 0;
  bool ending_ = false;
};

// Never destroyed: threads may be in it to the end of the process. Of this process: a child has none of them.
std::atomic<helpers*> all_helpers{nullptr};

helpers* the_helpers() noexcept {
  helpers* h = all_helpers.load(std::memory_order_acquire);
  if (h != nullptr) return h;
  static const int forks = ::pthread_atfork(
      nullptr, nullptr, [] { all_helpers.store(nullptr, std::memory_order_relaxed); });
  if (forks != 0) return nullptr;
  auto* const fresh = new (std::nothrow) helpers;
  if (fresh == nullptr || all_helpers.compare_exchange_strong(h, fresh)) return fresh;
  delete fresh;
  return h;
}

/// The library may be unloaded: no thread may rest in it then.
struct helpers_end {
  ~helpers_end() {
    give_back_signal();
    if (helpers* const h = all_helpers.load(std::memory_order_acquire)) h->end();
  }
} const at_the_end;

/// Until the call has ended; how its wait did.
outcome wait_for(const aside_call& call, time_point until,
                 const std::atomic<std::uint64_t>* interruption) {
  return wait_until_done(
      [](const void* c) noexcept {
        return static_cast<const aside_call*>(c)->done.load(std::memory_order_acquire);
      },
      &call,
      {.deadline = until,
       .cancelable = false,
       .reason = name_of(call.what),
       .on_context = false,
       .interruption = interruption});
}

/// Has the thread leave the call, and waits until it has.
void give_up(aside_call& call) {
  constexpr std::chrono::microseconds longest{100'000};
  bool can_be = true;
  for (std::chrono::microseconds pause{100};; pause = std::min(2 * pause, longest)) {
    can_be = can_be && call.breaking.break_now();
    if (wait_for(call, can_be ? clock::now() + pause : no_deadline, nullptr) == outcome::signalled)
      return;
  }
}

}  // namespace

void run_aside_on_thread(aside_call& call) {
  if (in_other_process()) return run_in_place(call);
  const thread_stay resumes_here;
  take_along(call);
  call.who = current_waiter();
  bool started = false;
  {
    const worker_use here{worker_use::may_move{}};
    helpers* const h = the_helpers();
    started = h != nullptr && h->run(call);
    if (started) io_loop::here().add_pending();
  }
  if (!started) return run_in_place(call);
  count_elsewhere(call.what);
  {
    std::optional<interruptible_call> interrupted;
    if (call.breaks) interrupted.emplace(*call.breaks);
    if (wait_for(call, no_deadline, interrupted ? interrupted->call() : nullptr) ==
        outcome::interrupted)
      give_up(call);
  }
  {
    const worker_use here{worker_use::may_move{}};
    io_loop::here().remove_pending();  // perhaps another loop by now
  }
  bring_back(call);
}

void run_aside_on_pool(aside_call& call) {
  if (in_other_process()) return run_in_place(call);
  const thread_stay resumes_here;
  take_along(call);
  call.run = [](pool_call& base) noexcept { run_here(static_cast<aside_call&>(base)); };
  if (run_on_pool_to_the_end(call, name_of(call.what))) return run_in_place(call);
  count_elsewhere(call.what);
  bring_back(call);
}

}  // namespace tendril::detail
