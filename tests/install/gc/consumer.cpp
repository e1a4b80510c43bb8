// SPDX-License-Identifier: Apache-2.0
//
// A user's program: lists that only parked fibers refer to, in the collector's generational mode, which protects pages
// of its heap to learn of writes, against an installed tendril::gc.
#include <tendril/fiber.hpp>
#include <tendril/gc.hpp>
#include <tendril/runtime.hpp>

#include <atomic>
#include <cstdio>
#include <vector>

namespace {

struct node {
  node* next;
  long value;
};

[[gnu::noinline]] bool build_and_check(long length) {
  node* list = nullptr;
  for (long i = 0; i != length; ++i) {
    auto* const fresh = static_cast<node*>(GC_MALLOC(sizeof(node)));
    *fresh = {list, i};
    list = fresh;
    if (i % 16 == 0) tendril::this_fiber::yield();
  }
  for (long i = length; i-- != 0; list = list->next)
    if (list == nullptr || list->value != i) return false;
  return list == nullptr;
}

}  // namespace

int main() {
  GC_enable_incremental();
  tendril::gc::enable();
  constexpr int fibers = 64;
  std::atomic<int> whole{0};
  tendril::run([&] {
    std::vector<tendril::fiber> running;
    running.reserve(fibers);
    for (int i = 0; i < fibers; ++i)
      running.emplace_back([&whole] {
        for (int round = 0; round < 50; ++round)
          if (!build_and_check(400)) return;
        ++whole;
      });
    for (auto& f : running) f.join();
    GC_gcollect();
  });
  const tendril::gc::counts done = tendril::gc::collections();
  std::printf(
      "tendril::gc: %d of %d fibers found their lists whole, %llu full and %llu young "
      "collections\n",
      whole.load(), fibers, static_cast<unsigned long long>(done.full),
      static_cast<unsigned long long>(done.young));
  return whole == fibers && done.full + done.young > 0 ? 0 : 1;
}
