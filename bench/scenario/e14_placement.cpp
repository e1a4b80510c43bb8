// SPDX-License-Identifier: Apache-2.0
//
// E14p: how often does a tasklet find its stack still in its slot, when there are more tasklets than slots? Clients
// wait, each for its own semaphore; one fiber wakes them, batch by batch, as a trace says (e14_traces.hpp), and waits for
// each batch. The same trace runs with different numbers of slots and with reserved fibers, slice by
// slice in random order in one process.
//   hit          resumed where it stood; else its bytes had to be copied back
//   lru, best    what a cache of so many places would reach, in which any client may take any place
//   conflicts    a tasklet waited because the resident of its slot was about to run itself
//   slots made   of those allowed
// Hits and copies are counted by the library over the recorded slices, those of the server trace with the connections
// that come and go. With one worker they are the same in each run of one seed; the times are not.
//
// Does not show: what a copy costs by its size (E14c), I/O (E7).

#include "bench/scenario/e14_traces.hpp"
#include "bench/scenario/live_bytes.hpp"
#include "bench/scenario/runs_by_turns.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/semaphore.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace bench {
namespace {

constexpr std::uint64_t trace_seed = 14;
/// With what the wait itself takes, about a kilobyte of each client is live.
constexpr std::size_t frame_bytes = 320;

struct setting {
  std::string trace;
  std::uint32_t clients;
  unsigned workers;
  long wakes;  ///< of a slice

  arguments to_arguments() const {
    return {{"trace", trace},
            {"clients", std::to_string(clients)},
            {"workers", std::to_string(workers)},
            {"wakes", std::to_string(wakes)}};
  }
  static setting from(const arguments& args) {
    return {args.text("trace"), static_cast<std::uint32_t>(args.number("clients")),
            static_cast<unsigned>(args.number("workers")), args.number("wakes")};
  }
};

/// A runtime with the clients of one trace.
class population {
 public:
  /// slots: 0 for fibers on reserved stacks.
  population(const setting& s, std::size_t slots)
      : setting_(s),
        trace_(s.trace, s.clients, trace_seed),
        kind_(slots == 0 ? tendril::stack_kind::reserved : tendril::stack_kind::tasklet),
        runtime_(options_of(s, slots)) {
    clients_.resize(s.clients);
    runtime_.run([this] {
      for (std::unique_ptr<client>& place : clients_) start(place);
    });
  }

  ~population() {
    for (const std::unique_ptr<client>& c : clients_) {
      c->last = true;
      c->wake.release();
    }
  }
  population(const population&) = delete;
  population& operator=(const population&) = delete;

  /// Of CPU, for each wake-up.
  double slice_ns() {
    before_ = runtime_.stats().tasklets;
    const auto ns = std::make_unique<double>();
    runtime_.run([this, &ns = *ns] {
      const cpu_stopwatch time;
      for (long done = 0; done < setting_.wakes;) done += wake_batch();
      ns = time.ns() / static_cast<double>(setting_.wakes);
    });
    const tendril::tasklet_stats now = runtime_.stats().tasklets;
    counted_.captures += now.captures - before_.captures;
    counted_.restores += now.restores - before_.restores;
    counted_.bytes_copied += now.bytes_copied - before_.bytes_copied;
    counted_.conflicts += now.conflicts - before_.conflicts;
    counted_.slots = now.slots;
    ++slices_;
    return *ns;
  }
  /// Forgets what was counted so far.
  void recorded_from_here() {
    counted_ = {};
    slices_ = 0;
  }
  const tendril::tasklet_stats& counted() const noexcept { return counted_; }
  double wakes() const noexcept { return static_cast<double>(slices_ * setting_.wakes); }

 private:
  struct client {
    tendril::counting_semaphore<> wake{0};
    bool last = false;
  };

  static tendril::runtime_options options_of(const setting& s, std::size_t slots) {
    tendril::runtime_options o;
    o.workers = s.workers;
    o.stack.kind = tendril::stack_kind::reserved;  // the clients' is their own
    if (slots != 0) o.tasklets.slots = slots;
    return o;
  }

