// SPDX-License-Identifier: Apache-2.0
//
// What a flow of control carries: ambient snapshots, the table of its fiber-local values, its contexts. The
// headers (detail/flow.hpp, ambient.hpp, fiber_local.hpp, synchronization_context.hpp) say how they work.
#include "base/check.hpp"
#include "sched/fiber_core.hpp"

#include <tendril/detail/ambient_snapshot.hpp>
#include <tendril/detail/flow.hpp>
#include <tendril/error.hpp>
#include <tendril/fiber_local.hpp>
#include <tendril/synchronization_context.hpp>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

namespace tendril::detail {

// ---- Ambient values --------------------------------------------------------------------------

namespace {

std::atomic<std::uint64_t> next_ambient_key{1};

ambient_snapshot* make_snapshot(std::uint32_t entries) {
  void* const memory = ::operator new(sizeof(ambient_snapshot) + entries * sizeof(ambient_entry),
                                      std::align_val_t(alignof(ambient_snapshot)));
  auto* const s = ::new (memory) ambient_snapshot;
  s->size = entries;
  return s;
}

void release(ambient_box* b) noexcept {
  // The last one sees what the others did with the value before it destroys it.
  if (b->references.fetch_sub(1, std::memory_order_acq_rel) == 1) b->destroy(b);
}

ambient_entry share(const ambient_entry& e) noexcept {
  e.box->references.fetch_add(1, std::memory_order_relaxed);  // the snapshot has one while we look
  return e;
}

/// Of a snapshot that nobody has any more.
void destroy(ambient_snapshot* s) noexcept {
  for (std::uint32_t i = 0; i != s->size; ++i) release(s->entries()[i].box);
  s->~ambient_snapshot();
  ::operator delete(s, std::align_val_t(alignof(ambient_snapshot)));
}

struct box_owner {
  ambient_box* box;
  ~box_owner() {
    if (box != nullptr) release(box);
  }
};

}  // namespace

std::uint64_t new_ambient_key() noexcept {
  return next_ambient_key.fetch_add(1, std::memory_order_relaxed);
}

void count_ambient_up(ambient_snapshot* s) noexcept {
  s->references.fetch_add(1, std::memory_order_relaxed);  // the caller's flow has one while we look
}

void count_ambient_down(ambient_snapshot* s) noexcept {
  if (s->references.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy(s);  // as release(box)
}

void set_ambient(flow_locals& flow, std::uint64_t key, ambient_box* box) {
  box_owner given{box};
  ambient_snapshot* const old = snapshot_in(flow.ambient);
  const ambient_entry* const begin = old != nullptr ? old->entries() : nullptr;
  const std::uint32_t size = old != nullptr ? old->size : 0;
  const auto at = static_cast<std::uint32_t>(
      std::lower_bound(begin, begin + size, key,
                       [](const ambient_entry& e, std::uint64_t k) { return e.key < k; }) -
      begin);
  const bool present = at != size && begin[at].key == key;
  if (box == nullptr && !present) return;

  // Ours alone, and in no scope's hands: nobody can see it change. Acquire: those who saw it before have
  // done with it.
  if (box != nullptr && present && (flow.ambient & borrowed_bit) == 0 &&
      old->references.load(std::memory_order_acquire) == 1) {
    std::swap(old->entries()[at].box, given.box);
    return;
  }

  std::uint32_t left = size + 1;
  if (box == nullptr) left = size - 1;
  else if (present) left = size;
  if (left == 0) {
    replace_ambient(flow, 0);
    return;
  }
  ambient_snapshot* const fresh = make_snapshot(left);
  ambient_entry* out = std::transform(begin, begin + at, fresh->entries(), &share);
  if (box != nullptr) *out++ = {key, std::exchange(given.box, nullptr)};
  std::transform(begin + at + (present ? 1 : 0), begin + size, out, &share);
  replace_ambient(flow, reinterpret_cast<std::uintptr_t>(fresh));
}

// ---- Fiber-local values ----------------------------------------------------------------------

namespace {

class local_keys {
 public:
  static local_keys& instance() {
    static local_keys& keys = *new local_keys;  // variables may be destroyed after statics
    return keys;
  }
  local_key take() {
    const std::scoped_lock hold(mutex_);
    if (!free_.empty()) {
      const std::uint32_t index = free_.back();
      free_.pop_back();
      return {++last_generation_, index};
    }
    free_.reserve(count_ + 1);  // so that giving back never fails
    return {++last_generation_, count_++};
  }
  void give_back(std::uint32_t index) noexcept {
    const std::scoped_lock hold(mutex_);
    free_.push_back(index);
  }

 private:
  std::mutex mutex_;
  std::vector<std::uint32_t> free_;
  std::uint32_t count_ = 0;
  std::uint64_t last_generation_ = 0;  // of all indexes: no two variables ever have the same
};

constexpr std::uint32_t most_rounds = 16;

void grow(local_table& t, std::uint32_t index) {
  std::uint32_t size = std::max(t.size, 8U);
  while (size <= index) size *= 2;
  auto* const slots = new local_slot[size];
  std::copy_n(t.slots, t.size, slots);
  delete[] t.slots;
  t.slots = slots;
  t.size = size;
}

void unlink(local_table& t, local_value* v) noexcept {
  (v->newer != nullptr ? v->newer->older : t.newest) = v->older;
  if (v->older != nullptr) v->older->newer = v->newer;
}

/// Takes v out first: its destructor may use the same variable.
void destroy_value(local_table& t, local_value* v) noexcept {
  unlink(t, v);
  local_slot& slot = t.slots[v->index];
  if (slot.value == v) slot = {};
  const std::uint32_t before = std::exchange(t.round, v->round + 1);
  TENDRIL_CHECK(t.round <= most_rounds,
                "destructors of fiber_local values make new ones, again and again");
  v->destroy(v);
  t.round = before;
}

}  // namespace

local_key new_local_key() { return local_keys::instance().take(); }
void free_local_key(local_key key) noexcept { local_keys::instance().give_back(key.index); }

void begin_local(flow_locals& flow, local_key key) {
  if (flow.locals == nullptr) {
    auto* const fresh = new local_table;
    std::atomic_signal_fence(std::memory_order_release);  // see finish_local()
    flow.locals = fresh;
  }
  local_table& t = *flow.locals;
  if (key.index >= t.size) grow(t, key.index);
  local_slot& slot = t.slots[key.index];
  if (slot.generation == (key.generation | local_busy_bit))
    throw std::system_error(make_error_code(errc::would_deadlock),
                            "fiber_local: the function that makes its value uses the variable");
  // A value of another generation stays in the list until the end.
  slot = {key.generation | local_busy_bit, nullptr};
}

void finish_local(flow_locals& flow, local_key key, local_value* v) noexcept {
  local_table& t = *flow.locals;
  v->generation = key.generation;
  v->index = key.index;
  v->round = t.round;
  v->older = t.newest;
  if (t.newest != nullptr) t.newest->newer = v;
  // Who inspects fibers while all threads are stopped (inspect.hpp) follows the list from the newest to the oldest,
  // and finds it whole between any two instructions.
  std::atomic_signal_fence(std::memory_order_release);
  t.newest = v;
  t.slots[key.index] = {key.generation, v};
}

void abandon_local(flow_locals& flow, local_key key) noexcept {
  flow.locals->slots[key.index] = {};
}

void reset_local(flow_locals& flow, local_key key) noexcept {
  local_value* const v = find_local(flow, key);
  if (v == nullptr) return;
  local_table& t = *flow.locals;
  const std::uint32_t round = t.round;
  unlink(t, v);
  t.slots[key.index] = {};
  v->destroy(v);
  t.round = round;
}

void end_flow_slow(flow_locals& flow) noexcept {
  if (local_table* const t = flow.locals) {
    while (t->newest != nullptr) destroy_value(*t, t->newest);
    flow.locals = nullptr;
    std::atomic_signal_fence(std::memory_order_release);  // as in finish_local()
    delete[] t->slots;
    delete t;
  }
  // Last, as those destructors may read and set ambient values; and the values' own destructors again.
  for (std::uint32_t round = 0; flow.ambient != 0; ++round) {
    TENDRIL_CHECK(round != most_rounds,
                  "destructors of ambient values set new ones, again and again");
    replace_ambient(flow, 0);
  }
  if (flow.locals != nullptr) end_flow_slow(flow);
}

// ---- Contexts --------------------------------------------------------------------------------

namespace {

flow_contexts contexts_of(const flow_locals& f) noexcept { return {f.sync, f.host, f.off_context}; }

}  // namespace

flow_contexts get_contexts() { return contexts_of(this_flow()); }

flow_contexts set_contexts(flow_contexts now) {
  waiter* const self = current_waiter();
  flow_locals& flow = block_of(self).flow;
  const flow_contexts before = contexts_of(flow);
  flow.sync = now.sync;
  flow.host = now.host;
  flow.off_context = now.off;
  // For the flow's own eyes; others change other bits of the word.
  if (now.sync != nullptr || now.host != nullptr)
    self->flags.fetch_or(flag::has_context, std::memory_order_relaxed);
  else self->flags.fetch_and(~flag::has_context, std::memory_order_relaxed);
  return before;
}

synchronization_context* resume_context(configure_await how) {
  if (!how.on_context) return nullptr;
  const flow_locals& flow = this_flow();
  return flow.off_context ? nullptr : flow.sync;
}

}  // namespace tendril::detail

namespace tendril {

synchronization_context::~synchronization_context() = default;

detail::time_point synchronization_context::before_host_waits(host_wait&) noexcept {
  return detail::no_deadline;
}
void synchronization_context::after_host_waited() noexcept {}

synchronization_context* synchronization_context::current() { return detail::this_flow().sync; }

}  // namespace tendril
