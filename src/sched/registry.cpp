// SPDX-License-Identifier: Apache-2.0
#include "sched/registry.hpp"

#include "sched/core_pool.hpp"
#include "sched/parked.hpp"
#include "sched/scheduler.hpp"

#include <array>
#include <atomic>
#include <mutex>
#include <sstream>
#include <system_error>

namespace tendril::detail {

std::atomic<std::uint64_t> serial_of_latest{0};

namespace {

constexpr unsigned table_size = 256;
std::array<std::atomic<scheduler*>, table_size> table{};
std::mutex table_mutex;
std::array<scheduler*, table_size> by_age{};  // oldest first, guarded by table_mutex
unsigned registered = 0;
std::atomic<scheduler*> latest{nullptr};
std::uint64_t last_serial = 0;

bool belongs_to(const fiber_core& c, const scheduler& s) noexcept {
  const flag::word flags = c.flags.load(std::memory_order_acquire);
  return (flags & flag::alive) != 0 &&
         (flags & flag::scheduler_mask) >> flag::scheduler_shift == s.table_index();
}

}  // namespace

unsigned register_scheduler(scheduler& s, std::uint64_t& serial) {
  std::scoped_lock hold(table_mutex);
  for (unsigned i = 0; i != table_size; ++i) {
    if (table[i].load(std::memory_order_relaxed) != nullptr) continue;
    forget_epoch(i);
    table[i].store(&s, std::memory_order_release);
    by_age[registered++] = &s;
    serial = ++last_serial;
    serial_of_latest.store(serial, std::memory_order_release);
    latest.store(&s, std::memory_order_release);
    return i;
  }
  throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again),
                          "tendril: 256 runtimes are running, the most there can be");
}

void unregister_scheduler(scheduler& s) noexcept {
  std::scoped_lock hold(table_mutex);
  table[s.table_index()].store(nullptr, std::memory_order_release);
  unsigned kept = 0;
  for (unsigned i = 0; i != registered; ++i)
    if (by_age[i] != &s) by_age[kept++] = by_age[i];
  registered = kept;
  latest.store(kept != 0 ? by_age[kept - 1] : nullptr, std::memory_order_release);
  serial_of_latest.store(kept != 0 ? by_age[kept - 1]->serial() : 0, std::memory_order_release);
}

bool with_scheduler(std::uint64_t serial, void (*use)(scheduler&, void*), void* argument) {
  std::scoped_lock hold(table_mutex);
  for (unsigned i = 0; i != registered; ++i) {
    if (by_age[i]->serial() != serial) continue;
    use(*by_age[i], argument);
    return true;
  }
  return false;
}

void for_each_scheduler(void (*f)(scheduler&, void*), void* argument) {
  std::scoped_lock hold(table_mutex);
  for (unsigned i = 0; i != registered; ++i) f(*by_age[i], argument);
}

scheduler* scheduler_at(unsigned index) noexcept {
  return table[index].load(std::memory_order_acquire);
}

scheduler* latest_scheduler() noexcept { return latest.load(std::memory_order_acquire); }

void stop_all_fibers(scheduler& s) noexcept {
  for_each_core(
      [](fiber_core& c, void* argument) {
        auto& owner = *static_cast<scheduler*>(argument);
        flag::word flags = c.flags.load(std::memory_order_acquire);
        do {
          // A core that is recycled under our eyes fails the comparison, or is a fiber of s again.
          if ((flags & flag::alive) == 0 || (flags & flag::stop_requested) != 0 ||
              !belongs_to(c, owner))
            return;
        } while (!c.flags.compare_exchange_weak(flags, flags | flag::stop_requested,
                                                std::memory_order_acq_rel,
                                                std::memory_order_acquire));
        trigger_stop_source(&c);
        unpark(&c);
      },
      &s);
}

std::string list_fibers(const scheduler& s) {
  struct listing {
    const scheduler& owner;
    std::ostringstream text;
    unsigned listed = 0;
    unsigned more = 0;
  } l{s, {}, 0, 0};
  for_each_core(
      [](fiber_core& c, void* argument) {
        auto& out = *static_cast<listing*>(argument);
        if (!belongs_to(c, out.owner)) return;
        constexpr unsigned most = 100;
        if (out.listed == most) {
          ++out.more;
          return;
        }
        const std::uint64_t id = c.id.load(std::memory_order_relaxed);
        const fiber_frame* const f = c.frame.load(std::memory_order_acquire);
        const bool parked = c.park.looks_parked();
        const char* const reason = f != nullptr ? f->block.reason.load() : nullptr;
        const std::string name = copy_name_of(&c);
        // If it has ended meanwhile, what was read may be another's, or no reason at all.
        std::atomic_thread_fence(std::memory_order_acquire);
        if (!belongs_to(c, out.owner) || c.id.load(std::memory_order_relaxed) != id ||
            c.frame.load(std::memory_order_relaxed) != f)
          return;
        ++out.listed;
        out.text << "  fiber " << id << " '" << name << "': ";
        if (f == nullptr) out.text << "not started\n";
        else if (!parked) out.text << "runnable or running\n";
        else if (reason != nullptr) out.text << "parked in " << reason << '\n';
        else out.text << "parked\n";
      },
      &l);
  if (l.more != 0) l.text << "  and " << l.more << " more\n";
  return l.text.str();
}

}  // namespace tendril::detail
