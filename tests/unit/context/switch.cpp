// SPDX-License-Identifier: Apache-2.0
//
// The switch alone, without a scheduler: what platform/switch.hpp promises, on stacks of the test's own.
#include "context/context.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cfenv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

namespace {

using namespace tendril::detail;

/// A thread's own context and one more on a stack of its own, which runs `body` once.
class pair_of_contexts {
 public:
  explicit pair_of_contexts(void (*body)(pair_of_contexts&))
      : body_(body), stack_(new stack_memory) {
    outside_.adopt_thread();
    inside_.make(stack_->bytes, stack_->bytes + sizeof stack_->bytes, &start);
  }
  ~pair_of_contexts() { inside_.destroy(); }
  pair_of_contexts(const pair_of_contexts&) = delete;
  pair_of_contexts& operator=(const pair_of_contexts&) = delete;

  /// From outside: runs the inside until it comes out; returns what it hands over.
  void* in(void* transfer) {
    return switch_context(outside_, inside_, transfer, !std::exchange(started_, true));
  }
  /// The first entry is then made as any other: slower, and as good.
  void forget_to_say() { started_ = true; }
  /// From the inside.
  void* out(void* transfer) { return switch_context(inside_, outside_, transfer); }

  bool finished = false;
  std::vector<std::uintptr_t> seen;

 private:
  struct stack_memory {
    alignas(64) std::byte bytes[256 * 1024];
  };

  static tendril::platform::next_context start(void* transfer) {
    enter_context();
    auto& self = *static_cast<pair_of_contexts*>(transfer);
    self.body_(self);
    self.finished = true;
    return leave_context(self.grave_, self.outside_, nullptr);
  }

  void (*body_)(pair_of_contexts&);
  std::unique_ptr<stack_memory> stack_;
  context outside_;
  context inside_;
  context grave_;
  bool started_ = false;
};

/// A body on another stack that begins as a call, and may leave its caller.
class called_body {
 public:
  explicit called_body(void (*body)(called_body&)) : body_(body), stack_(new stack_memory) {
    outside_.adopt_thread();
  }
  ~called_body() { inside_.destroy(); }
  called_body(const called_body&) = delete;
  called_body& operator=(const called_body&) = delete;

  /// Null: it has returned.
  void* call() {
    return call_body(outside_, inside_, stack_->bytes, stack_->bytes + sizeof stack_->bytes, &enter,
                     &run, this, &end);
  }
  /// After it has left: until it does so again, or has ended.
  void* in() { return switch_context(outside_, inside_, nullptr); }
  /// From the inside.
  void leave(void* transfer) {
    left_ = true;
    switch_context(inside_, outside_, transfer);
  }

  int ended = 0;  ///< how often, after leaving

 private:
  struct stack_memory {
    alignas(64) std::byte bytes[64 * 1024];
  };

  static tendril::platform::body_end run(void* body) {
    auto& self = *static_cast<called_body*>(body);
    self.body_(self);
    if (self.left_) return {nullptr, &self};
    return {&self, nullptr};
  }
  static tendril::platform::next_context end(void* rest) {
    auto& self = *static_cast<called_body*>(rest);
    ++self.ended;
    return leave_context(self.grave_, self.outside_, nullptr);
  }
  static tendril::platform::next_context enter(void* body) {
    enter_context();
    const tendril::platform::body_end e = run(body);
    auto& self = *static_cast<called_body*>(body);
    return e.stays != nullptr ? return_context(self.inside_, self.outside_) : end(e.rest);
  }

