// SPDX-License-Identifier: Apache-2.0
//
// E14's other half, in a program of its own (tendril-experiments-gc): the same tasks with their objects on the heap of
// the Boehm-Demers-Weiser collector. Young collections are forced, and the time is taken for which threads are
// stopped: from before the first is asked to stop until after the last has been told to go on.
//
// The collector is in its generational mode, and is told of writes by the program, as by the compiler of a managed
// language; otherwise most of a pause would be system calls by which it finds out. (What is measured writes no
// references to objects that have survived a collection.) It has no time limit: a young collection is done at once. It
// collects when it is asked to, and at no other time. Static data is looked through in each collection.
//
//   naive          every parked stack is reported in each collection
//   aged           those that have run since the last
//   aged, 100 new  before each collection 100 tasks end, and as many begin and are suspended
//
// The frames of coroutines are objects of the collector's heap: nothing is reported for them in either mode, and
// they grow old as objects do. So they are in .NET. async1 takes them from the heap at each call here, and not from
// its pool, which the collector would not know.
//
// Fibers: the collector looks at the stacks of two threads besides, the worker's and the main thread's.

#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/e14_tasks.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/role.hpp"

#include <tendril/fiber.hpp>
#include <tendril/gc.hpp>
#include <tendril/latch.hpp>
#include <tendril/runtime.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

using steady = std::chrono::steady_clock;

/// Whether operator new is the collector's: where coroutines run, and no runtime does.
bool collected_new = false;

struct collected_memory {
  static e14::object* make(long value) {
    auto* const o = static_cast<e14::object*>(GC_MALLOC(sizeof(e14::object)));
    if (o == nullptr) throw std::bad_alloc();
    return new (o) e14::object(value);
  }
};

// Written with the collector's lock held, read by the only thread that collects.
steady::time_point stop_began;
std::chrono::nanoseconds stopped_for{};
long stops = 0;

void GC_CALLBACK on_event(GC_EventType what) {
  if (what == GC_EVENT_PRE_STOP_WORLD) stop_began = steady::now();
  if (what != GC_EVENT_POST_START_WORLD) return;
  stopped_for += steady::now() - stop_began;
  ++stops;
}

void start_collector(tendril::gc::mode how) {
  GC_set_markers_count(1);  // the others would be woken for a few microseconds of work
  GC_set_manual_vdb_allowed(1);
  GC_set_time_limit(GC_TIME_UNLIMITED);
  GC_set_full_freq(1 << 30);  // full collections when they are asked for
  GC_enable_incremental();
  tendril::gc::enable(how);
  GC_set_on_collection_event(&on_event);
  GC_disable();
}

/// A scope in which the collector collects.
struct collecting {
  collecting() { GC_enable(); }
  ~collecting() { GC_disable(); }
  collecting(const collecting&) = delete;
  collecting& operator=(const collecting&) = delete;
};

void collect_young() {
  const collecting now;
  const auto before = tendril::gc::collections();
  GC_start_incremental_collection();
  while (GC_collect_a_little() != 0) {
  }
  const auto after = tendril::gc::collections();
  if (after.full != before.full || after.young != before.young + 1)
    throw std::runtime_error("the collector did something else than one young collection");
}

void collect_all() {
  const collecting now;
  GC_gcollect();
  GC_gcollect();
}

/// In microseconds, the mean of the middle half: a pause in which the machine ran something else tells nothing.
/// `prepare` before each, outside; now and then with a full collection after it, which finds the old garbage.
template <class Prepare>
double pause_us(long collections, Prepare prepare) {
  constexpr long full_each = 25;
  std::vector<double> pauses;
  for (long i = 0; i != collections; ++i) {
    if (i % full_each == 0) {
      prepare();
      collect_all();
      collect_young();
    }
    prepare();
    stopped_for = {};
    stops = 0;
    collect_young();
    if (stops != 1) throw std::runtime_error("threads were stopped more than once");
    pauses.push_back(std::chrono::duration<double, std::micro>(stopped_for).count());
  }
  std::sort(pauses.begin(), pauses.end());
  const auto quarter = static_cast<std::ptrdiff_t>(pauses.size() / 4);
  return std::accumulate(pauses.begin() + quarter, pauses.end() - quarter, 0.0) /
         static_cast<double>(static_cast<std::ptrdiff_t>(pauses.size()) - 2 * quarter);
}

