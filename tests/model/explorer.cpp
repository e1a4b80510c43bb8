// SPDX-License-Identifier: Apache-2.0
//
// The explorer's engine. Terms: an actor is a thread, or one store in a thread's buffer on its way to
// memory; a step is an actor's next operation; a node is a choice among actors, on the path that is
// being explored.
//
// Invariants
//  1. A thread stops only before an operation that other threads could notice or influence. Stores into
//     the buffer, fences with an empty buffer and plain code are nobody else's business: the thread
//     runs through them.
//  2. Everything a thread does follows from what its operations returned, so an actor's next operation
//     stays the same until the actor moves: a set of actors (64 bits) can stand for a set of operations.
//  3. An actor in a node's sleep set was explored in a sibling, and only independent operations have
//     been done since: to choose it would repeat an execution.
#include "model/explorer.hpp"

#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

namespace tendril::model {
namespace {

constexpr unsigned buffer_limit = 15;
constexpr unsigned no_actor = 64;
static_assert(max_threads * (1 + buffer_limit) <= no_actor);
constexpr std::size_t stack_bytes = 64 * 1024;

enum class kind { load, store, rmw, fence, everywhere, spin, wait, room, flush };
constexpr const char* kind_names[] = {"load", "store", "rmw",  "fence", "everywhere",
                                      "spin", "wait",  "room", "flush"};

struct operation {
  kind what = kind::load;
  const location* where = nullptr;
  std::memory_order order = std::memory_order_relaxed;

  bool writes() const {
    return what == kind::store || what == kind::rmw || what == kind::wait || what == kind::flush;
  }
};

struct buffered_store {
  location* where = nullptr;
  std::uint64_t value = 0;
  bool release = false;
  vector_clock published{};
  unsigned sequence = 0;
};

struct thread {
  ucontext_t context{};
  std::unique_ptr<char[]> stack{new char[stack_bytes]};
  std::function<void()> body;
  operation pending;
  bool finished = true;
  std::vector<buffered_store> buffer;
  unsigned next_sequence = 0;
  const location* last_read = nullptr;
  std::uint32_t last_version = 0;
  vector_clock now{};       // what has happened before the thread's next operation
  vector_clock acquired{};  // what an acquire fence would add
  vector_clock released{};  // what a relaxed store publishes: the state at the last fence
};

struct step {
  unsigned actor;
  kind what;
  unsigned location_id;
  std::uint64_t value;
};

struct node {
  std::uint64_t candidates;  // enabled, and within the preemption bound
  std::uint64_t sleep;
  std::uint64_t done = 0;  // explored from here
  unsigned chosen = 0;
};

enum class outcome { running, complete, redundant, failed };

constexpr std::uint64_t bit(unsigned actor) { return std::uint64_t{1} << actor; }
unsigned flush_actor(unsigned owner, const buffered_store& entry) {
  return max_threads + owner * buffer_limit + entry.sequence % buffer_limit;
}
bool is_thread(unsigned actor) { return actor < max_threads; }
unsigned owner_of(unsigned actor) {
  return is_thread(actor) ? actor : (actor - max_threads) / buffer_limit;
}

bool acquires(std::memory_order order) {
  return order == std::memory_order_acquire || order == std::memory_order_consume ||
         order == std::memory_order_acq_rel || order == std::memory_order_seq_cst;
}
bool releases(std::memory_order order) {
  return order == std::memory_order_release || order == std::memory_order_acq_rel ||
         order == std::memory_order_seq_cst;
}
void join(vector_clock& into, const vector_clock& from) {
  for (unsigned i = 0; i != max_threads; ++i) into[i] = std::max(into[i], from[i]);
}

class engine {
 public:
  explicit engine(const options& limits) : limits_(limits) {}

  // What the threads call.
  thread* self() { return running_ < max_threads ? &threads_[running_] : nullptr; }
  unsigned self_index() const { return running_; }
  void reach(operation next);
  void record(std::uint64_t value) {
    if (!trace_.empty()) trace_.back().value = value;
  }
  void learn(const location& where, std::memory_order order);
  void publish(location& where, std::uint64_t value, std::memory_order order);
  void put_in_buffer(location& where, std::uint64_t value, std::memory_order order);
  [[noreturn]] void fail(const std::string& message);
  unsigned next_location_id() { return location_count_++; }

