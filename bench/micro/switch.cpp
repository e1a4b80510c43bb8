// SPDX-License-Identifier: Apache-2.0
//
// Question: what does one switch between two stacks cost, ours and Boost.Context's fcontext; and what
// when the two sides' MXCSR differ in sticky flags, as they do once one side has had an inexact
// floating-point result?
//
// Does not show: scheduling, and what else travels with a fiber (exception state, errno): see yield.
// Both stacks stay in the first-level cache; a switch to a cold stack costs its misses on top. What
// sticky flags cost is the processor's affair: some 50 ns where loading a changed MXCSR drains the
// pipeline, nothing where MXCSR is renamed.
//
// Both sides switch from the same call, as a runtime's fibers do: ours leaves by ret and is predicted
// right then only. fcontext leaves by an indirect jump and does not mind. Time is one way: half a round
// trip.
#include "bench/micro/harness.hpp"
#include "context/context.hpp"

#include <boost/context/detail/fcontext.hpp>

#include <cfenv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>

namespace bench::micro {
namespace {

namespace bc = boost::context::detail;

enum class flags { same, differ };

constexpr std::size_t stack_bytes = std::size_t{64} * 1024;

struct alignas(64) stack_memory {
  std::byte bytes[stack_bytes];
  void* top() { return bytes + stack_bytes; }
};

/// Sets the sticky flag. A division at run time, since std::feraiseexcept may raise it in the x87
/// unit, which none of this looks at.
void have_inexact_result() {
  volatile double x = 1;
  x = x / 3;
}

bool inexact_seen() { return std::fetestexcept(FE_INEXACT) != 0; }

constexpr std::int64_t forever = std::numeric_limits<std::int64_t>::max();

// ---- Tendril --------------------------------------------------------------------------------------

struct tendril_pair {
  tendril::detail::context main;
  tendril::detail::context other;
  flags mode;
  std::int64_t switches = 0;  // by both sides
};

__attribute__((noinline)) void take_turns(tendril_pair& pair, tendril::detail::context& from,
                                          tendril::detail::context& to, std::int64_t turns) {
  for (; turns != 0; --turns) {
    ++pair.switches;
    tendril::detail::switch_context(from, to, &pair);
  }
}

tendril::platform::next_context tendril_side(void* p) {
  auto& pair = *static_cast<tendril_pair*>(p);
  if (pair.mode == flags::differ) have_inexact_result();
  take_turns(pair, pair.other, pair.main, forever);
  std::abort();
}

duration switch_tendril(std::int64_t n, flags mode) {
  const auto stack = std::make_unique<stack_memory>();
  tendril_pair pair;
  pair.mode = mode;
  tendril::platform::prepare_switch();  // as a runtime does
  pair.main.adopt_thread();
  pair.other.make(stack->bytes, stack->top(), &tendril_side);

  std::feclearexcept(FE_ALL_EXCEPT);
  take_turns(pair, pair.main, pair.other, 1);  // past its entry
  const stopwatch watch;
  take_turns(pair, pair.main, pair.other, n / 2);
  const duration took = watch.elapsed();
  pair.other.destroy();
  expect_equal("switches", n + 2, pair.switches);
  return took;
}

// ---- fcontext -------------------------------------------------------------------------------------

struct fcontext_pair {
  flags mode;
  bool inexact_there = false;
  std::int64_t switches = 0;
};

__attribute__((noinline)) bc::fcontext_t take_turns(fcontext_pair& pair, bc::fcontext_t to,
                                                    std::int64_t turns) {
  for (; turns != 0; --turns) {
    ++pair.switches;
    to = bc::jump_fcontext(to, &pair).fctx;
  }
  return to;
}

void fcontext_side(bc::transfer_t from) {
  auto& pair = *static_cast<fcontext_pair*>(from.data);
  if (pair.mode == flags::differ) have_inexact_result();
  pair.inexact_there = inexact_seen();
  take_turns(pair, from.fctx, forever);
  std::abort();
}

duration switch_fcontext(std::int64_t n, flags mode) {
  const auto stack = std::make_unique<stack_memory>();
  fcontext_pair pair{.mode = mode};

  std::feclearexcept(FE_ALL_EXCEPT);
  bc::fcontext_t other = bc::make_fcontext(stack->top(), stack_bytes, &fcontext_side);
  other = take_turns(pair, other, 1);
  const bool inexact_here = inexact_seen();  // fcontext gives each side its own flags
  const stopwatch watch;
  take_turns(pair, other, n / 2);
  const duration took = watch.elapsed();
  expect_equal("switches", n + 2, pair.switches);
  expect_equal("inexact flag of this side", 0, inexact_here ? 1 : 0);
  expect_equal("inexact flag of the other side", mode == flags::differ ? 1 : 0,
               pair.inexact_there ? 1 : 0);
  return took;
}

}  // namespace

void register_switch() {
  add("switch/tendril", 2, [](std::int64_t n) { return switch_tendril(n, flags::same); });
  add("switch/fcontext", 2, [](std::int64_t n) { return switch_fcontext(n, flags::same); });
  add("switch/tendril_sticky_fp", 2,
      [](std::int64_t n) { return switch_tendril(n, flags::differ); });
  add("switch/fcontext_sticky_fp", 2,
      [](std::int64_t n) { return switch_fcontext(n, flags::differ); });
}

}  // namespace bench::micro
