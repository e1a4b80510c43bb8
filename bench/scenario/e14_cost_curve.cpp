// SPDX-License-Identifier: Apache-2.0
//
// E14c: what does a wait cost by what is live on the stack? Four questions, each answered by slices of
// all variants in random order, in several processes:
//   round trips  wake a fiber that waits and have it wait again, two clients by turns: on reserved stacks;
//                tasklets in their slots (hit); tasklets that share one slot, so that each resume copies one image in
//                and another out (miss), at the bytes that the library counts. Where the client merely yields, it has as
//                few as a fiber can have (least): there the wake-up and the wait are left out
//   mechanism    the same two switches and two copies without fibers, from 144 bytes on, and with what slot_table does
//                besides (e14_shared_slot.cpp); beside the round trips it tells what of them is the copies
//   cold         round trips with 4,096 clients in turn: caches have forgotten stacks and images
//   lives        create, call down 1, 10 or 100 frames, wait, resume, return, end: one at a time, and 1,000 at once of
//                which 64 have slots; beside coroutine chains (deep_lives.hpp)
// CPU time. The ratios are medians of those within one cycle.
//
// Does not show: memory, and 10,000 chains at once (E14); which tasklets meet (E14p).

#include "bench/scenario/deep_lives.hpp"
#include "bench/scenario/tasklet_round_trips.hpp"
#include "bench/support/cpu_clock.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

constexpr std::size_t cold_clients = 4'096;
constexpr std::size_t cold_slots = 64;
constexpr std::size_t lives_at_once = 1'000;
constexpr std::size_t slots_of_many = 64;

struct trip {
  const char* name;
  round_trips::setting setting;
};
const trip hot_trips[] = {
    {"reserved", {0, 2, 0}},
    {"hit", {64, 2, 0}},
    {"miss", {1, 2, 0}},
    {"miss_1k", {1, 2, live_1k}},
    {"miss_4k", {1, 2, live_4k}},
    {"miss_16k", {1, 2, live_16k}},
    {"hit_16k", {64, 2, live_16k}},
    {"reserved_least", {0, 1, 0, true}},
    {"hit_least", {64, 1, 0, true}},
    {"miss_least", {1, 2, 0, true}},
};
const trip cold_trips[] = {
    {"reserved", {0, cold_clients, 0}},
    {"miss", {cold_slots, cold_clients, 0}},
    {"miss_1k", {cold_slots, cold_clients, live_1k}},
    {"miss_4k", {cold_slots, cold_clients, live_4k}},
    {"miss_16k", {cold_slots, cold_clients, live_16k}},
};

struct mechanism_row {
  std::string level, place;
};
const mechanism_row mechanism_rows[] = {
    {"copies", "reserved"}, {"copies", "hit"},      {"copies", "miss_144"}, {"copies", "miss_1k"},
    {"copies", "miss_4k"},  {"copies", "miss_16k"}, {"copies", "hit_16k"},  {"slots", "hit"},
    {"slots", "miss_144"},  {"slots", "miss_1k"},   {"slots", "miss_4k"},   {"slots", "miss_16k"},
    {"slots", "hit_16k"},
};

/// What its ratio is to.
std::string reference_of(const std::string& trip) {
  return trip.find("_least") == std::string::npos ? "reserved" : "reserved_least";
}

template <std::size_t N>
void measure_trips(const trip (&trips)[N], const arguments& args, role_output& out) {
  const std::int64_t n = args.number("operations");
  std::vector<std::unique_ptr<round_trips>> all;
  std::vector<contestant> contestants;
  for (const trip& t : trips) {
    round_trips& r = *all.emplace_back(std::make_unique<round_trips>(t.setting));
    contestants.push_back(
        {t.name, [&r, n] { return r.run(n, process_cpu_ns) / static_cast<double>(n); }});
  }
  const interleaved found(contestants, 2, static_cast<unsigned>(args.number("cycles")),
                          static_cast<std::uint64_t>(args.number("seed")));
  for (std::size_t i = 0; i != N; ++i) {
    const std::string name = trips[i].name;
    out.send("ns:" + name, found.of(name).median);
    out.send("ratio:" + name, found.ratio(name, reference_of(name)).median);
    out.send("bytes:" + name, all[i]->bytes_of_a_copy());
  }
}