  // What explore() calls.
  void begin_execution();
  bool run(std::vector<std::function<void()>> bodies);
  void fail_at_end(const char* message);
  bool backtrack();
  outcome state() const { return outcome_; }
  const std::string& failure() const { return failure_; }

 private:
  void start(unsigned index, std::function<void()> body);
  static void thread_main();
  std::uint64_t enabled_actors();
  bool can_run(const thread& t);
  operation operation_of(unsigned actor);
  buffered_store* find_entry(unsigned actor);
  bool independent(unsigned a, unsigned b);
  unsigned choose();
  void flush(unsigned actor);
  void dispatch(thread* from);
  void switch_to(thread* from, unsigned to);
  void describe(const std::string& message);

  const options limits_;
  std::array<thread, max_threads> threads_;
  unsigned thread_count_ = 0;
  unsigned running_ = max_threads;  // whose code runs; max_threads: the explorer's own
  bool starting_ = false;
  ucontext_t main_context_{};
  unsigned location_count_ = 0;

  std::vector<node> path_;
  std::size_t depth_ = 0;
  std::uint64_t sleep_ = 0;
  unsigned preemptions_ = 0;
  unsigned last_thread_ = max_threads;
  std::vector<step> trace_;
  outcome outcome_ = outcome::running;
  std::string failure_;
};

engine* current = nullptr;  // one exploration at a time

void engine::begin_execution() {
  for (thread& t : threads_) {
    t.finished = true;
    t.buffer.clear();
    t.next_sequence = 0;
    t.last_read = nullptr;
    t.now = t.acquired = t.released = vector_clock{};
  }
  thread_count_ = 0;
  location_count_ = 0;
  depth_ = 0;
  sleep_ = 0;
  preemptions_ = 0;
  last_thread_ = max_threads;
  trace_.clear();
  outcome_ = outcome::running;
}

bool engine::run(std::vector<std::function<void()>> bodies) {
  if (bodies.size() > max_threads) std::abort();
  thread_count_ = static_cast<unsigned>(bodies.size());
  // Each goes as far as its first operation; what precedes it concerns nobody.
  starting_ = true;
  for (unsigned i = 0; i != thread_count_; ++i) {
    start(i, std::move(bodies[i]));
    if (outcome_ != outcome::running) return false;
  }
  starting_ = false;
  dispatch(nullptr);
  return outcome_ == outcome::complete;
}

void engine::start(unsigned index, std::function<void()> body) {
  thread& t = threads_[index];
  t.body = std::move(body);
  t.finished = false;
  t.now[index] = 1;
  getcontext(&t.context);
  t.context.uc_stack.ss_sp = t.stack.get();
  t.context.uc_stack.ss_size = stack_bytes;
  t.context.uc_link = nullptr;
  makecontext(&t.context, &engine::thread_main, 0);
  switch_to(nullptr, index);
}

void engine::thread_main() {
  engine& e = *current;
  thread& t = *e.self();
  t.body();
  t.finished = true;
  if (e.starting_) {
    e.switch_to(&t, max_threads);
  } else {
    e.dispatch(&t);
  }
  std::abort();  // nobody chooses a finished thread
}

void engine::switch_to(thread* from, unsigned to) {
  const unsigned before = running_;
  running_ = to;
  ucontext_t* const leave = from == nullptr ? &main_context_ : &from->context;
  swapcontext(leave, to == max_threads ? &main_context_ : &threads_[to].context);
  running_ = before;
}

/// Stops before `next` until the thread is chosen to do it.
void engine::reach(operation next) {
  thread& t = *self();
  t.pending = next;
  if (starting_) {
    switch_to(&t, max_threads);
  } else {
    dispatch(&t);
  }
}

/// Chooses until `from` is chosen (null: until the execution has ended).
void engine::dispatch(thread* from) {
  for (;;) {
    const unsigned actor = choose();
    if (actor == no_actor) {
      if (from != nullptr) switch_to(from, max_threads);
      return;
    }
    if (!is_thread(actor)) {
      flush(actor);
    } else if (&threads_[actor] == from) {
      return;
    } else {
      switch_to(from, actor);
      // A thread comes back here when it was chosen; the explorer's own context, at the end.
      return;
    }
  }
}

unsigned engine::choose() {
  if (outcome_ != outcome::running) return no_actor;
  if (depth_ == limits_.steps) {
    describe("livelock: too many steps");
    return no_actor;
  }
  if (depth_ == path_.size()) {
    const std::uint64_t enabled = enabled_actors();
    if (enabled == 0) {
      const bool finished =
          std::all_of(threads_.begin(), threads_.end(), [](const thread& t) { return t.finished; });
      if (finished) {
        outcome_ = outcome::complete;
      } else {
        describe("deadlock: every thread that is left waits");
      }
      return no_actor;
    }
    std::uint64_t candidates = enabled;
    const bool can_go_on = last_thread_ < max_threads && (enabled & bit(last_thread_)) != 0;
    if (can_go_on && preemptions_ >= limits_.preemptions)
      candidates &= bit(last_thread_) | ~(bit(max_threads) - 1);
    if ((candidates & ~sleep_) == 0) {
      outcome_ = outcome::redundant;
      return no_actor;
    }
    node next{candidates, sleep_};
    // The thread that runs goes on by default: cheapest, and the shortest counterexamples.
    next.chosen = can_go_on && (candidates & ~sleep_ & bit(last_thread_)) != 0
                      ? last_thread_
                      : static_cast<unsigned>(std::countr_zero(candidates & ~sleep_));
    path_.push_back(next);
  }
  const node& at = path_[depth_++];
  const unsigned chosen = at.chosen;

  const bool bounded = limits_.preemptions != std::numeric_limits<unsigned>::max();
  sleep_ = 0;
  if (!bounded) {
    for (std::uint64_t rest = at.sleep | at.done; rest != 0; rest &= rest - 1) {
      const auto asleep = static_cast<unsigned>(std::countr_zero(rest));
      if (asleep != chosen && independent(asleep, chosen)) sleep_ |= bit(asleep);
    }
  }
  if (is_thread(chosen)) {
    if (last_thread_ != chosen && last_thread_ < max_threads &&
        (at.candidates & bit(last_thread_)) != 0)
      ++preemptions_;
    last_thread_ = chosen;
  }
  const operation op = operation_of(chosen);
  trace_.push_back({chosen, op.what, op.where == nullptr ? 0 : op.where->id, 0});
  return chosen;
}

bool engine::backtrack() {
  while (!path_.empty()) {
    node& last = path_.back();
    last.done |= bit(last.chosen);
    const std::uint64_t left = last.candidates & ~last.sleep & ~last.done;
    if (left != 0) {
      last.chosen = static_cast<unsigned>(std::countr_zero(left));
      return true;
    }
    path_.pop_back();
  }
  return false;
}

std::uint64_t engine::enabled_actors() {
  std::uint64_t enabled = 0;
  for (unsigned i = 0; i != thread_count_; ++i) {
    const thread& t = threads_[i];
    if (can_run(t)) enabled |= bit(i);
    for (std::size_t k = 0; k != t.buffer.size(); ++k) {
      const buffered_store& entry = t.buffer[k];
      if (entry.release && k != 0) continue;  // after all that came before
      const auto earlier = t.buffer.begin() + static_cast<std::ptrdiff_t>(k);
      const bool overtakes = std::any_of(t.buffer.begin(), earlier, [&](const buffered_store& e) {
        return e.where == entry.where;  // stores to one location keep their order
      });
      if (!overtakes) enabled |= bit(flush_actor(i, entry));
    }
  }
  return enabled;
}

bool engine::can_run(const thread& t) {
  if (t.finished) return false;
  const operation& op = t.pending;
  switch (op.what) {
    case kind::rmw:
      if (releases(op.order)) return t.buffer.empty();
      return std::none_of(t.buffer.begin(), t.buffer.end(),
                          [&](const buffered_store& e) { return e.where == op.where; });
    case kind::store:
    case kind::fence:
      return t.buffer.empty();
    case kind::everywhere:
      return std::all_of(threads_.begin(), threads_.end(),
                         [](const thread& other) { return other.buffer.empty(); });
    case kind::wait:
      return op.where->value != 0;
    case kind::spin:
      return op.where->version != t.last_version;
    case kind::room:
      return t.buffer.size() < buffer_limit;
    case kind::load:
    case kind::flush:
      break;
  }
  return true;
}

buffered_store* engine::find_entry(unsigned actor) {
  for (buffered_store& entry : threads_[owner_of(actor)].buffer)
    if (flush_actor(owner_of(actor), entry) == actor) return &entry;
  std::abort();
}

operation engine::operation_of(unsigned actor) {
  if (is_thread(actor)) return threads_[actor].pending;
  return {kind::flush, find_entry(actor)->where, std::memory_order_relaxed};
}

/// Whether two steps lead to the same state in either order, and neither en- or disables the other.
bool engine::independent(unsigned a, unsigned b) {
  const operation x = operation_of(a);
  const operation y = operation_of(b);
  // Any step may be followed by a store into a buffer, which would hold it up.
  if (x.what == kind::everywhere || y.what == kind::everywhere) return false;
  if (x.where == nullptr || y.where == nullptr || x.where != y.where) return true;
  if (!x.writes() && !y.writes()) return true;
  // A thread's load and its own store on the way to memory: it sees that store either way.
  return owner_of(a) == owner_of(b) && (x.what == kind::load || y.what == kind::load);
}

void engine::flush(unsigned actor) {
  buffered_store* const entry = find_entry(actor);
  location& where = *entry->where;
  if (where.value != entry->value) ++where.version;
  where.value = entry->value;
  where.published = entry->published;
  record(entry->value);
  auto& buffer = threads_[owner_of(actor)].buffer;
  buffer.erase(buffer.begin() + (entry - buffer.data()));
}

void engine::learn(const location& where, std::memory_order order) {
  thread& t = *self();
  t.last_read = &where;
  t.last_version = where.version;
  join(t.acquired, where.published);
  if (acquires(order)) join(t.now, where.published);
}

/// A write that goes to memory at once: an update, which continues release sequences, or seq_cst.
void engine::publish(location& where, std::uint64_t value, std::memory_order order) {
  thread& t = *self();
  if (where.value != value) ++where.version;
  where.value = value;
  join(where.published, releases(order) ? t.now : t.released);
  ++t.now[running_];  // what follows is not published
  record(value);
}

void engine::put_in_buffer(location& where, std::uint64_t value, std::memory_order order) {
  thread& t = *self();
  if (t.buffer.size() == buffer_limit) reach({kind::room, nullptr, order});
  t.buffer.push_back(
      {&where, value, releases(order), releases(order) ? t.now : t.released, t.next_sequence++});
  ++t.now[running_];  // what follows is not published
}

void engine::fail(const std::string& message) {
  describe(message);
  switch_to(self(), max_threads);
  std::abort();
}

void engine::fail_at_end(const char* message) { describe(message); }

void engine::describe(const std::string& message) {
  if (outcome_ == outcome::failed) return;
  outcome_ = outcome::failed;
  failure_ = message;
  for (const step& s : trace_) {
    char line[96];
    std::snprintf(line, sizeof line, "\n  thread %u: %-5s location %u, value %llx",
                  owner_of(s.actor), kind_names[static_cast<int>(s.what)], s.location_id,
                  static_cast<unsigned long long>(s.value));
    failure_ += line;
  }
}

}  // namespace

location::location(std::uint64_t initial)
    : value(initial), id(current == nullptr ? 0 : current->next_location_id()) {}

std::uint64_t load(const location& where, std::memory_order order) {
  if (current == nullptr || current->self() == nullptr) return where.value;
  current->reach({kind::load, &where, order});
  // Its own latest store to the place, if that has not reached memory yet.
  const auto& buffer = current->self()->buffer;
  const auto own = std::find_if(buffer.rbegin(), buffer.rend(),
                                [&](const buffered_store& e) { return e.where == &where; });
  const std::uint64_t value = own == buffer.rend() ? where.value : own->value;
  if (own == buffer.rend()) current->learn(where, order);
  current->record(value);
  return value;
}

void store(location& where, std::uint64_t value, std::memory_order order) {
  if (current == nullptr || current->self() == nullptr) {
    where.value = value;
    return;
  }
  if (order != std::memory_order_seq_cst) {
    current->put_in_buffer(where, value, order);
    return;
  }
  current->reach({kind::store, &where, order});
  where.published = vector_clock{};  // a store ends the release sequences of others
  current->publish(where, value, order);
}

std::uint64_t begin_rmw(location& where, std::memory_order order) {
  if (current != nullptr && current->self() != nullptr) current->reach({kind::rmw, &where, order});
  return where.value;
}

std::uint64_t begin_wait(location& where) {
  if (current != nullptr && current->self() != nullptr)
    current->reach({kind::wait, &where, std::memory_order_acquire});
  return where.value;
}

void finish_rmw(location& where, std::uint64_t value, std::memory_order order) {
  if (current == nullptr || current->self() == nullptr) {
    where.value = value;
    return;
  }
  current->learn(where, order);
  current->publish(where, value, order);
}

void fail_rmw(location& where, std::memory_order order) {
  if (current == nullptr || current->self() == nullptr) return;
  current->learn(where, order);
  current->record(where.value);
}

void fence_seq_cst() {
  if (current == nullptr || current->self() == nullptr) return;
  thread& t = *current->self();
  if (!t.buffer.empty()) current->reach({kind::fence, nullptr, std::memory_order_seq_cst});
  join(t.now, t.acquired);
  t.released = t.now;
  ++t.now[current->self_index()];
}

void fence_everywhere() {
  if (current == nullptr || current->self() == nullptr) return;
  current->reach({kind::everywhere, nullptr, std::memory_order_seq_cst});
  fence_seq_cst();
}

void spin() {
  if (current == nullptr || current->self() == nullptr) return;
  const thread& t = *current->self();
  if (t.last_read == nullptr) current->fail("a thread spins before it has read anything");
  current->reach({kind::spin, t.last_read, std::memory_order_relaxed});
}

void check(bool condition, const char* message) {
  if (condition) return;
  if (current->self() != nullptr) current->fail(message);
  current->fail_at_end(message);
}

void race_detector::read() const {
  if (current == nullptr || current->self() == nullptr) return;
  const thread& t = *current->self();
  const unsigned me = current->self_index();
  if (writer_ != max_threads && written_ > t.now[writer_])
    current->fail("data race: a read is not ordered after the last write");
  reads_[me] = t.now[me];
}

void race_detector::write() {
  if (current == nullptr || current->self() == nullptr) return;
  const thread& t = *current->self();
  const unsigned me = current->self_index();
  if (writer_ != max_threads && written_ > t.now[writer_])
    current->fail("data race: a write is not ordered after the last write");
  for (unsigned i = 0; i != max_threads; ++i)
    if (reads_[i] > t.now[i]) current->fail("data race: a write is not ordered after a read");
  writer_ = me;
  written_ = t.now[me];
}

bool execution::threads(std::vector<std::function<void()>> bodies) {
  return current->run(std::move(bodies));
}

void execution::check(bool condition, const char* message) {
  if (!condition) current->fail_at_end(message);
}

result explore(const char* name, const std::function<void(execution&)>& body, options limits) {
  if (current != nullptr) std::abort();
  const auto run = std::make_unique<engine>(limits);
  current = run.get();
  result found;
  for (;;) {
    run->begin_execution();
    execution now;
    body(now);
    if (run->state() == outcome::failed) {
      found.failure = run->failure();
      break;
    }
    ++(run->state() == outcome::redundant ? found.redundant : found.executions);
    if (!run->backtrack()) {
      found.complete = true;
      break;
    }
    if (found.executions + found.redundant >= limits.executions) break;
  }
  current = nullptr;
  std::printf("%-48s %8llu executions, %8llu cut short%s\n", name,
              static_cast<unsigned long long>(found.executions),
              static_cast<unsigned long long>(found.redundant),
              !found.failure.empty() ? ", failed" : (found.complete ? "" : ", gave up"));
  return found;
}

}  // namespace tendril::model
