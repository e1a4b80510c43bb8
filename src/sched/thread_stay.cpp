// SPDX-License-Identifier: Apache-2.0
#include "sched/thread_stay.hpp"

#include "base/check.hpp"
#include "sched/stay_record.hpp"

#include <new>

namespace tendril::detail {

stay_record& stay_records::take() noexcept {
  stay_record* r = free_;
  if (r != nullptr) {
    free_ = r->next_free;
  } else {
    r = new (std::nothrow) stay_record;
    TENDRIL_CHECK(r != nullptr, "there is memory for a fiber that stays on its thread");
    r->next_made = made();
    made_.store(r, std::memory_order_release);
  }
  ++used_;
  return *r;
}

void stay_records::give(stay_record& r) noexcept {
  r.next_free = free_;
  free_ = &r;
  --used_;
}

// Out of line, both: the compiler must not keep the thread over what is between them.

__attribute__((noinline)) void enter_stay() noexcept {
  worker_thread* const t = this_worker_thread();
  if (t == nullptr || t->current == nullptr) return;
  if (t->guest) {
    ++t->pins;
    return;
  }
  fiber_core* const c = t->current;
  fiber_frame& frame = *c->the_frame();
  if (c->affinity == affinity_stay) {
    ++frame.stay->depth;
    return;
  }
  stay_record& r = t->stays_here.take();
  r.home = t;
  r.who.store(c, std::memory_order_relaxed);
  r.depth = 1;
  r.affinity = c->affinity;
  frame.stay = &r;
  c->affinity = affinity_stay;
  c->flags.fetch_or(flag::stays, std::memory_order_relaxed);
  if (t->is_hot()) ensure_id(c);  // if the call ends while it stays, its shell is cleaned
}

__attribute__((noinline)) void leave_stay() noexcept {
  worker_thread* const t = this_worker_thread();
  if (t == nullptr || t->current == nullptr) return;
  if (t->guest) {
    TENDRIL_CHECK((t->pins & ~worker_thread::hot) != 0, "a fiber leaves as often as it stays");
    --t->pins;
    return;
  }
  fiber_core* const c = t->current;
  TENDRIL_CHECK(c->affinity == affinity_stay && c->the_frame()->stay->home == t,
                "a fiber leaves as often as it stays, on the thread that it stays on");
  stay_record& r = *c->the_frame()->stay;
  if (--r.depth != 0) return;
  c->flags.fetch_and(~flag::stays, std::memory_order_relaxed);
  c->affinity = r.affinity;
  t->stays_here.give(r);
}

}  // namespace tendril::detail
