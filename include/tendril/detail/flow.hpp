// SPDX-License-Identifier: Apache-2.0
//
// What belongs to a flow of control and is not its stack: ambient values, the synchronization context, the
// fiber-local variables. A fiber has its own, and so has a plain thread; only the flow itself reads or
// writes them. Coroutines have none: they run in the flow of whoever resumes them.
//
// The word `ambient` is an ambient_snapshot or null. The flow owns a reference to it, unless bit 0 is set: then
// it is borrowed from a scope further up in the same flow, which owns it and puts it back at its end. So a scope
// that restores costs no atomic operation, and who replaces the word gives up what is replaced only when it
// is not borrowed (replace_ambient).
//
// A child that runs while its parent stands still, as a hot fiber does on its host (src/sched/hot_start.hpp), is
// lent the parent's snapshot in the same way: a borrowed word. When the parent is about to go on before
// the child has ended, it takes a reference for the child, which the child gives back at its end, not sooner:
// any scope of the child's may have saved the borrowed word, and puts it back.
#pragma once

#include <tendril/config.hpp>

#include <cstdint>
#include <utility>

namespace tendril {

class synchronization_context;

namespace detail {

struct ambient_snapshot;
struct local_table;
class coroutine_chain;

/// Part of the wait_block. All null in a flow that uses none of it. `sync` and `host` are changed by
/// set_contexts() alone, which tells the waits.
struct flow_locals {
  std::uintptr_t ambient = 0;               ///< see above
  synchronization_context* sync = nullptr;  ///< not owned; in force. Null: none
  synchronization_context* host = nullptr;  ///< not owned; whose works the flow is there to run
  local_table* locals = nullptr;            ///< owned; values of fiber_local
  coroutine_chain* chain = nullptr;         ///< whose coroutines run here right now; see chain.hpp
  coroutine_chain* resumable = nullptr;  ///< chains to be resumed once fewer are inside one another
  unsigned resumed = 0;                  ///< chains resumed inside one another
  bool ambient_suppressed = false;       ///< children and captures get no ambient values
  bool off_context = false;              ///< what follows a wait does not go by way of `sync`
  bool calls_cancelable = false;         ///< intercepted calls may be ended: cancelable_calls.hpp
};

/// The caller's. The address is stale after a switch of a plain thread's code to another thread, never for a
/// fiber's.
///
/// \cost  one thread-local read; a thread's first call allocates its waiter
TENDRIL_API flow_locals& this_flow();
/// The same, but null for a thread that has none yet.
TENDRIL_API flow_locals* existing_flow() noexcept;

inline constexpr std::uintptr_t borrowed_bit = 1;
inline ambient_snapshot* snapshot_in(std::uintptr_t word) noexcept {
  return reinterpret_cast<ambient_snapshot*>(word & ~borrowed_bit);
}
/// The word that stands for the same snapshot while somebody further up owns it.
constexpr std::uintptr_t borrowed(std::uintptr_t word) noexcept {
  return word | (word != 0 ? borrowed_bit : 0);
}

TENDRIL_API void count_ambient_up(ambient_snapshot* snapshot) noexcept;
TENDRIL_API void count_ambient_down(ambient_snapshot* snapshot) noexcept;

/// An owned word for the same values; the argument may be borrowed, or null.
inline std::uintptr_t share_ambient(std::uintptr_t word) noexcept {
  if (word == 0) return 0;
  count_ambient_up(snapshot_in(word));
  return word & ~borrowed_bit;
}
/// Gives an owned word back: nothing for a borrowed or null one. Runs destructors of ambient values.
inline void release_ambient(std::uintptr_t word) noexcept {
  if (word != 0 && (word & borrowed_bit) == 0) count_ambient_down(snapshot_in(word));
}
/// Puts `word` in force, with what it owns.
inline void replace_ambient(flow_locals& flow, std::uintptr_t word) noexcept {
  release_ambient(std::exchange(flow.ambient, word));
}

/// What a child of this flow begins with: an owned word, or null.
inline std::uintptr_t ambient_for_child(const flow_locals& parent) noexcept {
  return parent.ambient == 0 || parent.ambient_suppressed ? 0 : share_ambient(parent.ambient);
}
/// The same for a child that runs while the parent stands still: a borrowed word, or null.
inline std::uintptr_t ambient_to_lend(const flow_locals& parent) noexcept {
  return parent.ambient_suppressed ? 0 : borrowed(parent.ambient);
}

/// The end of a flow, in the flow itself and before anybody learns of its end: destroys the fiber-local
/// values, which may switch, and gives the ambient ones back.
TENDRIL_API void end_flow_slow(flow_locals& flow) noexcept;
/// Whether there is anything to do.
inline bool owns_anything(const flow_locals& flow) noexcept {
  return flow.locals != nullptr || (flow.ambient != 0 && (flow.ambient & borrowed_bit) == 0);
}
inline void end_flow(flow_locals& flow) noexcept {
  if (owns_anything(flow)) [[unlikely]]
    end_flow_slow(flow);
  else flow.ambient = 0;
}

}  // namespace detail
}  // namespace tendril