  void (*body_)(called_body&);
  std::unique_ptr<stack_memory> stack_;
  context outside_;
  context inside_;
  context grave_;
  bool left_ = false;
};

/// More values than there are callee-saved registers, opaque to the compiler and live across the call.
template <class Switch>
[[gnu::noinline]] bool values_survive(std::uint64_t seed, Switch&& change_sides) {
  std::uint64_t a = seed, b = seed * 3, c = seed * 5, d = seed * 7, e = seed * 11, f = seed * 13,
                g = seed * 17;
  double x = static_cast<double>(seed), y = x * 3, z = x * 5;
  for (int round = 0; round != 4; ++round) {
    asm volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f), "+r"(g));
    change_sides();
    asm volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f), "+r"(g));
    ++a, ++b, ++c, ++d, ++e, ++f, ++g;
    x += 1, y += 1, z += 1;
  }
  const auto base = static_cast<double>(seed);
  return a == seed + 4 && b == seed * 3 + 4 && c == seed * 5 + 4 && d == seed * 7 + 4 &&
         e == seed * 11 + 4 && f == seed * 13 + 4 && g == seed * 17 + 4 && x == base + 4 &&
         y == base * 3 + 4 && z == base * 5 + 4;
}

/// The rounding mode as it acts on the two units that have one: vector registers and, where long
/// double is wider than double, the other.
struct rounding {
  int mode;
  bool up;
  bool long_up;
  static rounding now() {
    volatile double one = 1.0, three = 3.0;
    volatile long double long_one = 1.0L, long_three = 3.0L;
    const double third = one / three;
    const long double long_third = long_one / long_three;
    // 3 * (1/3 rounded down) is below 1 when multiplied exactly; compare with the known neighbours.
    volatile double down_neighbour = 0.333333333333333314829616256247390992939472198486328125;
    return {std::fegetround(), third > down_neighbour,
            long_third * 3 > 1 || long_third > nearest_long_third()};
  }
  static long double nearest_long_third() {
    static const long double value = [] {
      std::fenv_t saved;
      std::fegetenv(&saved);
      std::fesetround(FE_TONEAREST);
      volatile long double one = 1.0L, three = 3.0L;
      const long double result = one / three;
      std::fesetenv(&saved);
      return result;
    }();
    return value;
  }
};

}  // namespace

TEST_SUITE("switch") {
  TEST_CASE("transfers values both ways, in order") {
    pair_of_contexts p([](pair_of_contexts& self) {
      std::uintptr_t got = 0;
      for (int i = 0; i != 3; ++i) {
        got = reinterpret_cast<std::uintptr_t>(self.out(reinterpret_cast<void*>(got + 1)));
        self.seen.push_back(got);
      }
    });
    CHECK(p.in(&p) == reinterpret_cast<void*>(1));
    CHECK(p.in(reinterpret_cast<void*>(10)) == reinterpret_cast<void*>(11));
    CHECK(p.in(reinterpret_cast<void*>(20)) == reinterpret_cast<void*>(21));
    CHECK_FALSE(p.finished);
    CHECK(p.in(reinterpret_cast<void*>(30)) == nullptr);
    CHECK(p.finished);
    CHECK(p.seen == std::vector<std::uintptr_t>{10, 20, 30});
  }

  TEST_CASE("a context that has not run may be entered without saying so") {
    pair_of_contexts p([](pair_of_contexts& self) { self.seen.push_back(1); });
    p.forget_to_say();
    CHECK(p.in(&p) == nullptr);
    CHECK(p.finished);
    CHECK(p.seen.size() == 1);
  }

  TEST_CASE("callee-saved registers survive on both sides") {
    static bool inside_well = false;
    pair_of_contexts p([](pair_of_contexts& self) {
      inside_well = values_survive(0x1234'5678'9ABCU, [&] { self.out(nullptr); });
    });
    const bool outside_well = values_survive(
        0xFEDC'BA98'7654U, [&, transfer = static_cast<void*>(&p)] { p.in(transfer); });
    CHECK(outside_well);
    CHECK_FALSE(p.finished);
    p.in(nullptr);
    CHECK(p.finished);
    CHECK(inside_well);
  }

  TEST_CASE("a thousand contexts interleave without disturbing one another") {
    constexpr int count = 1000;
    struct entry {
      std::unique_ptr<std::byte[]> stack;
      context ctx;
      context* outside;
      int rounds = 0;
      bool well = true;
    };
    constexpr std::size_t bytes = 64 * 1024;
    context outside;
    outside.adopt_thread();
    static context grave;
    std::vector<entry> all(TENDRIL_TSAN ? 50 : count);
    for (entry& e : all) {
      e.stack = std::make_unique<std::byte[]>(bytes);
      e.outside = &outside;
      const auto high =
          (reinterpret_cast<std::uintptr_t>(e.stack.get()) + bytes) & ~std::uintptr_t{63};
      e.ctx.make(e.stack.get(), reinterpret_cast<void*>(high), [](void* transfer) {
        enter_context();
        entry& me = *static_cast<entry*>(transfer);
        me.well = values_survive(reinterpret_cast<std::uintptr_t>(&me) >> 4, [&] {
          ++me.rounds;
          switch_context(me.ctx, *me.outside, nullptr);
        });
        return leave_context(grave, *me.outside, nullptr);
      });
    }
    for (int round = 0; round != 5; ++round)
      for (entry& e : all) switch_context(outside, e.ctx, &e, round == 0);
    bool well = true;
    for (entry& e : all) {
      well = well && e.well && e.rounds == 4;
      e.ctx.destroy();
    }
    CHECK(well);
  }
}

