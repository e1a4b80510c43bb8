// SPDX-License-Identifier: Apache-2.0
//
// Objects of the collector's heap that count how many of them have been collected.
//
// The collector is conservative: words that were left behind on a stack or in a register keep an object now and then.
// So tests make many, demand that none is collected that somebody holds, and that nearly all are that nobody does.
#pragma once

#include <tendril/gc.hpp>

#include <atomic>
#include <deque>

namespace tendril::test {

struct node {
  node* next;
  long value;
  long more[4];
};

/// How many have been collected of those that were made with it.
struct node_count {
  std::atomic<long> collected{0};

  node* make(long value, node* next = nullptr) {
    auto* const n = static_cast<node*>(GC_MALLOC(sizeof(node)));
    *n = {next, value, {value, value, value, value}};
    GC_END_STUBBORN_CHANGE(n);
    GC_REGISTER_FINALIZER_NO_ORDER(
        n,
        [](void* object, void* count) {
          static_cast<node*>(object)->value = -1;
          ++static_cast<node_count*>(count)->collected;
        },
        this, nullptr, nullptr);
    return n;
  }
};

/// For the rest of the process: nodes that are kept by accident are collected long after a test.
inline node_count& new_count() {
  static std::deque<node_count> all;
  return all.emplace_back();
}

inline bool is_whole(const node* n, long value) {
  return n->value == value && n->more[0] == value && n->more[3] == value;
}

/// The collector, with fibers made known to it; in the generational mode if that was asked for first. That it is
/// told of what is written, and protects no pages: doctest has handlers for SIGSEGV that come and go.
inline void collector(bool generational = false) {
  static const bool once = [generational] {
    if (generational) {
      GC_set_time_limit(GC_TIME_UNLIMITED);  // collections are done at once
      GC_set_manual_vdb_allowed(1);
      GC_enable_incremental();
    }
    gc::enable();
    return true;
  }();
  static_cast<void>(once);
}

/// Overwrites what is left below the caller's frame.
[[gnu::noinline]] inline void clear_stack() {
  volatile char bytes[16 << 10];
  for (volatile char& b : bytes) b = 0;
}

/// Everything, until nothing more is found to be garbage.
[[gnu::noinline]] inline void collect() {
  clear_stack();
  for (int i = 0; i != 4; ++i) GC_gcollect();
  GC_invoke_finalizers();
}

}  // namespace tendril::test
