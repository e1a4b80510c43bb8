// SPDX-License-Identifier: Apache-2.0
//
// A role of E14c: what a slot that is shared costs by itself, without fibers. A loop resumes contexts by turns, each of
// which suspends itself at once: two switches, as in a round trip through the library, and no scheduler, queue or
// primitive. By the library's own routines, at two levels:
//   copies  the switch (context.hpp) and the copies (stack_image.hpp): who is to run is copied in, whom that displaces out
//   slots   the same through slot_table, with all that it does: the slot's lock, the hold of the resident, canaries,
//           the statistics; and what its protocol needs of park words, a wake-up and the commit of a departure
// Contexts with a stack each, which nobody looks for (reserved); with a slot each (hit); two that have one slot (miss).
//
// Live bytes are those that an image has in the end. A first context tells what the frames take, the rest is padding
// in the frame of the entry function. The highest 16 bytes of a stack are padding as well, for the alignment of its first
// frame. Of these `copies` leaves out 8, so that images may have the very bytes of the rows' names; slot_table does not.
//
// Both sides switch in one function, as fibers do: so the return predictor is right (switch.S).

#include "bench/support/cpu_clock.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/role.hpp"
#include "context/context.hpp"
#include "context/stack_image.hpp"
#include "platform/switch.hpp"
#include "sched/slot_guard.hpp"
#include "sched/slots.hpp"
#include "stack/guard.hpp"
#include "stack/slice_layout.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

using namespace tendril::detail;
using tendril::platform::next_context;

constexpr std::size_t stack_bytes = std::size_t{64} << 10;
constexpr std::size_t left_out = 8;
constexpr unsigned clients_of_a_trip = 2;

/// The loop, or who is resumed by it.
struct side {
  context* mine = nullptr;
  side* peer = nullptr;  ///< of the loop: who is next
  void (*before)(side&) = nullptr;
  std::int64_t turns = std::numeric_limits<std::int64_t>::max();
  std::size_t padding = 0;
  std::int64_t served = 0;
};

[[gnu::noinline]] void take_turns(side& s) {
  for (; s.turns != 0; --s.turns) {
    s.before(s);
    switch_context(*s.mine, *s.peer->mine, s.peer);
  }
}

void count(side& client) { ++client.served; }

[[gnu::noinline]] next_context client_main(void* transfer) {
  enter_context();
  side& client = *static_cast<side*>(transfer);
  void* const padding = __builtin_alloca(client.padding);
  asm volatile("" : : "r"(padding) : "memory");
  take_turns(client);
  std::abort();
}

struct alignas(64) stack_memory {
  std::array<std::byte, stack_bytes> bytes;
  std::byte* low() { return bytes.data(); }
  std::byte* high() { return bytes.data() + bytes.size(); }
};

std::size_t live_bytes_of(const context& c, const std::byte* high) {
  return static_cast<std::size_t>(high - static_cast<const std::byte*>(c.sp));
}

/// Of who has none of his own.
std::size_t padding_for(std::size_t live) {
  const auto stack = std::make_unique<stack_memory>();
  context here;
  context there;
  here.adopt_thread();
  there.make(stack->low(), stack->high(), &client_main);
  side main{.mine = &here};
  side client{.mine = &there, .peer = &main, .before = count};
  switch_context(here, there, &client);
  const std::size_t frames = live_bytes_of(there, stack->high()) - left_out;
  there.destroy();
  return live > frames ? live - frames : 0;
}

/// How many bytes of each client are to be live; where they are.
struct setting {
  enum class where { own_stacks, own_slots, one_slot } place;
  std::size_t live;
};

// ---- Switch and copies ---------------------------------------------------------------------------

class copies {
 public:
  struct client : side {
    context stack;
    stack_image image;
    std::size_t home = 0;
  };

  explicit copies(setting s) : looks_(s.place != setting::where::own_stacks) {
    for (std::size_t i = 0; i != clients_.size(); ++i) {
      client& c = clients_[i];
      c.home = s.place == setting::where::one_slot ? 0 : i;
      c.mine = &c.stack;
    }
  }
  ~copies() {
    for (client& c : clients_) c.stack.destroy();
  }
  copies(const copies&) = delete;
  copies& operator=(const copies&) = delete;

  client& at(std::size_t i) { return clients_[i]; }

  void bring_in(client& c) {
    if (!looks_ && c.stack.sp != nullptr) return;
    place& p = places_[c.home];
    if (p.resident == &c) return;
    if (client* const r = p.resident)
      if (!r->image.capture(static_cast<const std::byte*>(r->stack.sp), top(p)))
        throw std::bad_alloc();
    p.resident = &c;
    if (c.stack.sp != nullptr) c.image.restore(top(p), {});
    else c.stack.make(p.memory->low(), p.memory->high(), &client_main);
  }

  std::size_t live_bytes() const { return clients_[0].image.bytes(); }

 private:
  struct place {
    std::unique_ptr<stack_memory> memory = std::make_unique<stack_memory>();
    client* resident = nullptr;
  };
  static std::byte* top(place& p) { return p.memory->high() - left_out; }

  const bool looks_;
  std::array<place, clients_of_a_trip> places_;
  std::array<client, clients_of_a_trip> clients_;
};

// ---- Through slot_table --------------------------------------------------------------------------

class slots {
 public:
  struct client : side {
    fiber_core core;
    tasklet_frame frame{&core};
  };

