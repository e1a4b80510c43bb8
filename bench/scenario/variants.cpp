// SPDX-License-Identifier: Apache-2.0
#include "bench/scenario/variants.hpp"

#include "bench/support/process.hpp"

#include <chrono>
#include <stdexcept>
#include <utility>

#ifndef TENDRIL_BENCH_WHY_NOT_SEGMENTED  // tendril-experiments-segmented was built
#define TENDRIL_BENCH_WHY_NOT_SEGMENTED ""
#endif

namespace bench {
namespace {

constexpr const char* segmented_program = "tendril-experiments-segmented";

/// Asked of the program that is linked for them: elsewhere the library rightly says that there are none.
int segmented_stacks(const arguments&, role_output& out) {
  std::string why_not;
  if (!tendril::stack_kind_available(tendril::stack_kind::segmented)) {
    try {
      tendril::run(runtime_with("segmented", 1), [] {});
      why_not = "the library says that it has none";
    } catch (const std::exception& e) {
      why_not = e.what();
    }
  }
  out.send("why_not", why_not);
  return 0;
}
const role_registration segmented_stacks_role("segmented-stacks", segmented_stacks);

}  // namespace

const std::string& why_not_segmented() {
  static const std::string reason = []() -> std::string {
    if (*TENDRIL_BENCH_WHY_NOT_SEGMENTED != '\0') return TENDRIL_BENCH_WHY_NOT_SEGMENTED;
    try {
      return child_process::start("segmented-stacks", {{"program", segmented_program}}, any_core)
          .expect("why_not");
    } catch (const std::exception& e) {
      return e.what();
    }
  }();
  return reason;
}

std::vector<std::string> stack_variants() {
  std::vector<std::string> kinds{"reserved", "tasklet"};
  if (why_not_segmented().empty()) kinds.emplace_back("segmented");
  return kinds;
}

std::vector<absent_stack> absent_stacks() {
  const std::string& reason = why_not_segmented();
  if (reason.empty()) return {};
  return {{"segmented", reason}};
}

arguments in_segmented_program(arguments args) {
  if (why_not_segmented().empty()) args.set("program", segmented_program);
  return args;
}

arguments fiber_arguments(const std::string& stack) {
  arguments args{{"impl", "fiber"}, {"stack", stack}};
  return stack == "segmented" ? in_segmented_program(std::move(args)) : args;
}

tendril::stack_kind stack_kind_of(const std::string& stack) {
  if (stack == "reserved") return tendril::stack_kind::reserved;
  if (stack == "segmented") return tendril::stack_kind::segmented;
  if (stack == "tasklet" || stack == tasklet_copied || stack == tasklet_packed)
    return tendril::stack_kind::tasklet;
  throw std::invalid_argument("unknown --stack '" + stack +
                              "'; known: reserved, segmented, tasklet, " + tasklet_copied + ", " +
                              tasklet_packed);
}

tendril::runtime_options runtime_with(const std::string& stack, unsigned workers) {
  tendril::runtime_options options;
  options.workers = workers;
  options.stack.kind = stack_kind_of(stack);
  if (stack == tasklet_copied) options.tasklets.slots = 1;
  if (stack == tasklet_packed) {
    options.tasklets.evict_idle_after = std::chrono::milliseconds(1);
    options.pack_cold_after = std::chrono::milliseconds(1);
  }
  return options;
}

}  // namespace bench
