// SPDX-License-Identifier: Apache-2.0
//
// A fiber's core outside of its running: creating, starting, stopping, joining, freeing.
#include "sched/fiber_core.hpp"

#include "base/check.hpp"
#include "sched/core_pool.hpp"
#include "sched/parked.hpp"
#include "sched/scheduler.hpp"
#include "stack/stack_choice.hpp"

#include <tendril/error.hpp>

#include <sched.h>
#include <algorithm>
#include <mutex>
#include <ostream>
#include <utility>

namespace tendril {
namespace detail {
namespace {

/// Guards the stop sources and names in extras, and freeing extras against stop_all_fibers() and
/// list_fibers(). Rare.
std::mutex& extras_mutex() {
  static std::mutex& m = *new std::mutex;
  return m;
}

std::atomic<std::uint64_t> next_fiber_id{1};

/// Out of line: who names unsplit code is moved to a larger segment each time it is entered.
[[noreturn, gnu::noinline]] void throw_no_runtime() {
  throw std::system_error(make_error_code(errc::no_runtime), "tendril: starting a fiber");
}

void start_on(fiber_core* c, scheduler* s, waiter* marker) {
  try {
    const worker_use here;
    const worker_thread* const t = here.thread();
    if (s == nullptr) {
      s = t != nullptr ? &t->owner : latest_scheduler();
      if (s == nullptr) throw_no_runtime();
    }
    if (c->stack_class == stack_class_default) c->stack_class = s->default_stack_class();
    c->done.reset(marker);
    const flow_locals* flow;
    if (const fiber_core* const parent = t != nullptr ? t->current.get() : nullptr) {
      const wait_block& block = parent->the_frame()->block;
      // The ambient deadline is inherited: children must not outlive what their parent may wait for.
      if (block.ambient_deadline != no_deadline)
        c->extras.make().ambient_deadline = block.ambient_deadline;
      flow = &block.flow;
    } else {
      flow = existing_flow();
    }
    if (flow != nullptr)
      if (const std::uintptr_t ambient = ambient_for_child(*flow)) c->extras.inherit(ambient);
    s->start(c, here.get());
  } catch (...) {
    free_unstarted_core(c);
    throw;
  }
}

std::stop_source copy_stop_source(fiber_core* c) noexcept {
  const std::scoped_lock hold(extras_mutex());
  const fiber_extras* const extras = c->extras.get();
  return extras != nullptr ? extras->stop : std::stop_source{std::nostopstate};
}

[[gnu::noinline]] void free_extras(fiber_core* c) noexcept {
  fiber_extras* extras;
  {
    std::scoped_lock hold(extras_mutex());
    extras = c->extras.take();
  }
  delete extras;
}

[[gnu::always_inline]] inline void free_core(fiber_core* c, worker_thread* t) noexcept {
  if (!c->extras.empty()) free_extras(c);
  c->stack_class = stack_class_default;
  c->affinity = affinity_any;
  c->shields = 0;
  if (t != nullptr) t->cores.put(c);
  else put_core_to_pool(c);
}

}  // namespace

std::uint64_t take_fiber_ids(std::uint64_t count) noexcept {
  return next_fiber_id.fetch_add(count, std::memory_order_relaxed);
}

std::uint64_t ensure_id(fiber_core* c) noexcept {
  std::uint64_t id = c->id.load(std::memory_order_relaxed);
  if (id != 0) return id;
  const std::uint64_t fresh = take_fiber_ids(1);
  return c->id.compare_exchange_strong(id, fresh, std::memory_order_relaxed) ? fresh : id;
}

fiber_extras& extras_word::make() {
  std::uintptr_t w = word_.load(std::memory_order_acquire);
  if (w != 0 && (w & inherited_bit) == 0) return *reinterpret_cast<fiber_extras*>(w);
  auto fresh = std::make_unique<fiber_extras>();
  while (w == 0 || (w & inherited_bit) != 0) {
    fresh->ambient = w & ~inherited_bit;
    // Release: who finds the extras finds them made; acquire: who starts the fiber has its inherited
    // values from us, or has taken them before.
    if (word_.compare_exchange_weak(w, reinterpret_cast<std::uintptr_t>(fresh.get()),
                                    std::memory_order_acq_rel, std::memory_order_acquire))
      return *fresh.release();
  }
  fresh->ambient = 0;  // another was faster, and has them
  return *reinterpret_cast<fiber_extras*>(w);
}

std::uintptr_t extras_word::take_inherited() noexcept {
  std::uintptr_t w = word_.load(std::memory_order_acquire);
  while ((w & inherited_bit) != 0)
    if (word_.compare_exchange_weak(w, 0, std::memory_order_acq_rel, std::memory_order_acquire))
      return w & ~inherited_bit;
  return w == 0 ? 0 : std::exchange(reinterpret_cast<fiber_extras*>(w)->ambient, 0);
}

const char* name_of(const fiber_core* c) noexcept {
  const fiber_extras* const extras = c->extras.get();
  return extras != nullptr ? extras->name : "";
}

std::string copy_name_of(const fiber_core* c) {
  const std::scoped_lock hold(extras_mutex());
  return name_of(c);
}

void copy_name_of(const fiber_core* c, char* out, std::size_t size) noexcept {
  const std::scoped_lock hold(extras_mutex());
  const std::size_t length = std::string_view(name_of(c)).copy(out, size - 1);
  out[length] = '\0';
}

void set_name(fiber_core* c, std::string_view text) {
  if (text.empty()) return;
  char* const name = c->extras.make().name;
  const std::scoped_lock hold(extras_mutex());  // against copy_name_of
  const std::size_t length = text.copy(name, sizeof(fiber_extras::name) - 1);
  name[length] = '\0';
}

void reset_shell_core(fiber_core* c) noexcept {
  if (!c->extras.empty()) free_extras(c);
  c->id.store(0, std::memory_order_relaxed);
  c->affinity = affinity_any;
  c->shields = 0;
}

void free_shell_core(fiber_core* c, worker_thread& t) noexcept { free_core(c, &t); }

// ---- Creating and starting -------------------------------------------------------------------

fiber_core* allocate_core() {
  worker_thread* const t = this_worker_thread();
  return t != nullptr ? t->cores.get() : get_core_from_pool();
}

void free_unstarted_core(fiber_core* c) noexcept {
  if (c->ops != nullptr) {
    c->ops->destroy(c->closure);
    c->ops = nullptr;
  }
  release_ambient(c->extras.take_inherited());  // destructors of values, which may switch
  free_core(c, this_worker_thread());
}

void* closure_storage(fiber_core* c) noexcept { return c->closure; }
void set_closure(fiber_core* c, const closure_ops* ops) noexcept {
  c->ops = ops;
  if (ops != nullptr) note_new(c);
}

std::int8_t checked_affinity(int affinity) {
  if (affinity < -1 || affinity > 63)
    throw std::system_error(make_error_code(errc::invalid_option),
                            "fiber_options::affinity is " + std::to_string(affinity) +
                                "; it is a worker's index, or -1 for any");
  return static_cast<std::int8_t>(affinity);
}

void apply_options(fiber_core* c, const fiber_options& options) {
  if (!asks_for_nothing(options.stack)) c->stack_class = choose_stack_class(options.stack);
  c->affinity = checked_affinity(options.affinity);
  set_name(c, options.name);
}

void start_detached(fiber_core* c, scheduler* s) { start_on(c, s, detached_marker()); }
void start_joinable(fiber_core* c, scheduler* s) { start_on(c, s, nullptr); }

// ---- The end ---------------------------------------------------------------------------------

void free_ended_core(fiber_core* c, worker_thread* t) noexcept {
  c->error().~exception_ptr();
  free_core(c, t);
}

void release_handle(fiber_core* c) noexcept {
  if (c->error()) c->error() = nullptr;  // a user's destructor, which may switch
  free_ended_core(c, this_worker_thread());
}

void rethrow_from(fiber_core* c) {
  if (!c->error()) [[likely]] {
    free_core(c, this_worker_thread());
    return;
  }
  std::exception_ptr error = std::move(c->error());
  release_handle(c);
  std::rethrow_exception(std::move(error));
}

void join_core(fiber_core* c, bool cancelable) {
  if (c == nullptr)
    throw std::system_error(std::make_error_code(std::errc::invalid_argument),
                            "fiber::join: not joinable");
  if (c->done.is_set()) return;
  waiter* const self = current_waiter();
  if (self == c)
    throw std::system_error(make_error_code(errc::would_deadlock),
                            "fiber::join: a fiber cannot join itself");
  require_signalled(c->done.wait_as(self, {.cancelable = cancelable, .reason = "fiber::join"}),
                    "fiber::join");
}

void detach_core(fiber_core* c) {
  if (c == nullptr)
    throw std::system_error(std::make_error_code(std::errc::invalid_argument),
                            "fiber::detach: not joinable");
  if (c->done.install(detached_marker())) return;  // it frees itself
  if (c->error())
    scheduler::unhandled(scheduler_at(c->scheduler_index()), c, std::move(c->error()));
  release_handle(c);
}

fiber_id id_of(const fiber_core* c) noexcept {
  return fiber_id(c->id.load(std::memory_order_relaxed));
}

// ---- Stopping --------------------------------------------------------------------------------

void trigger_stop_source(fiber_core* c) noexcept {
  copy_stop_source(c).request_stop();  // without the lock: callbacks run here
}

bool request_stop(fiber_core* c) noexcept {
  const flag::word before = c->flags.fetch_or(flag::stop_requested, std::memory_order_acq_rel);
  if ((before & flag::stop_requested) != 0) return false;
  trigger_stop_source(c);
  unpark(c);
  return true;
}

std::stop_source begin_stop(fiber_core* c) noexcept {
  const flag::word before = c->flags.fetch_or(flag::stop_requested, std::memory_order_acq_rel);
  if ((before & flag::stop_requested) != 0) return std::stop_source{std::nostopstate};
  std::stop_source source = copy_stop_source(c);
  unpark(c);
  return source;
}

void fiber_extras::on_stop::operator()() const noexcept {
  core->flags.fetch_or(flag::stop_requested, std::memory_order_acq_rel);
  unpark(core);
}

std::stop_source stop_source_of(fiber_core* c) {
  fiber_extras& extras = c->extras.make();
  std::stop_source source{std::nostopstate};
  {
    std::scoped_lock hold(extras_mutex());
    if (!extras.stop.stop_possible()) {
      extras.stop = std::stop_source();
      extras.relay.emplace(extras.stop.get_token(), fiber_extras::on_stop{c});
    }
    source = extras.stop;
  }
  // A request that came before the source existed. Pairs with request_stop(): flag, then source there;
  // source, then flag here; the mutex orders them.
  if (c->stop_requested()) source.request_stop();
  return source;
}

}  // namespace detail

std::ostream& operator<<(std::ostream& out, fiber_id id) { return out << id.value(); }

unsigned fiber::hardware_concurrency() noexcept {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    return static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
  return std::max(1U, std::thread::hardware_concurrency());
}

}  // namespace tendril