  explicit slots(setting s)
      : table_({.size_class = size_class_for(stack_bytes, 4096),
                .most = s.place == setting::where::one_slot ? 1 : clients_of_a_trip,
                .at_first = clients_of_a_trip,
                .guard = choose_guard_mode(nullptr),
                .strict = false,
                .entry = &client_main,
                .evict_after = slot_options::never,
                .pack_after = slot_options::never}) {
    for (client& c : clients_) {
      c.mine = &c.core.ctx;
      c.core.stack_class = any_tasklet;
      c.core.enter(spot::away);
      c.core.frame.store(&c.frame, std::memory_order_relaxed);
    }
  }
  ~slots() {
    commit();
    for (client& c : clients_) {
      bring_in(c);
      left_ = nullptr;
      c.core.ctx.destroy();
      table_.retire(c.frame, cache_, others_);
    }
    table_.take_back(cache_);
  }
  slots(const slots&) = delete;
  slots& operator=(const slots&) = delete;

  client& at(std::size_t i) { return clients_[i]; }

  /// In the order in which a worker does it.
  void bring_in(client& c) {
    commit();
    left_ = &c;
    fiber_core& core = c.core;
    if (c.frame.started && !core.park.unpark()) throw std::logic_error("a client was not parked");
    if (core.is_at(spot::idle)) core.leave(spot::idle);
    if (core.is_at(spot::guarded)) check_slot_guard(core);
    if (core.is_at(spot::away) && table_.enter(core, cache_, others_) != slot_table::entrance::in)
      throw std::logic_error("a slot was not to be had");
  }

  std::size_t live_bytes() const { return clients_[0].frame.image.bytes(); }

 private:
  /// The departure of who has just run.
  void commit() {
    if (left_ == nullptr) return;
    guard_slot(left_->core, slot_low(left_->core));
    if (!left_->core.park.commit_park()) throw std::logic_error("a client was not to be woken");
    left_ = nullptr;
  }

  slot_table table_;
  slot_cache cache_;
  made_runnable others_;
  client* left_ = nullptr;
  std::array<client, clients_of_a_trip> clients_;
};

// ---- Round trips ---------------------------------------------------------------------------------

struct trips {
  trips() = default;
  trips(const trips&) = delete;
  trips& operator=(const trips&) = delete;
  virtual ~trips() = default;
  /// What one of n takes. Throws std::logic_error if one was left out.
  virtual double run(std::int64_t n) = 0;
  virtual std::size_t live_bytes() const = 0;
};

template <class Level>
class trips_of final : public trips {
 public:
  explicit trips_of(setting s) : level_(s), loop_(level_) {
    for (std::size_t i = 0; i != clients_of_a_trip; ++i) {
      side& c = level_.at(i);
      c.peer = &loop_;
      c.before = count;
      c.padding = padding_for(s.live);
    }
    run_loop(2 * clients_of_a_trip);
  }

  double run(std::int64_t n) override {
    const std::int64_t before = served();
    const double begin = process_cpu_ns();
    run_loop(n);
    const double took = process_cpu_ns() - begin;
    if (served() - before != n) throw std::logic_error("round trips were left out");
    return took / static_cast<double>(n);
  }
  std::size_t live_bytes() const override { return level_.live_bytes(); }

 private:
  struct loop : side {
    explicit loop(Level& l) : level(l) {
      mine = &here;
      here.adopt_thread();
      before = [](side& s) {
        auto& self = static_cast<loop&>(s);
        auto& c = self.level.at(self.next);
        self.next ^= 1;
        self.level.bring_in(c);
        self.peer = &c;
      };
    }
    Level& level;
    context here;
    std::size_t next = 0;
  };

  void run_loop(std::int64_t n) {
    loop_.turns = n;
    take_turns(loop_);
  }
  /// A client counts when it is about to suspend itself.
  std::int64_t served() { return level_.at(0).served + level_.at(1).served; }

  Level level_;
  loop loop_;
};

struct row {
  const char* name;
  setting what;
};
constexpr row rows[] = {{"reserved", {setting::where::own_stacks, 0}},
                        {"hit", {setting::where::own_slots, 0}},
                        {"hit_16k", {setting::where::own_slots, 16'384}},
                        {"miss_144", {setting::where::one_slot, 144}},
                        {"miss_1k", {setting::where::one_slot, 1'024}},
                        {"miss_4k", {setting::where::one_slot, 4'096}},
                        {"miss_16k", {setting::where::one_slot, 16'384}}};

/// Reports ns, ratio and bytes of each row, "copies_miss_1k" and so on.
int shared_slot(const arguments& args, role_output& out) {
  tendril::platform::prepare_switch();  // as a runtime does
  const std::int64_t n = args.number("operations");
  std::vector<std::string> names;
  std::vector<std::unique_ptr<trips>> all;
  std::vector<contestant> contestants;
  for (const row& r : rows) {
    for (const std::string level : {"copies", "slots"}) {
      if (level == "slots" && r.what.place == setting::where::own_stacks) continue;
      trips* t;
      if (level == "copies") t = all.emplace_back(std::make_unique<trips_of<copies>>(r.what)).get();
      else t = all.emplace_back(std::make_unique<trips_of<slots>>(r.what)).get();
      names.push_back(level + "_" + r.name);
      contestants.push_back({names.back(), [t, n] { return t->run(n); }});
    }
  }
  const interleaved found(contestants, 2, static_cast<unsigned>(args.number("cycles")),
                          static_cast<std::uint64_t>(args.number("seed")));
  for (std::size_t i = 0; i != names.size(); ++i) {
    const std::string& name = names[i];
    out.send("ns:" + name, found.of(name).median);
    out.send("ratio:" + name, found.ratio(name, "copies_reserved").median);
    out.send("bytes:" + name, static_cast<double>(all[i]->live_bytes()));
  }
  return 0;
}
const role_registration shared_slot_role("shared-slot", shared_slot);

}  // namespace
}  // namespace bench
