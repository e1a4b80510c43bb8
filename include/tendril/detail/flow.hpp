// SPDX-License-Identifier: Apache-2.0
//
// What belongs to a flow of control and is not its stack: ambient values, the synchronization context, the
// fiber-local variables. A fiber has its own, and so has a plain thread; only the flow itself reads or
// writes them. Coroutines have none: they run in the flow of whoever resumes them.
#pragma once

#include <tendril/config.hpp>

namespace tendril {

class synchronization_context;

namespace detail {

struct ambient_snapshot;
struct local_table;
class coroutine_chain;

/// Part of the wait_block. All null in a flow that uses none of it.
struct flow_locals {
  ambient_snapshot* ambient = nullptr;      ///< counted; immutable once shared
  synchronization_context* sync = nullptr;  ///< not owned; null: the runtime's or none
  local_table* locals = nullptr;            ///< owned; values of fiber_local
  coroutine_chain* chain = nullptr;         ///< whose coroutines run here right now; see chain.hpp
  coroutine_chain* resumable = nullptr;  ///< chains to be resumed once fewer are inside one another
  unsigned resumed = 0;                  ///< chains resumed inside one another
};

/// The caller's. The address is stale after a switch of a plain thread's code to another thread, never for a
/// fiber's.
///
/// \cost  one thread-local read; a thread's first call allocates its waiter
TENDRIL_API flow_locals& this_flow();

}  // namespace detail
}  // namespace tendril
