// SPDX-License-Identifier: Apache-2.0
#include "bench/models/async1/frames.hpp"

namespace bench::async1 {

void frame_lists::free_all() noexcept {
  for (node*& list : here)
    while (list != nullptr) {
      node* const n = list;
      list = n->next;
      ::operator delete(n);
    }
}

void* frame_lists::allocate_slow(std::size_t bytes, std::size_t index) {
  // The lists themselves have no destructor: each access would have to ask whether it is registered.
  struct at_thread_exit {
    ~at_thread_exit() { free_all(); }
  };
  static thread_local const at_thread_exit cleaner;
  static_cast<void>(cleaner);
  return ::operator new(index < classes ? (index + 1) * granule : bytes);
}

}  // namespace bench::async1
