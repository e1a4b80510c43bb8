// SPDX-License-Identifier: Apache-2.0
#include "sched/tasklet_frames.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>

namespace tendril::detail {
namespace {

/// The link of a free frame, in its last bytes: a late look at a frame reads its beginning.
void* next_of(void* frame) noexcept {
  void* next;
  std::memcpy(&next, static_cast<std::byte*>(frame) + sizeof(tasklet_frame) - sizeof next,
              sizeof next);
  return next;
}
void link_to(void* frame, void* next) noexcept {
  std::memcpy(static_cast<std::byte*>(frame) + sizeof(tasklet_frame) - sizeof next, &next,
              sizeof next);
}

class frame_pool {
 public:
  // Never destroyed: threads may end after static destruction has begun.
  static frame_pool& instance() {
    static frame_pool& p = *new frame_pool;
    return p;
  }

  /// A chain of up to `wanted`; null: no memory.
  void* take(std::size_t wanted, std::size_t& got) noexcept {
    const std::scoped_lock hold(mutex_);
    void* chain = nullptr;
    for (got = 0; got != wanted; ++got) {
      void* f = free_;
      if (f != nullptr) {
        free_ = next_of(f);
      } else {
        if (fresh_ == fresh_end_ && (got != 0 || !grow())) break;
        f = fresh_;
        fresh_ += sizeof(tasklet_frame);
      }
      link_to(f, chain);
      chain = f;
    }
    return chain;
  }

  void give(void* first, void* last) noexcept {
    const std::scoped_lock hold(mutex_);
    link_to(last, free_);
    free_ = first;
  }

 private:
  bool grow() noexcept {
    void* const memory =
        ::operator new (slab_bytes_ / sizeof(tasklet_frame) * sizeof(tasklet_frame),
                        std::align_val_t{alignof(tasklet_frame)}, std::nothrow);
    if (memory == nullptr) return false;
    fresh_ = static_cast<std::byte*>(memory);
    fresh_end_ = fresh_ + slab_bytes_ / sizeof(tasklet_frame) * sizeof(tasklet_frame);
    slab_bytes_ = std::min(slab_bytes_ * 2, std::size_t{1} << 20);
    return true;
  }

  std::mutex mutex_;
  void* free_ = nullptr;
  std::byte* fresh_ = nullptr;
  std::byte* fresh_end_ = nullptr;
  std::size_t slab_bytes_ = std::size_t{16} << 10;
};

}  // namespace

tasklet_frame_cache::~tasklet_frame_cache() {
  if (head_ == nullptr) return;
  void* last = head_;
  while (void* const next = next_of(last)) last = next;
  frame_pool::instance().give(head_, last);
}

tasklet_frame* tasklet_frame_cache::make(fiber_core* c) noexcept {
  if (head_ == nullptr) {
    head_ = frame_pool::instance().take(32, count_);
    if (head_ == nullptr) return nullptr;
  }
  void* const memory = head_;
  head_ = next_of(memory);
  --count_;
  return ::new (memory) tasklet_frame(c);
}

void tasklet_frame_cache::destroy(tasklet_frame* f) noexcept {
  f->~tasklet_frame();
  link_to(f, head_);
  head_ = f;
  if (++count_ <= high_water) return;
  void* const first = head_;
  void* last = first;
  for (std::size_t i = 1; i != high_water / 2; ++i) last = next_of(last);
  head_ = next_of(last);
  count_ -= high_water / 2;
  frame_pool::instance().give(first, last);
}

}  // namespace tendril::detail
