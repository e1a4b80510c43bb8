// SPDX-License-Identifier: Apache-2.0
#include "sched/interruption.hpp"

#include "sched/stay_record.hpp"
#include "sched/worker_thread.hpp"

#include "platform/thread_state.hpp"

#include <tendril/detail/waiting.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

namespace tendril::detail {

/// What the list of threads and run_calls may touch.
struct interruption_access {
  static const fiber_core* fiber(const run_call& r) noexcept { return r.fiber_; }
  static bool is_main(const run_call& r) noexcept { return r.main_thread_; }
  static std::atomic<std::uint64_t>* handled(run_call& r) noexcept { return r.handled_; }
  static run_call*& next(run_call& r) noexcept { return r.next_; }
};

namespace {

using access = interruption_access;
using moments = std::atomic<std::uint64_t>;  // an array of two: by whether the handler restarts

/// How many handlers have returned, and one.
constinit std::atomic<std::uint64_t> moment{1};

constinit moments first_handled[2]{};

[[gnu::tls_model("initial-exec")]] constinit thread_local run_call* running = nullptr;
[[gnu::tls_model("initial-exec")]] constinit thread_local bool is_runtimes_own = false;

/// Threads and run_calls. Never destroyed; a child has another one.
struct list_of_all {
  std::mutex mutex;
  stay_records* threads = nullptr;
  run_call* calls = nullptr;
};
constinit std::atomic<list_of_all*> everything{nullptr};

list_of_all& all() noexcept {
  list_of_all* a = everything.load(std::memory_order_acquire);
  if (a != nullptr) return *a;
  auto* const fresh = new list_of_all;
  if (everything.compare_exchange_strong(a, fresh)) return *fresh;
  delete fresh;
  return *a;
}

void note(moments* place, std::uint64_t now, bool restarts) noexcept {
  moments& at = place[restarts ? 1 : 0];
  std::uint64_t seen = at.load(std::memory_order_relaxed);
  // Release: pairs with take()'s acquire.
  while (seen < now && !at.compare_exchange_weak(seen, now, std::memory_order_release)) {
  }
}

/// The calls that end: those that began before one of these.
struct ending {
  std::uint64_t any = 0;     ///< a handler without SA_RESTART returned
  std::uint64_t always = 0;  ///< one with it
  explicit operator bool() const noexcept { return any != 0 || always != 0; }
  bool ends(std::uint64_t call) const noexcept {
    const std::uint64_t since = call >> 2;
    return since < any ||
           ((call & 3) == static_cast<std::uint64_t>(interruptible::always) && since < always);
  }
};

ending take(moments* place) noexcept {
  ending e;
  if (place[0].load(std::memory_order_relaxed) != 0)
    e.any = place[0].exchange(0, std::memory_order_acquire);
  if (place[1].load(std::memory_order_relaxed) != 0)
    e.always = place[1].exchange(0, std::memory_order_acquire);
  return e;
}

/// Fibers whose waits have been ended, to be unparked when no lock is held.
class woken_fibers {
 public:
  woken_fibers() = default;
  ~woken_fibers() {
    for (unsigned i = 0; i != count_; ++i) unpark(fibers_[i]);
  }
  woken_fibers(const woken_fibers&) = delete;
  woken_fibers& operator=(const woken_fibers&) = delete;
  bool full() const noexcept { return count_ == fibers_.size(); }
  void add(fiber_core* c) noexcept { fibers_[count_++] = c; }

