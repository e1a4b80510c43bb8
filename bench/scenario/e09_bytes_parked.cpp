// SPDX-License-Identifier: Apache-2.0
//
// E9: how much memory does one waiting operation take? N fibers wait for one latch, in a process of
// their own; the growth of resident pages and of page tables since before the first spawn, divided by
// N. Control blocks, scheduler queues and whatever the allocator rounds up to are in it.
//
// What a fiber on a reserved stack of 64 KiB takes, and cannot take less of: 4,096 bytes of its stack's
// first page, 128 of its control block, 8 of the stack's record; in the page tables 128, a page of 512
// entries for 32 such stacks. The goal of 4,300 bytes is about the first sum, resident memory, which is
// how peers are measured; both are reported, and the second is over it. Only smaller stacks have
// smaller tables: 32 bytes a stack of 16 KiB.
//
// Coroutines wait for a gate that lists them by nodes in their own frames, as fibers are listed by nodes in
// their control blocks: what is counted is the frame, the task, and what starting one by itself takes.
//
// Does not show: operations parked deep in a call chain, where frames dominate, nor what a socket
// takes in the kernel. Kernel stacks are not resident memory of a process: for threads they are
// listed apart, as the growth of the whole machine's KernelStack.

#include "bench/scenario/coroutine_gate.hpp"
#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/memory.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/latch.hpp>
#include <tendril/runtime.hpp>

#include <atomic>
#include <chrono>
#include <latch>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

namespace bench {
namespace {

using steady = std::chrono::steady_clock;

void send_growth(role_output& out, const memory_use& before, const memory_use& after,
                 steady::time_point begin) {
  const auto growth = [](std::uint64_t a, std::uint64_t b) {
    return static_cast<double>(b) - static_cast<double>(a);
  };
  out.send("resident", growth(before.resident_bytes, after.resident_bytes));
  out.send("page_tables", growth(before.page_table_bytes, after.page_table_bytes));
  out.send("kernel_stacks", growth(before.kernel_stack_bytes, after.kernel_stack_bytes));
  out.send("mappings", growth(before.mappings, after.mappings));
  out.send("seconds", std::chrono::duration<double>(steady::now() - begin).count());
}

memory_use baseline() {
  read_memory_use();
  return read_memory_use();
}

void park_fibers(const std::string& stack, long count, role_output& out) {
  tendril::run(runtime_with(stack, 1), [&] {
    struct shared {
      long arrived = 0;  // one worker: no two fibers at once
      tendril::latch gate{1};
    };
    const auto s = std::make_unique<shared>();
    const memory_use before = baseline();
    const auto begin = steady::now();
    for (long i = 0; i < count; ++i)
      tendril::spawn([&s = *s] {
        ++s.arrived;
        s.gate.wait();
      });
    // One worker: when this fiber runs, whoever has arrived has parked.
    while (s->arrived < count) tendril::this_fiber::yield();
    send_growth(out, before, read_memory_use(), begin);
    s->gate.count_down();
    while (tendril::runtime::current()->stats().fibers_alive() > 1) tendril::this_fiber::yield();
  });
}

template <template <class> class Task>
Task<void> wait_for(coroutine_gate& gate, long& arrived, long& left) {
  ++arrived;
  co_await gate.wait();
  ++left;
}

template <template <class> class Task>
void park_coroutines(long count, role_output& out) {
  coroutine_gate gate;
  long arrived = 0;
  long left = 0;
  const memory_use before = baseline();
  const auto begin = steady::now();
  for (long i = 0; i < count; ++i) run_detached(wait_for<Task>(gate, arrived, left));
  if (arrived != count || left != 0) throw std::runtime_error("not all coroutines are parked");
  send_growth(out, before, read_memory_use(), begin);
  gate.open();
  if (left != count) throw std::runtime_error("not all coroutines were resumed");
}

void park_threads(long count, role_output& out) {
  std::latch gate(1);
  std::latch arrived(count);
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(count));
  const memory_use before = baseline();
  const auto begin = steady::now();
  for (long i = 0; i < count; ++i)
    threads.emplace_back([&] {
      arrived.count_down();
      gate.wait();
    });
  arrived.wait();
  send_growth(out, before, read_memory_use(), begin);
  gate.count_down();
  for (std::thread& t : threads) t.join();
}

int park(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  if (impl == "fiber") park_fibers(args.text("stack", "reserved"), args.number("count"), out);
  else if (impl == "thread") park_threads(args.number("count"), out);
  else if (impl == "async1") park_coroutines<async1_task>(args.number("count"), out);
  else if (impl == "task") park_coroutines<tendril_task>(args.number("count"), out);
  else
    throw std::invalid_argument("unknown --impl '" + impl +
                                "'; known: fiber, task, async1, thread");
  return 0;
}
const role_registration park_role("park", park);

struct size {
  long count;
  const char* suffix;
};

void run(context& ctx) {
  table out({"variant", "parked", "bytes each", "page tables", "with them", "kernel stacks",
             "mappings", "seconds", "published bytes"});
  const auto measure = [&](const std::string& variant, arguments args, const size& n,
                           const char* published) {
    ctx.attempt(variant, [&] {
      args.set("count", std::to_string(n.count));
      auto r = run_role("park", args, any_core, std::chrono::seconds(300));
      const auto each = static_cast<double>(n.count);
      const parameters params{{"count", n.count}, {"workers", 1}};
      const auto add = [&](const std::string& metric, double value) {
        ctx.add(variant, metric + n.suffix, value, "bytes", params);
      };
      const double total = r.at("resident") + r.at("page_tables");
      add("bytes_per_parked_", r.at("resident") / each);
      add("page_table_bytes_per_parked_", r.at("page_tables") / each);
      add("bytes_with_page_tables_per_parked_", total / each);
      add("kernel_stack_bytes_per_parked_", r.at("kernel_stacks") / each);
      out.row({variant, fixed(each, 0), fixed(r.at("resident") / each, 0),
               fixed(r.at("page_tables") / each, 1), fixed(total / each, 0),
               fixed(r.at("kernel_stacks") / each, 0), fixed(r.at("mappings"), 0),
               fixed(r.at("seconds"), 2), published});
    });
  };
  std::printf(
      "  each row in a process of its own; growth between the first spawn and the last park;\n"
      "  bytes each: resident memory, as peers are measured, and what the goals are about;\n"
      "  page tables are listed apart: a page of them for 32 reserved stacks, 128 bytes each\n");
  for (const std::string& stack : stack_variants())
    for (const size n : {size{10'000, "10k"}, size{100'000, "100k"}, size{1'000'000, "1m"}})
      measure("fiber/" + stack, fiber_arguments(stack), n, "-");
  for (const char* model : {"task", "async1"})
    for (const size n : {size{10'000, "10k"}, size{100'000, "100k"}, size{1'000'000, "1m"}})
      measure(model, {{"impl", model}}, n, "about 100");
  measure("thread", {{"impl", "thread"}}, {10'000, "10k"}, "10,000 + 16,384 kernel stack");
  out.print();
}

const registration entry({"E9",
                          "bytes per parked operation",
                          "resident memory and page tables of 10,000, 100,000 and 1,000,000 "
                          "fibers, or coroutines, that wait",
                          "operations parked deep in a call chain; kernel memory of sockets",
                          {"fiber/<stack>", "task", "async1", "thread"},
                          run});

}  // namespace
}  // namespace bench
