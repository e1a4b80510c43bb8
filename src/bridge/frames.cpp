// SPDX-License-Identifier: Apache-2.0
//
// Where the frames of coroutines lie. A frame that is made while a chain runs is put on the chain's stack of
// blocks; any other, typically a root, is allocated alone, with room for a chain in front:
//
//     [ coroutine_chain | head | frame ]          alone
//     [ block | head | frame | head | frame ... | free ]
//
// Coroutines that await each other end in the reverse order of their beginning, so freeing is mostly moving
// `top` down. A frame that is freed out of order is marked, and taken off when it has become the topmost.
// A frame may also outlive its chain, or be freed by another flow (a task that was handed on): it is marked and
// counted in the block's balance, and the block goes when the chain and all frames have. Whether a free is the
// chain's own is known without asking which flow this is: the awaiting coroutine has marked the frame `local`.
//
// Against operator new, whose cache of the thread is hot in such a loop, a call that does not wait costs about a
// tenth less (medians of interleaved runs). What the arena is kept for: deep chains lie densely (16 bytes a frame
// besides the frame itself), and the frames of a parked chain share lines and pages.
#include <tendril/detail/chain.hpp>
#include <tendril/detail/sanitizers.hpp>
#include <tendril/task.hpp>

#include <algorithm>
#include <new>
#include <utility>

#if TENDRIL_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) static_cast<void>(0)
#endif

