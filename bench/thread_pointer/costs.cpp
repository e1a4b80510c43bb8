// SPDX-License-Identifier: Apache-2.0
//
// Question: what does a thread pointer of its own cost a fiber, at a switch and at its birth, and how much
// memory; beside what a switch, a fiber and a thread cost without? And what does it cost to copy a program's own
// thread-locals out and in at each switch instead?
//
// Does not show: what follows from thread-locals that are cold, a cache miss each, and what libc allocates
// for a thread over time (buffers of strerror, of the resolver).
//
// All variants take turns in slices (bench/support/interleaved.hpp); ratios are taken within a turn.
#include "bench/support/cpu_clock.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/memory.hpp"
#include "bench/support/table.hpp"
#include "bench/thread_pointer/parts.hpp"
#include "bench/thread_pointer/thread_block.hpp"
#include "platform/switch.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cfenv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace bench::thread_pointer {
namespace {

namespace platform = tendril::platform;

/// Processor time of all threads: others that run on this machine are not in it.
class stopwatch {
 public:
  double nanoseconds() const { return process_cpu_ns() - begin_; }

 private:
  double begin_ = process_cpu_ns();
};

// ---- Switches -------------------------------------------------------------------------------------

enum class along { nothing, by_instruction, by_call, copied };

struct side {
  void* sp = nullptr;
  std::uintptr_t pointer = 0;  ///< its thread pointer
  std::vector<char> locals;    ///< its thread-locals, while it does not run
};

struct pair {
  side main;
  side other;
  std::vector<char> thread;  ///< stands for the thread's block, which copies are made of
  long switches = 0;
};

/// Both sides switch from the same call, as a runtime's fibers do.
template <along What>
[[gnu::noinline]] void take_turns(pair& p, side& from, side& to, long turns) {
  for (; turns != 0; --turns) {
    ++p.switches;
    if constexpr (What == along::by_instruction) {
      set_thread_pointer(to.pointer);
    } else if constexpr (What == along::by_call) {
      set_thread_pointer_by_call(to.pointer);
    } else if constexpr (What == along::copied) {
      std::memcpy(from.locals.data(), p.thread.data(), p.thread.size());
      std::memcpy(p.thread.data(), to.locals.data(), p.thread.size());
    }
    platform::tendril_switch(&from.sp, to.sp, &p);
  }
}

/// To be called by this: the compiler would make a copy of the function for each number of turns, and there would be several
/// calls to switch from.
template <along What>
void (*volatile take_turns_by)(pair&, side&, side&, long) = &take_turns<What>;

template <along What>
platform::next_context other_side(void* transfer) {
  auto& p = *static_cast<pair*>(transfer);
  take_turns_by<What>(p, p.other, p.main, -1);
  std::abort();
}

/// Nanoseconds a switch.
template <along What>
double switches(std::size_t bytes = 0) {
  constexpr long warm_up = 100;
  constexpr long turns = 20'000;
  struct alignas(64) stack {
    char bytes[64 << 10];
  };
  const auto memory = std::make_unique<stack>();
  const thread_block block(furnishing::furnished);
  pair p;
  p.main.pointer = thread_pointer();
  p.other.pointer = block.pointer();
  for (std::vector<char>* const v : {&p.main.locals, &p.other.locals, &p.thread}) v->resize(bytes);
  // Half a page apart from this stack's, modulo a page: else loads of the one look like stores of the other.
  char* top = memory->bytes + sizeof memory->bytes;
  top -= (reinterpret_cast<std::uintptr_t>(top) - reinterpret_cast<std::uintptr_t>(&p) + 2048) %
         4096 / 64 * 64;
  p.other.sp = platform::make_context(top, &other_side<What>);
  std::feclearexcept(FE_ALL_EXCEPT);  // as the other side begins: see bench/micro/switch.cpp
  take_turns_by<What>(p, p.main, p.other, warm_up);
  const stopwatch watch;
  take_turns_by<What>(p, p.main, p.other, turns);
  const double took = watch.nanoseconds();
  if (p.switches != 2 * (turns + warm_up)) throw std::logic_error("switches were lost");
  return took / (2 * turns);
}

// ---- Births ---------------------------------------------------------------------------------------

constexpr long births = 2'000;

/// Not seen through by the compiler, which drops a malloc that is freed at once.
void allocate_and_free() {
  void* memory = std::malloc(24);
  asm volatile("" : "+r"(memory) : : "memory");
  std::free(memory);
}

double blocks(furnishing how) {
  const stopwatch watch;
  for (long i = 0; i != births; ++i) const thread_block block(how);
  return watch.nanoseconds() / births;
}

/// With what libc's malloc makes for each thread that calls it, and nobody can make it give back (hazards).
double used_blocks() {
  const stopwatch watch;
  for (long i = 0; i != births; ++i) {
    const thread_block block(furnishing::furnished);
    block.run([] { allocate_and_free(); });
  }
  return watch.nanoseconds() / births;
}

double fibers() {
  return tendril::run({.workers = 1}, [] {
    const stopwatch watch;
    for (long i = 0; i != births; ++i) tendril::fiber([] {}).join();
    return watch.nanoseconds() / births;
  });
}

double threads() {
  constexpr long fewer = births / 20;
  const stopwatch watch;
  for (long i = 0; i != fewer; ++i) std::thread([] {}).join();
  return watch.nanoseconds() / fewer;
}

// ---- Memory ---------------------------------------------------------------------------------------

/// Resident bytes for each of so many blocks that live at the same time. In a child: what malloc keeps for its next
/// callers would hide the second measurement.
double resident_bytes(furnishing how, bool use) {
  constexpr int count = 10'000;
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("no pipe");
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("no child");
  if (child == 0) {
    std::vector<std::unique_ptr<thread_block>> all(count);
    read_memory_use();
    const auto before = read_memory_use().resident_bytes;
    for (auto& one : all) {
      one = std::make_unique<thread_block>(how);
      if (use) one->run([] { allocate_and_free(); });
    }
    const double each = static_cast<double>(read_memory_use().resident_bytes - before) / count;
    ::_exit(::write(ends[1], &each, sizeof each) == sizeof each ? 0 : 1);
  }
  ::close(ends[1]);
  double each = 0;
  const bool read = ::read(ends[0], &each, sizeof each) == sizeof each;
  ::close(ends[0]);
  int status;
  ::waitpid(child, &status, 0);
  if (!read) throw std::runtime_error("the child that measures memory failed");
  return each;
}

void print_times(const interleaved& all, const std::vector<contestant>& contestants,
                 const std::string& reference, const char* what) {
  table t({what, "ns", "quartiles", "to " + reference});
  for (const contestant& c : contestants) {
    const quartiles q = all.of(c.name);
    t.row({c.name, fixed(q.median, 1), fixed(q.q1, 1) + " - " + fixed(q.q3, 1),
           fixed(all.ratio(c.name, reference).median, 2)});
  }
  t.print();
  std::puts("");
}

}  // namespace