  void start(std::unique_ptr<client>& place) {
    place = std::make_unique<client>();
    tendril::fiber_options options;
    options.stack.kind = kind_;
    tendril::spawn(options,
                   [this, &c = *place] { with_live_bytes(frame_bytes, [this, &c] { serve(c); }); });
  }

  void serve(client& c) {
    for (bool last = false; !last;) {
      // As a server waits: not for ever.
      if (!c.wake.try_acquire_for(std::chrono::hours(1))) continue;
      last = c.last;  // read before the driver may go on and free it
      if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) batch_done_.release();
    }
  }

  long wake_batch() {
    const std::vector<wake>& batch = trace_.next_batch();
    running_.store(static_cast<int>(batch.size()), std::memory_order_relaxed);
    for (const wake& w : batch) {
      clients_[w.place]->last = w.last;
      clients_[w.place]->wake.release();
    }
    batch_done_.acquire();
    for (const wake& w : batch)
      if (w.last) start(clients_[w.place]);
    return static_cast<long>(batch.size());
  }

  const setting setting_;
  wake_trace trace_;
  const tendril::stack_kind kind_;
  std::vector<std::unique_ptr<client>> clients_;
  std::atomic<int> running_{0};
  tendril::counting_semaphore<> batch_done_{0};
  tendril::tasklet_stats before_;
  tendril::tasklet_stats counted_;
  long slices_ = 0;
  tendril::runtime runtime_;  // ends first: its fibers use the rest
};

std::vector<std::size_t> numbers_in(const std::string& list) {
  std::vector<std::size_t> all;
  for (std::size_t at = 0; at < list.size();) {
    const std::size_t end = std::min(list.find('+', at), list.size());
    all.push_back(std::stoul(list.substr(at, end - at)));
    at = end + 1;
  }
  return all;
}

