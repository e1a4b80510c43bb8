// SPDX-License-Identifier: Apache-2.0
//
// What a flow of control carries along: its own variables, ambient values in the three modes, and the context
// in which it goes on after a wait. docs/contexts.md quotes this file.
#include <tendril/context.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>

#include <chrono>
#include <iostream>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

namespace {

using tendril::ambient_flow;

// [variables]
const tendril::fiber_local<int> steps;         // each fiber's own; starts as 0
tendril::ambient<std::string> name("nobody");  // each flow's own; children start with the parent's

void variables() {
  name.set("parent");
  *steps += 10;
  tendril::fiber child([] {
    *steps += 1;
    std::cout << "child: steps " << *steps << ", name " << name.get() << '\n';  // 1, parent
    name.set("child");
  });
  child.join();
  std::cout << "parent: steps " << *steps << ", name " << name.get() << '\n';  // 10, parent
}
// [variables]

// [modes]
void callee() { name.set("Inner"); }

void modes() {
  name.set("Outer");
  ambient_flow::restoring(callee);
  std::cout << "restore: " << name.get() << '\n';  // Outer
  ambient_flow::capturing(callee);
  std::cout << "capture: " << name.get() << '\n';  // Outer
  callee();
  std::cout << "flow up: " << name.get() << '\n';  // Inner
}
// [modes]

// [passing]
void passing() {
  name.set("request 7");
  auto later = ambient_flow::captured([] { return name.get(); });
  std::thread([&] {
    std::cout << "captured: " << later() << '\n';   // request 7
    std::cout << "thread: " << name.get() << '\n';  // nobody
  }).join();
  const tendril::suppress_flow off;
  tendril::fiber([] { std::cout << "suppressed: " << name.get() << '\n'; }).join();  // nobody
}
// [passing]

// [loop]
void a_fiber_in_the_context_of_a_loop() {
  tendril::loop_context loop({.name = "ui"});
  std::thread ui([&] { loop.run(); });
  {
    const tendril::use_context here(&loop);
    const int got = tendril::async([] { return 42; }).get();  // goes on by way of the loop
    tendril::promise<void> shown;
    auto done = shown.get_future();
    loop.post([&, got] {
      std::cout << "loop: " << got << '\n';
      shown.set_value();
    });
    const tendril::configure_await_scope off(false);
    done.get();  // goes on at once
  }
  loop.stop();
  ui.join();
}
// [loop]

// [self_wait]
void a_loop_that_waits_for_itself() {
  tendril::promise<int> p;  // before the loop, whose end runs what is still queued
  auto f = p.get_future();
  tendril::loop_context loop({.name = "ui",
                              .on_self_wait = tendril::self_wait_policy::fail,
                              .self_wait_grace = std::chrono::milliseconds(0),
                              .on_report = [](std::string_view report) { std::cout << report; }});
  loop.post([&] {
    loop.post([&] { p.set_value(1); });
    try {
      std::cout << f.get() << '\n';  // only the loop's thread will ever set it, and it is here
    } catch (const std::system_error& e) {
      std::cout << "refused: " << e.code().message() << '\n';
    }
    loop.stop();
  });
  loop.run();
}
// [self_wait]

}  // namespace

int main() {
  tendril::run([] {
    variables();
    modes();
    passing();
    a_fiber_in_the_context_of_a_loop();
  });
  a_loop_that_waits_for_itself();
}