const char* const models[] = {"reserved", "tasklet", "thunk", "thunk_tasklet",
                              "task",     "lean",    "async1"};

void measure_lives(long depth, std::size_t at_once, const arguments& args, role_output& out) {
  const auto lives = static_cast<std::int64_t>(
      std::max<std::size_t>(static_cast<std::size_t>(args.number("operations")) / at_once, 1) *
      at_once);
  std::vector<std::unique_ptr<deep_lives>> all;
  std::vector<contestant> contestants;
  for (const char* const model : models) {
    deep_lives& l =
        *all.emplace_back(std::make_unique<deep_lives>(model, depth, at_once, slots_of_many));
    contestants.push_back(
        {model, [&l, lives] { return l.run(lives, process_cpu_ns) / static_cast<double>(lives); }});
  }
  const interleaved found(contestants, 1, static_cast<unsigned>(args.number("cycles")),
                          static_cast<std::uint64_t>(args.number("seed")));
  for (const char* const model : models) {
    const std::string name = model;
    out.send("ns:" + name, found.of(name).median);
    out.send("ratio:" + name, found.ratio(name, "reserved").median);
    out.send("of_task:" + name, found.ratio("task", name).median);
    out.send("of_lean:" + name, found.ratio("lean", name).median);
  }
}

int tasklet_costs(const arguments& args, role_output& out) {
  const std::string part = args.text("part");
  if (part == "round-trips") measure_trips(hot_trips, args, out);
  else if (part == "cold") measure_trips(cold_trips, args, out);
  else if (part == "lives")
    measure_lives(args.number("depth"), static_cast<std::size_t>(args.number("at-once")), args,
                  out);
  else
    throw std::invalid_argument("unknown --part '" + part + "'; known: round-trips, cold, lives");
  return 0;
}
const role_registration tasklet_costs_role("tasklet-costs", tasklet_costs);

std::string variant_of(const std::string& name) {
  if (name.rfind("reserved", 0) == 0) return "fiber/reserved";
  if (name == "tasklet" || name.rfind("hit", 0) == 0 || name.rfind("miss", 0) == 0)
    return "fiber/tasklet";
  if (name == "thunk_tasklet") return "thunk/tasklet";
  return name == "thunk" ? "thunk/reserved" : name;
}

class curve {
 public:
  explicit curve(context& ctx) : ctx_(ctx), processes_(ctx.pick(3U, 9U)), seed_(new_seed()) {}

  void run() {
    std::printf(
        "  one worker on one core; medians over %u processes of the medians of %u slices; "
        "seed %llu\n",
        processes_, cycles(), static_cast<unsigned long long>(seed_));
    table trips({"round trip", "clients", "live bytes", "ns", "more than a hit", "of reserved"});
    show_trips(hot_trips, "round-trips", trips);
    show_mechanism(trips);
    show_trips(cold_trips, "cold", trips);
    trips.print();
    std::printf("\n");
    table lives(
        {"life", "frames", "at once", "ns", "of reserved", "task is slower", "lean is slower"});
    for (const std::size_t at_once : {std::size_t{1}, lives_at_once})
      for (const long depth : {1L, 10L, 100L}) show_lives(depth, at_once, lives);
    lives.print();
  }

 private:
  unsigned cycles() const { return ctx_.pick(7U, 31U); }

  std::map<std::string, double> measured(const char* role, arguments args, long operations) {
    args.set("operations", std::to_string(operations));
    args.set("cycles", std::to_string(cycles()));
    args.set("seed", std::to_string(seed_));
    return run_role_in_processes(role, args, processes_, usable_cores().front());
  }

