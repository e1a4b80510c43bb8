// SPDX-License-Identifier: Apache-2.0
//
// Memory of coroutine frames. A C# state machine begins as a struct on its caller's stack, for nothing, and
// is moved to the heap by the first await that does not complete at once. A C++ coroutine allocates its frame
// when it is called. To charge the model for what is the language's habit and not the model's would be unfair:
// frames come from lists of the calling thread, two loads and a store each way.
//
// What suspends pays for the heap as there: one block from operator new (the Task; there the box, which is
// both).
#pragma once

#include <tendril/detail/sanitizers.hpp>

#include <array>
#include <cstddef>
#include <new>

namespace bench::async1 {

class frame_lists {
 public:
  static void* allocate(std::size_t bytes) {
    const std::size_t index = index_of(bytes);
    if (index < classes && here[index] != nullptr) {
      node* const n = here[index];
      here[index] = n->next;
      return n;
    }
    return allocate_slow(bytes, index);
  }
  /// On any thread: that one keeps it.
  static void free(void* p, std::size_t bytes) noexcept {
    const std::size_t index = index_of(bytes);
    if (index >= classes) {
      ::operator delete(p);
      return;
    }
    here[index] = ::new (p) node{here[index]};
  }

 private:
  struct node {
    node* next;
  };
  static constexpr std::size_t granule = 64;
  // A sanitizer is to see the life of each frame.
  static constexpr std::size_t classes = TENDRIL_ASAN || TENDRIL_TSAN ? 0 : 16;

  static std::size_t index_of(std::size_t bytes) noexcept { return (bytes - 1) / granule; }
  static void* allocate_slow(std::size_t bytes, std::size_t index);
  static void free_all() noexcept;

  static inline constinit thread_local std::array<node*, classes + 1> here{};
};

}  // namespace bench::async1