namespace tendril::detail {
namespace {

constexpr std::size_t rounded(std::size_t bytes) { return (bytes + 15) / 16 * 16; }
constexpr std::size_t chain_room = rounded(sizeof(coroutine_chain));
constexpr std::size_t block_head = rounded(sizeof(frame_block));
constexpr std::size_t first_block_bytes =
    1024 - 16;  // the largest that malloc's cache of a thread takes
constexpr std::size_t largest_block_bytes = 64 * 1024 - 16;

void drop_block(frame_block* b) noexcept {
  ASAN_UNPOISON_MEMORY_REGION(b,
                              static_cast<std::size_t>(b->end - reinterpret_cast<std::byte*>(b)));
  b->~frame_block();
  ::operator delete(static_cast<void*>(b));
}

inline void* push(frame_block* b, std::size_t need) noexcept {
  ASAN_UNPOISON_MEMORY_REGION(b->top, need);
  auto* const head = reinterpret_cast<frame_head*>(b->top);
  head->block = b;
  head->below = b->last != nullptr
                    ? static_cast<std::uint32_t>(b->top - reinterpret_cast<std::byte*>(b->last))
                    : 0;
  ::new (&head->flags) std::atomic<std::uint32_t>(0);
  b->top += need;
  b->last = head;
  ++b->live;
  return head + 1;
}

inline void pop(frame_block* b) noexcept {
  frame_head* const head = b->last;
  ASAN_POISON_MEMORY_REGION(
      head + 1, static_cast<std::size_t>(b->top - reinterpret_cast<std::byte*>(head + 1)));
  b->top = reinterpret_cast<std::byte*>(head);
  b->last = head->below != 0 ? reinterpret_cast<frame_head*>(b->top - head->below) : nullptr;
}

inline bool last_is_freed(const frame_block* b) noexcept {
  // Acquire: pairs with the release of who freed it elsewhere, whose use of the memory comes before ours.
  return b->last != nullptr &&
         (b->last->flags.load(std::memory_order_acquire) & frame_head::freed) != 0;
}

}  // namespace

void* allocate_frame(std::size_t bytes) {
  coroutine_chain* const chain = this_flow().chain;
  const std::size_t need = sizeof(frame_head) + rounded(bytes);
  if (chain == nullptr) {
    auto* const base = static_cast<std::byte*>(::operator new(chain_room + need));
    auto* const head = ::new (base + chain_room) frame_head{nullptr, 0, {}};
    return head + 1;
  }
  frame_block* const b = chain->block_;
  if (b != nullptr) [[likely]] {
    if (last_is_freed(b)) [[unlikely]]
      chain->pop_freed();
    if (frame_block* const now = chain->block_;
        static_cast<std::size_t>(now->end - now->top) >= need) [[likely]]
      return push(now, need);
  }
  return chain->allocate_in_new_block(need);
}

/// The chain lets go of a block: it goes now, or with the last of the frames that others have.
void coroutine_chain::let_go(frame_block* b) noexcept {
  b->owner.store(nullptr, std::memory_order_relaxed);
  const std::int64_t left = b->live;
  // Acquire: all uses of the block by those who have left it come before its end.
  if (left == 0 || b->balance.fetch_sub(left, std::memory_order_acq_rel) == left) drop_block(b);
}

void* coroutine_chain::allocate_in_new_block(std::size_t need) {
  frame_block* b = std::exchange(spare_, nullptr);
  if (b != nullptr && static_cast<std::size_t>(b->end - b->top) < need)
    let_go(std::exchange(b, nullptr));
  if (b == nullptr) {
    std::size_t bytes = first_block_bytes;
    if (block_ != nullptr) {
      const auto last =
          static_cast<std::size_t>(block_->end - reinterpret_cast<std::byte*>(block_));
      bytes = std::min(largest_block_bytes, 2 * last + 16);
    }
    bytes = std::max(bytes, block_head + need);
    auto* const base = static_cast<std::byte*>(::operator new(bytes));
    b = ::new (base) frame_block{nullptr, base + block_head, base + bytes, nullptr, 0, {this}, {0}};
    ASAN_POISON_MEMORY_REGION(b->top, static_cast<std::size_t>(b->end - b->top));
  }
  b->below = block_;
  block_ = b;
  return push(b, need);
}

/// Takes freed frames off the top; the chain then stands on the block of its topmost frame.
void coroutine_chain::pop_freed() noexcept {
  for (;;) {
    while (last_is_freed(block_)) pop(block_);
    if (block_->last != nullptr || block_->below == nullptr) return;
    if (spare_ != nullptr) let_go(spare_);
    spare_ = std::exchange(block_, block_->below);
  }
}

void free_frame(void* frame) noexcept {
  frame_head& head = head_of(frame);
  frame_block* const b = head.block;
  if (b == nullptr) {
    ::operator delete(reinterpret_cast<std::byte*>(&head) - chain_room);
    return;
  }
  const std::uint32_t flags = head.flags.load(std::memory_order_relaxed);
  if ((flags & frame_head::local) != 0) [[likely]] {
    --b->live;
    if (&head == b->last) [[likely]] {
      pop(b);
      if (b->last == nullptr ? b->below != nullptr : last_is_freed(b)) [[unlikely]] {
        coroutine_chain* const chain = b->owner.load(std::memory_order_relaxed);
        if (chain->block_ == b) chain->pop_freed();
      }
    } else {
      head.flags.store(flags | frame_head::freed, std::memory_order_relaxed);
    }
    return;
  }
  // Elsewhere. The mark first: the block may go with the count.
  head.flags.store(flags | frame_head::freed, std::memory_order_release);
  // Acquire and release: all uses of the block by those who left it come before its end.
  if (b->balance.fetch_add(1, std::memory_order_acq_rel) == -1) drop_block(b);
}

void coroutine_chain::close_blocks() noexcept {
  if (spare_ != nullptr) let_go(std::exchange(spare_, nullptr));
  while (block_ != nullptr) let_go(std::exchange(block_, block_->below));
}

coroutine_chain& coroutine_chain::create(promise_core& root, end_function at_end) {
  frame_head& head = head_of(root.self.address());
  if (head.block == nullptr) {
    void* const room = reinterpret_cast<std::byte*>(&head) - chain_room;
    return *::new (room) coroutine_chain(root, at_end, false);
  }
  return *new coroutine_chain(root, at_end, true);
}

void coroutine_chain::destroy() noexcept {
  delete extras_.load(std::memory_order_relaxed);
  if (on_heap_) delete this;
  else this->~coroutine_chain();
}

}  // namespace tendril::detail
