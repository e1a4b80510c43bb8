// SPDX-License-Identifier: Apache-2.0
//
// Question: what does one switch between two stacks cost, ours and Boost.Context's fcontext; and what
// when the two sides' MXCSR differ in sticky flags, as they do once one side has had an inexact
// floating-point result?
//
// Does not show: scheduling, and what else travels with a fiber (exception state, errno): see yield.
// Both stacks stay in the first-level cache and the return predictor learns the one pair of call
// sites; a switch to a cold stack costs its cache misses on top.
//
// Time is one way: half a round trip.
#include "bench/micro/harness.hpp"
#include "context/context.hpp"

#include <boost/context/detail/fcontext.hpp>

#include <cfenv>
#include <cstddef>
#include <cstdint>
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

/// The side that is switched to, in both benchmarks.
struct visited {
  flags mode;
  std::int64_t visits = 0;

  void arrive_first() const {
    if (mode == flags::differ) have_inexact_result();
  }
};

// ---- Tendril --------------------------------------------------------------------------------------

struct tendril_pair : visited {
  tendril::detail::context main;
  tendril::detail::context other;
};

tendril::platform::next_context tendril_side(void* p) {
  auto& pair = *static_cast<tendril_pair*>(p);
  pair.arrive_first();
  for (;;) {
    ++pair.visits;
    tendril::detail::switch_context(pair.other, pair.main, nullptr);
  }
}

duration switch_tendril(std::int64_t n, flags mode) {
  const auto stack = std::make_unique<stack_memory>();
  tendril_pair pair;
  pair.mode = mode;
  pair.main.adopt_thread();
  pair.other.make(stack->bytes, stack->top(), &tendril_side);

  std::feclearexcept(FE_ALL_EXCEPT);
  tendril::detail::switch_context(pair.main, pair.other, &pair);  // past its entry
  const stopwatch watch;
  for (std::int64_t i = 0; i < n; i += 2)
    tendril::detail::switch_context(pair.main, pair.other, &pair);
  const duration took = watch.elapsed();
  pair.other.destroy();
  expect_equal("visits of the other stack", n / 2 + 1, pair.visits);
  return took;
}

// ---- fcontext -------------------------------------------------------------------------------------

void fcontext_side(bc::transfer_t from) {
  auto& side = *static_cast<visited*>(from.data);
  side.arrive_first();
  for (;;) {
    ++side.visits;
    from = bc::jump_fcontext(from.fctx, nullptr);
  }
}

duration switch_fcontext(std::int64_t n, flags mode) {
  const auto stack = std::make_unique<stack_memory>();
  visited side{mode};

  std::feclearexcept(FE_ALL_EXCEPT);
  bc::transfer_t other{bc::make_fcontext(stack->top(), stack_bytes, &fcontext_side), nullptr};
  other = bc::jump_fcontext(other.fctx, &side);
  const bool differ_here = !inexact_seen();  // its flags went with it
  const stopwatch watch;
  for (std::int64_t i = 0; i < n; i += 2) other = bc::jump_fcontext(other.fctx, &side);
  const duration took = watch.elapsed();
  expect_equal("visits of the other stack", n / 2 + 1, side.visits);
  expect_equal("this side's sticky flags stay clear", 1, differ_here ? 1 : 0);
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