void print_costs(unsigned cycles) {
  platform::prepare_switch();
  const std::uint64_t seed = new_seed();
  std::printf("medians of %u turns, seed %llu\n\n", cycles, static_cast<unsigned long long>(seed));

  const std::vector<contestant> switching{
      {"plain", [] { return switches<along::nothing>(); }},
      {"wrfsbase", [] { return switches<along::by_instruction>(); }},
      {"arch_prctl", [] { return switches<along::by_call>(); }},
      {"copying 64 bytes", [] { return switches<along::copied>(64); }},
      {"copying 512 bytes", [] { return switches<along::copied>(512); }},
      {"copying 4,096 bytes", [] { return switches<along::copied>(4096); }},
  };
  print_times(interleaved(switching, 3, cycles, seed), switching, "plain", "a switch");

  const std::vector<contestant> bearing{
      {"fiber", fibers},
      {"block, bare", [] { return blocks(furnishing::bare); }},
      {"block, furnished", [] { return blocks(furnishing::furnished); }},
      {"block, and malloc on it", used_blocks},
      {"thread", threads},
  };
  print_times(interleaved(bearing, 3, cycles, seed), bearing, "fiber", "made and ended");

  const block_sizes s = sizes();
  std::printf(
      "a block of this program: %zu bytes of static thread-locals, %zu of them struct pthread, "
      "aligned to %zu\n",
      s.static_bytes, s.thread_bytes, s.alignment);
  table t({"10,000 blocks", "resident bytes each"});
  t.row({"bare", fixed(resident_bytes(furnishing::bare, false), 0)});
  t.row({"furnished", fixed(resident_bytes(furnishing::furnished, false), 0)});
  t.row({"furnished, and malloc on it", fixed(resident_bytes(furnishing::furnished, true), 0)});
  t.print();
}

}  // namespace bench::thread_pointer