/// `renew`: lets some tasks end, and suspends as many others.
template <class Renew>
void measure(long collections, role_output& out, Renew renew) {
  const auto nothing = [] {};
  tendril::gc::set_mode(tendril::gc::mode::naive);
  out.send("pause_us_naive", pause_us(collections, nothing));
  tendril::gc::set_mode(tendril::gc::mode::aged);
  out.send("pause_us_aged", pause_us(collections, nothing));
  out.send("pause_us_aged_100_new", pause_us(collections, renew));
}

constexpr long renewed = 100;

void pauses_of_fibers(const std::string& stack, long count, long frames, long collections,
                      role_output& out) {
  tendril::run(runtime_with(stack, 1), [&] {
    struct shared {
      long arrived = 0;  // one worker: no two fibers at once
      long finished = 0;
      long sum = 0;
    };
    const auto s = std::make_unique<shared>();
    long expected = 0;
    const auto suspend = [&](tendril::latch& gate, long from, long to) {
      for (long i = from; i != to; ++i) {
        expected += e14::expected(frames, i);
        tendril::spawn([&s = *s, &gate, i, frames] {
          auto wait = [&] {
            ++s.arrived;
            gate.wait();
          };
          s.sum += e14::descend<collected_memory>(frames, i, wait);
          ++s.finished;
        });
      }
    };
    const auto settle = [](const long& what, long wanted) {
      while (what != wanted) tendril::this_fiber::yield();
    };
    const auto gate = std::make_unique<tendril::latch>(1);
    auto young = std::make_unique<tendril::latch>(1);
    suspend(*gate, renewed, count);
    suspend(*young, 0, renewed);
    settle(s->arrived, count);
    measure(collections, out, [&] {
      young->count_down();
      settle(s->finished, s->finished + renewed - s->finished % renewed);
      young = std::make_unique<tendril::latch>(1);
      suspend(*young, 0, renewed);
      settle(s->arrived, s->finished + count);
    });
    gate->count_down();
    young->count_down();
    settle(s->finished, s->arrived);
    if (s->sum != expected) throw std::runtime_error("wrong sums");
  });
}

/// async1 without its pool of frames.
struct unpooled : async1::dotnet {
  static constexpr bool pooled_frames = false;
};
template <class T>
using unpooled_task = async1::task<T, unpooled>;

template <template <class> class Task>
void pauses_of_coroutines(long count, long frames, long collections, role_output& out) {
  {
    // What a thread has for its first coroutine, and refers to by thread_local variables, which nobody looks through.
    coroutine_gate gate;
    long sum = 0;
    run_detached(e14::run_as<Task, collected_memory>(2, 0, gate, sum));
    gate.open();
  }
  collected_new = true;
  coroutine_gate gate;
  coroutine_gate young;
  long sum = 0;
  long expected = 0;
  const auto suspend = [&](coroutine_gate& g, long from, long to) {
    for (long i = from; i != to; ++i) {
      expected += e14::expected(frames, i);
      run_detached(e14::run_as<Task, collected_memory>(frames, i, g, sum));
    }
  };
  suspend(gate, renewed, count);
  suspend(young, 0, renewed);
  measure(collections, out, [&] {
    young.open();
    suspend(young, 0, renewed);
  });
  gate.open();
  young.open();
  if (sum != expected) throw std::runtime_error("wrong sums");
  collected_new = false;
}

int pauses(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const long count = args.number("count");
  const long frames = args.number("frames");
  const long collections = args.number("collections");
  start_collector(tendril::gc::mode::aged);
  if (impl == "fiber") pauses_of_fibers(args.text("stack"), count, frames, collections, out);
  else if (impl == "async1") pauses_of_coroutines<unpooled_task>(count, frames, collections, out);
  else if (impl == "task") pauses_of_coroutines<tendril_task>(count, frames, collections, out);
  else throw std::invalid_argument("unknown --impl '" + impl + "'; known: fiber, async1, task");
  return 0;
}
const role_registration pauses_role("pauses", pauses);

void* allocate(std::size_t bytes) {
  void* const p = collected_new ? GC_MALLOC(bytes) : std::malloc(bytes != 0 ? bytes : 1);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
/// What is the collector's is left to it, as in .NET.
void release(void* p) noexcept {
  if (!collected_new || GC_is_heap_ptr(p) == 0) std::free(p);
}

}  // namespace
}  // namespace bench

void* operator new(std::size_t bytes) { return bench::allocate(bytes); }
void operator delete(void* p) noexcept { bench::release(p); }
void operator delete(void* p, std::size_t) noexcept { bench::release(p); }