TEST_SUITE("switch.body") {
  TEST_CASE("one that does not leave its caller is a call, which keeps what calls keep") {
    static bool kept;
    called_body p([](called_body&) { kept = values_survive(7, [] {}); });
    kept = false;
    void* result = &p;
    CHECK(values_survive(3, [&] { result = p.call(); }));
    CHECK(kept);
    CHECK(result == nullptr);
    CHECK(p.ended == 0);
  }

  TEST_CASE("one that leaves lets its caller go on, and says at its end who is next") {
    static bool kept;
    called_body p([](called_body& self) { kept = values_survive(7, [&] { self.leave(&self); }); });
    kept = false;
    void* result = nullptr;
    CHECK(values_survive(3, [&] { result = result == nullptr ? p.call() : p.in(); }));
    CHECK(result == &p);
    CHECK(p.ended == 0);
    CHECK(p.in() == nullptr);
    CHECK(kept);
    CHECK(p.ended == 1);
  }

  TEST_CASE("control words are left to the caller as by a function, or taken along") {
    for (const bool leaves : {false, true}) {
      CAPTURE(leaves);
      static bool leave;
      static int inherited, kept;
      leave = leaves;
      called_body p([](called_body& self) {
        inherited = std::fegetround();
        std::fesetround(FE_UPWARD);
        if (leave) self.leave(&self);
        kept = std::fegetround();
      });
      std::fesetround(FE_DOWNWARD);
      CHECK((p.call() != nullptr) == leaves);
      const int after = std::fegetround();
      std::fesetround(FE_TOWARDZERO);
      if (leaves) p.in();
      const int at_last = std::fegetround();
      std::fesetround(FE_TONEAREST);
      CHECK(inherited == FE_DOWNWARD);
      CHECK(after == (leaves ? FE_DOWNWARD : FE_UPWARD));
      CHECK(kept == FE_UPWARD);
      CHECK(at_last == FE_TOWARDZERO);
    }
  }
}

