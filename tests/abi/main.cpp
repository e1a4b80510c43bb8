// SPDX-License-Identifier: Apache-2.0
//
// The generated shapes, on a plain thread, on a reserved fiber (where the same code never crosses an
// edge) and on segmented fibers (where each shape must): `test_abi [<seed of the values>]`.
#include "abi.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/semaphore.hpp>

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace {

// A fiber that parks gives back the segments that it does not stand on.
tendril::counting_semaphore<> asked{0}, answered{0};
std::atomic<bool> ended{false};

void park() {
  asked.release();
  answered.acquire();
}

void answer() {
  for (;;) {
    asked.acquire();
    if (ended) return;
    answered.release();
  }
}

long on_fiber(const char* where, tendril::stack_kind kind, bool parks) {
  tendril::runtime_options one_at_a_time;
  one_at_a_time.workers = 1;
  tendril::fiber_options options;
  options.stack.kind = kind;
  abi::prepare();
  ended = false;
  tendril::runtime runtime(one_at_a_time);
  runtime.run([&options, kind, parks] {
    tendril::fiber partner(answer);
    tendril::fiber shapes(options, [kind, parks] {
      abi::run_all(kind == tendril::stack_kind::segmented, parks ? park : nullptr);
    });
    shapes.join();
    ended = true;
    asked.release();
    partner.join();
  });
  return abi::report(where);
}

}  // namespace

int main(int argc, char** argv) {
  abi::overall = argc > 1 ? std::strtoull(argv[1], nullptr, 0) : 20240917;
  std::printf("seed of the values: %llu\n", static_cast<unsigned long long>(abi::overall));
  abi::prepare();
  abi::run_all(false, nullptr);
  long differences = abi::report("thread");
  using tendril::stack_kind;
  differences += on_fiber("reserved fiber", stack_kind::reserved, false);
  differences += on_fiber("segmented fiber", stack_kind::segmented, false);
  differences += on_fiber("segmented, parking", stack_kind::segmented, true);
  return differences == 0 ? 0 : 1;
}
