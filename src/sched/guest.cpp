// SPDX-License-Identifier: Apache-2.0
#include "sched/guest.hpp"

#include "base/check.hpp"
#include "sched/registry.hpp"
#include "sched/scheduler.hpp"
#include "sched/stopped_threads.hpp"
#include "sched/thread_waiter.hpp"
#include "sched/thread_words.hpp"
#include "stack/segmented.hpp"

#include <tendril/error.hpp>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>

namespace tendril::detail {

constinit thread_local guest* tls_guests = nullptr;

namespace {

/// Never destroyed: threads end after main().
struct shared {
  std::mutex mutex;
  std::condition_variable left;
};
shared& everybody() {
  static shared& s = *new shared;
  return s;
}

thread_local bool thread_ends = false;

}  // namespace

/// What a thread does with its guests at its end.
struct thread_guests {
  ~thread_guests() {
    thread_ends = true;
    while (guest* const g = tls_guests) {
      tls_guests = g->next;
      drop(g);
    }
  }
  void use() const noexcept {}

  static void drop(guest* g) noexcept {
    {
      const std::scoped_lock hold(everybody().mutex);
      if (g->listed_) g->thread.owner.guests().remove_locked(*g);
    }
    delete g;
  }

  /// Those whose runtime has ended.
  static void drop_closed() noexcept {
    for (guest** link = &tls_guests; *link != nullptr;) {
      guest* const g = *link;
      // Inside: below us on this stack.
      if (g->open_.load(std::memory_order_relaxed) || g->inside_.load(std::memory_order_relaxed)) {
        link = &g->next;
        continue;
      }
      *link = g->next;
      drop(g);
    }
  }
};

namespace {

thread_local thread_guests at_thread_end;

[[noreturn]] void throw_stopped(bool named) {
  throw std::system_error(
      make_error_code(errc::runtime_stopping),
      named ? "tendril::thunk: the runtime that the thunk was made for has ended or is about to"
            : "tendril::thunk: the current runtime is about to end");
}

/// A guest of that runtime, entered.
[[gnu::noinline]] guest& make_guest(std::uint64_t serial, bool named) {
  if (serial == 0)
    throw std::system_error(
        make_error_code(errc::no_runtime),
        "tendril::thunk: called on a plain thread, while no runtime exists that "
        "could go on with it");
  thread_guests::drop_closed();
  if (!thread_ends) at_thread_end.use();
  guest* made = nullptr;
  const auto make = [&](scheduler& s) {
    auto fresh = std::make_unique<guest>(s, serial, thread_ends);
    if (s.guests().add(*fresh)) made = fresh.release();
  };
  bool nested = false;
  if (!with_scheduler(serial, make) || made == nullptr || !made->enter(nested)) {
    if (made != nullptr && thread_ends) made = nullptr;  // whoever closed it deletes it
    delete made;
    throw_stopped(named);
  }
  if (!thread_ends) {
    made->next = tls_guests;
    tls_guests = made;
  }
  return *made;
}

}  // namespace

guest::guest(scheduler& s, std::uint64_t runtime_serial, bool is_last)
    : thread(s, true),
      serial(runtime_serial),
      fences_(!platform::prepare_heavy_barrier()),
      last_(is_last) {
  thread.slots = thread_slots::of_this_thread();
  thread.number.store(platform::this_thread_number(), std::memory_order_relaxed);
  stack.adopt_thread();
  if constexpr (segments_built) platform::this_thread_stack(bounds);
  collected = collect_guest();  // before the thread has a signal stack
  quick_ = !fences_ && collected == nullptr;
  if (!last_) overflow_stack_.install();
}

guest::~guest() = default;

void guest::tell_closer() noexcept {
  const std::scoped_lock hold(everybody().mutex);
  everybody().left.notify_all();
}

bool guest_list::add(guest& g) noexcept {
  const std::scoped_lock hold(everybody().mutex);
  if (closed_) return false;
  g.after_ = first_;
  if (first_ != nullptr) first_->before_ = &g;
  first_ = &g;
  g.listed_ = true;
  return true;
}

/// The thread is not inside and will not enter, or is the caller.
void guest_list::remove_locked(guest& g) noexcept {
  (g.before_ != nullptr ? g.before_->after_ : first_) = g.after_;
  if (g.after_ != nullptr) g.after_->before_ = g.before_;
  g.listed_ = false;
  free_shells(g.thread, nullptr);
}

void guest_list::close() noexcept {
  std::unique_lock hold(everybody().mutex);
  closed_ = true;
  for (guest* g = first_; g != nullptr; g = g->after_)
    g->open_.store(false, std::memory_order_seq_cst);
  platform::heavy_barrier();
  everybody().left.wait(hold, [this] {
    for (guest* g = first_; g != nullptr; g = g->after_)
      if (g->inside_.load(std::memory_order_acquire)) return false;
    return true;
  });
  while (guest* const g = first_) {
    const bool last = g->last_;
    remove_locked(*g);
    if (last) delete g;
  }
}

namespace {

bool wants_segments(const guest& g, const hot_options* options) noexcept {
  if constexpr (!segments_built) return false;
  // The default: calls without options, inside of this one, do not ask.
  return is_segmented(g.thread.owner.default_stack_class()) ||
         (options != nullptr && options->stack_class != stack_class_default &&
          is_segmented(options->stack_class));
}

[[gnu::noinline]] bool run_with_segments(guest& g, const hot_outside* outside, hot_body& body,
                                         const hot_options* options) {
  const bool on_thread = g.entered_at >= g.bounds.low && g.entered_at < g.bounds.high;
  [[maybe_unused]] const thread_segments_if_built segments(g.thread, g.bounds,
                                                           on_thread ? g.entered_at : nullptr);
  struct mark {
    guest& g;
    explicit mark(guest& of) noexcept : g(of) { g.has_segments = true; }
    ~mark() { g.has_segments = false; }
  };
  const mark here(g);
  return run_hot(g.thread, outside, body, options);
}

}  // namespace

__attribute__((noinline)) bool start_hot_as_guest(worker_thread* t, hot_body& body,
                                                  const hot_options* options) {
  std::uint64_t serial = options != nullptr ? options->runtime : 0;
  const bool named = serial != 0;
  if (!named) serial = t != nullptr ? t->owner.serial() : latest_serial();
  // Here, as it may throw: the waiter of a thread that has never waited.
  const fiber_core* const caller = t != nullptr ? t->current.get() : nullptr;
  wait_block& block = caller != nullptr ? caller->the_frame()->block : this_thread_waiter().wait;
  guest* g = tls_guests;
  while (g != nullptr && g->serial != serial) g = g->next;
  bool nested = false;
  if (g == nullptr || !g->enter(nested)) [[unlikely]]
    g = &make_guest(serial, named);

  struct visit {
    guest& g;
    worker_thread* before;
    std::byte* entered_before;
    bool had_segments;
    bool nested;
    visit(guest& to, worker_thread* from, bool was_inside) noexcept
        : g(to),
          before(from),
          entered_before(to.entered_at),
          had_segments(to.has_segments),
          nested(was_inside) {
      g.entered_at = static_cast<std::byte*>(__builtin_frame_address(0));
      g.has_segments = false;
      worker_thread::enter_as(&g.thread);
    }
    ~visit() {
      worker_thread::enter_as(before);
      g.entered_at = entered_before;
      g.has_segments = had_segments;
      g.leave(nested);
    }
  };
  const hot_outside outside{&block, caller != nullptr ? &caller->ctx : &g->stack, t};
  const collected_hot_call collected(g->collected);
  const visit here(*g, t, nested);
  if (wants_segments(*g, options)) [[unlikely]]
    return run_with_segments(*g, &outside, body, options);
  return run_hot(g->thread, &outside, body, options);
}

bool start_hot_on_guest(worker_thread& t, hot_body& body, const hot_options* options) {
  guest* g = tls_guests;
  while (g != nullptr && &g->thread != &t) g = g->next;
  // One whose thread is ending is in no list; it is large enough for what destructors call.
  if (g == nullptr) {
    platform::stack_bounds bounds;
    platform::this_thread_stack(bounds);
    [[maybe_unused]] const thread_segments_if_built segments(t, bounds);
    return run_hot(t, nullptr, body, options);
  }
  if (!g->has_segments && wants_segments(*g, options))
    return run_with_segments(*g, nullptr, body, options);
  return run_hot(t, nullptr, body, options);
}

}  // namespace tendril::detail
