// SPDX-License-Identifier: Apache-2.0
//
// Memory of tasklets' frames. Those of other fibers lie on their stacks; these are cut from slabs that are never given
// back while the process lives, because a dump may look at the frame of a fiber that ends just then. Each worker
// has a cache, the rest is one list behind a lock.
#pragma once

#include "sched/slots.hpp"

#include <cstddef>

namespace tendril::detail {

/// One thread's at a time.
class tasklet_frame_cache {
 public:
  tasklet_frame_cache() = default;
  tasklet_frame_cache(const tasklet_frame_cache&) = delete;
  tasklet_frame_cache& operator=(const tasklet_frame_cache&) = delete;
  ~tasklet_frame_cache();

  /// A frame of c. Null: no memory.
  tasklet_frame* make(fiber_core* c) noexcept;
  void destroy(tasklet_frame* f) noexcept;

 private:
  static constexpr std::size_t high_water = 1024;
  void* head_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace tendril::detail
