// SPDX-License-Identifier: Apache-2.0
//
// For fibers that share what is on their stacks. While a tasklet waits, nobody else may hold a pointer into its
// stack, and by TENDRIL_STACK=tasklet every fiber of a test that names no stack is one. A test whose fiber lets
// others, which it starts and waits for, use its variables runs that fiber on a stack of its own; what it starts
// are tasklets all the same.
#pragma once

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace tendril::test {

inline fiber_options stack_of_its_own(fiber_options options = {}) {
  options.stack.kind = stack_kind::reserved;
  return options;
}

/// rt.run(f), where others use f's variables while it waits.
template <class F>
auto run_on_own_stack(runtime& rt, F f) -> std::invoke_result_t<F&> {
  using R = std::invoke_result_t<F&>;
  struct call {
    F f;
    std::optional<std::conditional_t<std::is_void_v<R>, char, R>> result{};
  };
  const auto c = std::make_unique<call>(call{std::move(f)});
  rt.run([p = c.get()] {
      return fiber(stack_of_its_own(), [p] {
        if constexpr (std::is_void_v<R>) p->f();
        else p->result.emplace(p->f());
      });
    }).join();
  if constexpr (!std::is_void_v<R>) return std::move(*c->result);
}

/// tendril::run(options, f), likewise.
template <class F>
auto run_on_own_stack(runtime_options options, F f) -> std::invoke_result_t<F&> {
  runtime rt(std::move(options));
  return run_on_own_stack(rt, std::move(f));
}

}  // namespace tendril::test
