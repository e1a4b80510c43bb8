// SPDX-License-Identifier: Apache-2.0
//
// Runs a body wherever a thunk may be called.
#pragma once

#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/runtime.hpp>

#include <doctest/doctest.h>

#include <string>
#include <thread>

namespace tendril::test {

/// The body returns what it has seen; on a fiber with a stack of its own, on this thread, and on another one.
/// Afterwards no fiber is left.
template <class Body>
void everywhere(const std::string& expected, Body body) {
  with_workers([&](tendril::runtime& rt) {
    CHECK(run_on_own_stack(rt, body) == expected);
    CHECK(body() == expected);
    std::string on_thread;
    std::thread([&] { on_thread = body(); }).join();
    CHECK(on_thread == expected);
    rt.drain();
    CHECK(rt.stats().fibers_alive() == 0);
  });
}

}  // namespace tendril::test