 private:
  std::array<fiber_core*, 64> fibers_{};
  unsigned count_ = 0;
};

/// False: there may be more.
bool end_calls(stay_records& thread, const fiber_core* only, const ending& e,
               woken_fibers& woken) noexcept {
  for (stay_record* r = thread.made(); r != nullptr; r = r->next_made) {
    std::uint64_t call = r->call.load(std::memory_order_acquire);
    if (call <= wait_interrupted) continue;
    if (only != nullptr && r->who.load(std::memory_order_relaxed) != only) continue;
    if (!e.ends(call)) continue;
    if (woken.full()) return false;
    // The same word again is a call that is meant as well: it began at the same moment.
    if (!r->call.compare_exchange_strong(call, wait_interrupted, std::memory_order_acq_rel))
      continue;
    // Whoever has the record by now: one that is unparked in vain waits on.
    woken.add(r->who.load(std::memory_order_relaxed));
  }
  return true;
}

/// The fiber's, wherever it stays; null: of the thread. Holds the lock while it looks.
void end_calls(stay_records* thread, const fiber_core* fiber, const ending& e) noexcept {
  for (bool done = false; !done;) {
    woken_fibers woken;
    const std::lock_guard hold(all().mutex);
    done = true;
    for (stay_records* t = all().threads; t != nullptr && done; t = t->next)
      if (thread == nullptr || t == thread) done = end_calls(*t, fiber, e, woken);
  }
}

/// Looks for one thing to do, and does it; false: there is none.
bool deliver_one() noexcept {
  stay_records* thread = nullptr;
  const fiber_core* fiber = nullptr;
  ending e;
  {
    const std::lock_guard hold(all().mutex);
    for (stay_records* t = all().threads; t != nullptr && !e; t = t->next)
      if (e = take(t->handled); e) thread = t;
    run_call* first = nullptr;
    for (run_call* r = all().calls; r != nullptr && !e; r = access::next(*r)) {
      if (e = take(access::handled(*r)); e) fiber = access::fiber(*r);
      // The newest is in front.
      if (first == nullptr || !access::is_main(*first)) first = r;
    }
    if (!e && first != nullptr) {
      if (e = take(first_handled); e) fiber = access::fiber(*first);
    }
  }
  if (!e) {
    take(first_handled);  // nobody is being run
    return false;
  }
  end_calls(thread, fiber, e);
  return true;
}

}  // namespace

// ---- Threads and who they run ------------------------------------------------------------------

stay_records::stay_records() noexcept : home_(&all()) {
  auto& list = *static_cast<list_of_all*>(home_);
  const std::lock_guard hold(list.mutex);
  next = list.threads;
  list.threads = this;
}

stay_records::~stay_records() {
  // In a child the parent's are in no list.
  if (home_ == everything.load(std::memory_order_relaxed)) {
    auto& list = *static_cast<list_of_all*>(home_);
    const std::lock_guard hold(list.mutex);
    stay_records** link = &list.threads;
    while (*link != this) link = &(*link)->next;
    *link = next;
  }
  for (stay_record* r = made(); r != nullptr;) {
    stay_record* const next_one = r->next_made;
    delete r;
    r = next_one;
  }
}

run_call::run_call(const fiber_core& fiber) noexcept
    : fiber_(&fiber), main_thread_(platform::this_thread_number() == ::getpid()), outer_(running) {
  {
    const std::lock_guard hold(all().mutex);
    next_ = all().calls;
    all().calls = this;
  }
  running = this;
}

run_call::~run_call() {
  running = outer_;
  const std::lock_guard hold(all().mutex);
  run_call** link = &all().calls;
  while (*link != nullptr && *link != this) link = &(*link)->next_;
  if (*link != nullptr) *link = next_;  // else this is a child, and it was its parent's
}

void count_as_the_runtimes() noexcept { is_runtimes_own = true; }

void forget_interruptions() noexcept { everything.store(nullptr, std::memory_order_relaxed); }

// ---- Fibers ------------------------------------------------------------------------------------

interruptible_scope::interruptible_scope(interruptible kind) noexcept {
  const fiber_core* const c = current_fiber();
  if (c == nullptr || c->affinity != affinity_stay) return;
  call_ = &c->the_frame()->stay->call;
  before_ = call_->exchange(
      moment.load(std::memory_order_acquire) << 2 | static_cast<std::uint64_t>(kind),
      std::memory_order_relaxed);
}

interruptible_scope::~interruptible_scope() {
  if (call_ != nullptr) call_->store(before_, std::memory_order_relaxed);
}

// ---- Handlers ----------------------------------------------------------------------------------

bool note_handled(bool to_thread, bool restarts) noexcept {
  run_call* const r = running;
  worker_thread* const t = this_worker_thread();
  const bool works = t != nullptr && !t->guest;
  if (r == nullptr && !works && !is_runtimes_own) return false;
  const std::uint64_t now = moment.fetch_add(1, std::memory_order_acq_rel) + 1;
  if (r != nullptr) {
    // A signal may come before the call is listed, and after it has been taken off: it is there still.
    note(access::handled(*r), now, restarts);
  } else {
    note(to_thread && works ? t->stays_here.handled : first_handled, now, restarts);
  }
  return true;
}

void deliver_interruptions() noexcept {
  while (deliver_one()) {
  }
}

}  // namespace tendril::detail