/// --slots 64+256: those limits. Reports "64:ns" and so on, and "reserved:ns".
int placement(const arguments& args, role_output& out) {
  const setting s = setting::from(args);
  const auto warm_up = static_cast<unsigned>(args.number("warm-up"));
  const auto cycles = static_cast<unsigned>(args.number("cycles"));
  std::vector<std::unique_ptr<population>> all;
  std::vector<contestant> contestants;
  for (const std::size_t slots : numbers_in("0+" + args.text("slots"))) {
    population& p = *all.emplace_back(std::make_unique<population>(s, slots));
    contestants.push_back(
        {slots == 0 ? "reserved" : std::to_string(slots), [&p, warm_up, n = 0U]() mutable {
           if (n++ == warm_up) p.recorded_from_here();
           return p.slice_ns();
         }});
  }
  const interleaved found(contestants, warm_up, cycles,
                          static_cast<std::uint64_t>(args.number("seed")));
  for (std::size_t i = 0; i != all.size(); ++i) {
    const std::string& name = contestants[i].name;
    out.send(name + ":ns", found.of(name).median);
    if (name == "reserved") continue;
    const tendril::tasklet_stats& counted = all[i]->counted();
    const double wakes = all[i]->wakes();
    const auto a_wake = [&](std::uint64_t n) { return static_cast<double>(n) / wakes; };
    out.send(name + ":ratio", found.ratio(name, "reserved").median);
    out.send(name + ":hits", 1 - a_wake(counted.restores));
    out.send(name + ":conflicts", 1'000 * a_wake(counted.conflicts));
    out.send(name + ":bytes", a_wake(counted.bytes_copied));
    out.send(name + ":live",
             a_wake(counted.bytes_copied) / a_wake(counted.captures + counted.restores));
    out.send(name + ":made", static_cast<double>(counted.slots));
    const auto slice = static_cast<std::size_t>(s.wakes);
    const cache_yardstick y =
        yardstick_of(wake_trace(s.trace, s.clients, trace_seed),
                     static_cast<std::size_t>(std::stoul(name)), warm_up * slice, cycles * slice);
    out.send(name + ":lru", y.least_recent);
    out.send(name + ":best", y.best);
  }
  return 0;
}
const role_registration placement_role("tasklet-placement", placement);

std::string percent(double share) { return fixed(100 * share, 1); }

void run(context& ctx) {
  const unsigned cycles = ctx.pick(9U, 41U);
  constexpr unsigned warm_up = 2;
  const long wakes = ctx.pick(8'000L, 32'000L);
  const std::uint64_t seed = new_seed();
  std::printf(
      "  %u slices of %ld wake-ups in batches of %zu, after %u; medians of CPU "
      "time; seed %llu\n",
      cycles, wakes, wake_trace::batch_size, warm_up, static_cast<unsigned long long>(seed));
  table out({"trace", "clients", "workers", "slots", "made", "hit %", "lru %", "best %",
             "conflicts/1000", "bytes/copy", "bytes/resume", "ns/resume", "reserved ns", "ratio"});
  const auto measure = [&](const char* trace, std::uint32_t clients, unsigned workers,
                           const std::vector<std::size_t>& limits) {
    setting at;
    at.trace = trace;
    at.clients = clients;
    at.workers = workers;
    at.wakes = wakes;
    const std::string variant = "fiber/tasklet";
    ctx.attempt(variant, [&] {
      arguments args = at.to_arguments();
      std::string slots;
      for (const std::size_t n : limits) {
        if (!slots.empty()) slots += '+';
        slots += std::to_string(n);
      }
      args.set("slots", slots);
      args.set("warm-up", std::to_string(warm_up));
      args.set("cycles", std::to_string(cycles));
      args.set("seed", std::to_string(seed));
      auto r =
          run_role("tasklet-placement", args, at.workers == 1 ? usable_cores().front() : any_core);
      const auto describe = [&](std::size_t n) {
        parameters p{{"trace", at.trace},     {"clients", at.clients},
                     {"workers", at.workers}, {"wakes_in_slice", wakes},
                     {"cycles", cycles},      {"batch", wake_trace::batch_size}};
        if (n != 0) {
          p.emplace_back("slots", n);
          const double live = r.at(std::to_string(n) + ":live");
          if (!std::isnan(live)) p.emplace_back("live_bytes", live);
        }
        return p;
      };
      ctx.add("fiber/reserved", "ns_per_resume", r.at("reserved:ns"), "ns", describe(0));
      for (const std::size_t n : limits) {
        const auto of = [&](const char* what) { return r.at(std::to_string(n) + ":" + what); };
        const parameters params = describe(n);
        ctx.add(variant, "hit_rate", of("hits"), "ratio", params);
        ctx.add(variant, "hit_rate_of_lru_cache", of("lru"), "ratio", params);
        ctx.add(variant, "hit_rate_of_best_cache", of("best"), "ratio", params);
        ctx.add(variant, "conflicts_per_1000_resumes", of("conflicts"), "", params);
        ctx.add(variant, "bytes_copied_per_resume", of("bytes"), "bytes", params);
        ctx.add(variant, "slots_made", of("made"), "", params);
        ctx.add(variant, "ns_per_resume", of("ns"), "ns", params);
        ctx.add(variant, "ratio_to_reserved", of("ratio"), "ratio", params);
        out.row({at.trace, fixed(at.clients, 0), fixed(at.workers, 0),
                 fixed(static_cast<double>(n), 0), fixed(of("made"), 0), percent(of("hits")),
                 percent(of("lru")), percent(of("best")), fixed(of("conflicts"), 2),
                 fixed(of("live"), 0), fixed(of("bytes"), 0), fixed(of("ns"), 0),
                 fixed(r.at("reserved:ns"), 0), fixed(of("ratio"), 2)});
      }
    });
  };
  const std::uint32_t connections = ctx.pick(10'000U, 100'000U);
  measure("uniform", 1'024, 1, {64, 256, 512, 896, 1'024});
  measure("skew", 1'024, 1, {64, 128, 256, 512});
  measure("server", connections, 1, {32, 64, 128, 256, 1'024, 4'096});
  measure("server", connections, 2, {64, 256, 1'024});
  out.print();
}

const registration entry(
    {"E14p",
     "placement of tasklets: who shares a slot with whom",
     "hits, conflicts and copied bytes with fewer slots than tasklets, on three "
     "traces, beside what a cache could reach",
     "costs of a copy by its size (E14c), I/O (E7)",
     {"fiber/reserved", "fiber/tasklet"},
     run});

}  // namespace
}  // namespace bench