  template <std::size_t N>
  void show_trips(const trip (&trips)[N], const char* part, table& out) {
    ctx_.attempt("fiber/tasklet", [&] {
      auto r = measured("tasklet-costs", {{"part", part}}, ctx_.pick(8'192L, 65'536L));
      const bool cold = part == std::string("cold");
      for (const trip& t : trips) {
        const std::string name = t.name;
        const auto of = [&](const char* what) { return r.at(what + (":" + name)); };
        const std::string metric = cold ? "cold_" : "";
        const parameters params{{"place", name},
                                {"clients", t.setting.clients},
                                {"slots", t.setting.slots},
                                {"live_bytes", of("bytes")},
                                {"processes", processes_}};
        const std::string in_place = reference_of(name);
        const std::string hit = in_place == "reserved" ? "hit" : "hit_least";
        const double more = of("ns") - r.at("ns:" + (cold ? in_place : hit));
        ctx_.add(variant_of(name), metric + "round_trip_ns", of("ns"), "ns", params);
        ctx_.add(variant_of(name), metric + "round_trip_ratio_to_reserved", of("ratio"), "ratio",
                 params);
        out.row({cold ? "cold " + name : name, fixed(static_cast<double>(t.setting.clients), 0),
                 fixed(of("bytes"), 0), fixed(of("ns"), 1), fixed(more, 1), fixed(of("ratio"), 2)});
      }
    });
  }

  /// What has no fibers: contexts, with a stack each or by turns on one.
  void show_mechanism(table& out) {
    if (find_role("shared-slot") == nullptr) {
      std::printf("  without the mechanism alone: a shared library does not show its parts\n");
      return;
    }
    ctx_.attempt("context/tasklet", [&] {
      const auto r = measured("shared-slot", {}, 32'768);
      for (const auto& [level, place] : mechanism_rows) {
        const std::string name = level + "_" + place;
        const double ns = r.at("ns:" + name);
        const double bytes = r.at("bytes:" + name);
        const double ratio = r.at("ratio:" + name);
        const parameters params{
            {"place", place}, {"clients", 2}, {"live_bytes", bytes}, {"processes", processes_}};
        const std::string variant = place == "reserved" ? "context/reserved" : "context/tasklet";
        ctx_.add(variant, level + "_round_trip_ns", ns, "ns", params);
        ctx_.add(variant, level + "_round_trip_ratio_to_reserved", ratio, "ratio", params);
        out.row({level + " alone, " + place, "2", fixed(bytes, 0), fixed(ns, 1),
                 fixed(ns - r.at("ns:" + level + "_hit"), 1), fixed(ratio, 2)});
      }
    });
  }

  void show_lives(long depth, std::size_t at_once, table& out) {
    ctx_.attempt("fiber/tasklet", [&] {
      const long operations = depth == 100 ? 2'000 : 8'000;
      auto r = measured("tasklet-costs",
                        {{"part", "lives"},
                         {"depth", std::to_string(depth)},
                         {"at-once", std::to_string(at_once)}},
                        ctx_.pick(operations, 4 * operations));
      for (const char* const model : models) {
        const std::string name = model;
        const auto of = [&](const char* what) { return r.at(what + (":" + name)); };
        const parameters params{{"frames", depth},
                                {"at_once", at_once},
                                {"slots", slots_of_many},
                                {"processes", processes_}};
        const std::string variant = variant_of(name);
        ctx_.add(variant, "life_ns", of("ns"), "ns", params);
        ctx_.add(variant, "life_ratio_to_reserved", of("ratio"), "ratio", params);
        ctx_.add(variant, "times_faster_than_task", of("of_task"), "ratio", params);
        ctx_.add(variant, "times_faster_than_lean", of("of_lean"), "ratio", params);
        out.row({variant, fixed(static_cast<double>(depth), 0),
                 fixed(static_cast<double>(at_once), 0), fixed(of("ns"), 0), fixed(of("ratio"), 2),
                 fixed(of("of_task"), 2), fixed(of("of_lean"), 2)});
      }
    });
  }

  context& ctx_;
  const unsigned processes_;
  const std::uint64_t seed_;
};

void run(context& ctx) { curve(ctx).run(); }

const registration entry({"E14c",
                          "the cost of a wait by what is live on the stack",
                          "round trips to fibers whose stack is in place or must be copied, hot "
                          "and cold, and the switches and "
                          "copies alone; "
                          "whole lives of deep computations beside coroutine chains",
                          "memory, 10,000 chains at once (E14); which tasklets meet (E14p)",
                          {"fiber/reserved", "fiber/tasklet", "context/reserved", "context/tasklet",
                           "thunk/reserved", "thunk/tasklet", "task", "lean", "async1"},
                          run});

}  // namespace
}  // namespace bench