TEST_SUITE("switch.float") {
  TEST_CASE("each side keeps its rounding mode, in every floating-point unit") {
    SUBCASE("as measured") {}
    SUBCASE("where loading is dear") {
      tendril::platform::prepare_switch(tendril::platform::control_word_cost::dear);
    }
    SUBCASE("where loading is cheap") {
      tendril::platform::prepare_switch(tendril::platform::control_word_cost::cheap);
    }
    rounding::nearest_long_third();
    static rounding first, second;
    pair_of_contexts p([](pair_of_contexts& self) {
      std::fesetround(FE_UPWARD);
      self.out(nullptr);
      first = rounding::now();
      self.out(nullptr);
      second = rounding::now();
      std::fesetround(FE_TONEAREST);
    });
    p.in(&p);
    const rounding untouched = rounding::now();
    std::fesetround(FE_DOWNWARD);
    p.in(nullptr);
    const rounding down = rounding::now();
    std::fesetround(FE_TONEAREST);
    p.in(nullptr);
    const rounding nearest = rounding::now();
    CHECK(untouched.mode == FE_TONEAREST);
    CHECK_FALSE(untouched.up);
    CHECK(first.mode == FE_UPWARD);
    CHECK(first.up);
    CHECK(first.long_up);
    CHECK(second.mode == FE_UPWARD);
    CHECK(second.up);
    CHECK(second.long_up);
    tendril::platform::prepare_switch();
    CHECK(down.mode == FE_DOWNWARD);
    CHECK_FALSE(down.up);
    CHECK_FALSE(down.long_up);
    CHECK(nearest.mode == FE_TONEAREST);
    CHECK_FALSE(nearest.up);
  }

  TEST_CASE("a new context starts with the default environment, whatever its maker's is") {
    rounding::nearest_long_third();
    static rounding at_start;
    std::fesetround(FE_UPWARD);
    pair_of_contexts p([](pair_of_contexts&) { at_start = rounding::now(); });
    p.in(&p);
    const rounding after = rounding::now();
    std::fesetround(FE_TONEAREST);
    CHECK(at_start.mode == FE_TONEAREST);
    CHECK_FALSE(at_start.up);
    CHECK(after.mode == FE_UPWARD);
    CHECK(after.up);
  }

  TEST_CASE("raised exception flags change no control bit of the other side") {
    static int inside_mode = -1;
    static int inside_round = -1;
    pair_of_contexts p([](pair_of_contexts& self) {
      std::feclearexcept(FE_ALL_EXCEPT);
      self.out(nullptr);
      std::feraiseexcept(FE_INEXACT | FE_UNDERFLOW | FE_OVERFLOW);
      self.out(nullptr);
      inside_round = std::fegetround();
      volatile double zero = 0.0;
      volatile double infinite = 1.0 / zero;  // would trap if a mask bit had come from a flag
      inside_mode = infinite > std::numeric_limits<double>::max() ? 1 : 0;
      std::feclearexcept(FE_ALL_EXCEPT);
    });
    p.in(&p);
    std::fesetround(FE_TOWARDZERO);
    std::feraiseexcept(FE_DIVBYZERO);
    p.in(nullptr);
    CHECK(std::fegetround() == FE_TOWARDZERO);
    volatile double zero = 0.0;
    volatile double infinite = 1.0 / zero;
    CHECK(infinite > std::numeric_limits<double>::max());
    std::fesetround(FE_TONEAREST);
    p.in(nullptr);
    CHECK(p.finished);
    CHECK(inside_mode == 1);
    CHECK(inside_round == FE_TONEAREST);
    std::feclearexcept(FE_ALL_EXCEPT);
  }

#if TENDRIL_SWITCH_NATIVE
  // Loading the flags may cost 50 ns at each switch; that they stay shows that nothing was loaded.
  TEST_CASE("where loading is dear, the exception flags stay where they are") {
    static int inside_flags = -1;
    tendril::platform::prepare_switch(tendril::platform::control_word_cost::dear);
    pair_of_contexts p([](pair_of_contexts& self) {
      inside_flags = std::fetestexcept(FE_ALL_EXCEPT);
      std::feraiseexcept(FE_OVERFLOW);
      self.out(nullptr);
    });
    std::feclearexcept(FE_ALL_EXCEPT);
    std::feraiseexcept(FE_DIVBYZERO);
    p.in(&p);
    const int outside_flags = std::fetestexcept(FE_DIVBYZERO | FE_OVERFLOW);
    p.in(nullptr);
    std::feclearexcept(FE_ALL_EXCEPT);
    tendril::platform::prepare_switch();
    CHECK((inside_flags & FE_DIVBYZERO) != 0);
    CHECK(outside_flags == (FE_DIVBYZERO | FE_OVERFLOW));
  }
#endif
}
