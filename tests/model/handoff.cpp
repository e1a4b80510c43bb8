// SPDX-License-Identifier: Apache-2.0
//
// The wait-list protocol of <tendril/detail/waiting.hpp>, every interleaving: a waker takes a node off the
// list with the lock held, puts the value into it and unparks its waiter after unlocking; who gives up
// (deadline, stop request) is only unparked, takes the lock, and looks whether its node was chosen
// meanwhile. A value goes to exactly one, or stays in stock; none is lost. The variant in which a waiter
// that is giving up trusts what it saw before it had the lock is shown to lose one.
#include <doctest/doctest.h>

#include <string>

#include "base/intrusive_list.hpp"
#include "base/spinlock.hpp"
#include "model/explorer.hpp"
#include "model/weakened_atomics.hpp"
#include "sched/park_word.hpp"

namespace {

using namespace tendril;
using model::model_atomics;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

template <class Atomics>
struct waiter : detail::list_node<> {
  detail::basic_park_word<Atomics> word;
  model::semaphore run_queue{0};
  typename Atomics::template atomic<int> signalled{0};
  typename Atomics::template atomic<int> given_up{0};  // its deadline has passed
  model::plain<int> cell{0};  // the value, handed over in the waiter's block
  model::plain<int> got{0};   // what the wait returned; 0: gave up

  void unpark() {
    if (word.unpark()) run_queue.release();
  }
  void park() {
    if (word.try_consume() || !word.commit_park()) return;
    run_queue.acquire();
  }
  void expire() {
    given_up.store(1, memory_order_relaxed);
    unpark();
  }
};

enum class giving_up { looks_again, trusts_its_look };

/// A channel in small: values in stock, or waiters, never both.
template <class Atomics, giving_up How = giving_up::looks_again>
struct shop {
  detail::basic_spinlock<Atomics> lock;
  detail::intrusive_list<waiter<Atomics>> waiters;
  model::plain<int> stock{0};

  void give() {
    lock.lock();
    waiter<Atomics>* const chosen = waiters.pop_front();
    if (chosen == nullptr) {
      stock.set(stock.get() + 1);
    } else {
      chosen->cell.set(1);
      chosen->signalled.store(1, memory_order_release);
    }
    lock.unlock();
    if (chosen != nullptr) chosen->unpark();
  }

  void get(waiter<Atomics>& me) {
    lock.lock();
    if (stock.get() != 0) {
      me.got.set(1);
      stock.set(stock.get() - 1);
      lock.unlock();
      return;
    }
    waiters.push_back(me);
    lock.unlock();
    wait(me);
  }

  void wait(waiter<Atomics>& me) {
    for (;;) {
      const bool signalled = me.signalled.load(memory_order_acquire) == 1;
      if (signalled) {
        me.got.set(me.cell.get());
        return;
      }
      if (me.given_up.load(memory_order_relaxed) == 1 && leave(me)) return;
      me.park();
    }
  }

  bool leave(waiter<Atomics>& me) {
    lock.lock();
    const bool still_waiting =
        How == giving_up::trusts_its_look || me.signalled.load(memory_order_relaxed) == 0;
    if (still_waiting && me.linked()) waiters.remove(me);
    lock.unlock();
    return still_waiting;
  }
};

template <class Atomics, giving_up How = giving_up::looks_again>
model::result give_against_giving_up(const char* name) {
  return model::explore(name, [](model::execution& run) {
    model::undestroyed<shop<Atomics, How>> s;
    model::undestroyed<waiter<Atomics>> a;
    if (!run.threads({[&] { s->get(*a); }, [&] { s->give(); }, [&] { a->expire(); }})) return;
    run.check(a->got.get() + s->stock.get() == 1, "a value was lost or doubled");
    run.check(s->waiters.empty(), "nobody is left on the list");
    run.check(a->run_queue.count() == 0, "scheduled while running");
  });
}

TEST_SUITE("handoff") {
  TEST_CASE("a value against a deadline: one of them happens") {
    CHECK(give_against_giving_up<model_atomics>("handoff: give, give up").passed());
  }

  TEST_CASE("two values, two waiters, one of which gives up") {
    const auto found = model::explore("handoff: 2 waiters", [](model::execution& run) {
      model::undestroyed<shop<model_atomics>> s;
      model::undestroyed<waiter<model_atomics>> a, b;
      s->waiters.push_back(*a);
      s->waiters.push_back(*b);
      const bool done = run.threads({[&] { s->wait(*a); }, [&] { s->wait(*b); },
                                     [&] {
                                       a->expire();
                                       s->give();
                                       s->give();
                                     }});
      if (!done) return;
      run.check(b->got.get() == 1, "the waiter that did not give up got none");
      run.check(a->got.get() + s->stock.get() == 1, "a value was lost or doubled");
      run.check(s->waiters.empty(), "nobody is left on the list");
    });
    CHECK(found.passed());
  }

  TEST_CASE("a waiter that trusts its look before the lock loses a value") {
    const auto found = give_against_giving_up<model_atomics, giving_up::trusts_its_look>(
        "handoff: give up without looking again");
    CHECK(found.failure.find("lost") != std::string::npos);
  }

  TEST_CASE("without release or acquire the value is not seen") {
    CHECK_FALSE(give_against_giving_up<model::no_release>("handoff: no release").failure.empty());
    CHECK_FALSE(give_against_giving_up<model::no_acquire>("handoff: no acquire").failure.empty());
  }
}

}  // namespace
