// SPDX-License-Identifier: Apache-2.0
//
// The three words that a thread has for runtimes, for who is called often enough to be spared a call for each.
//
// Compilers keep addresses of thread-locals over calls, and a fiber that has migrated in between would go on with
// its former thread's. So these are to be named only in functions that are not inlined into others and that do
// not switch; everybody else asks this_worker_thread(), this_thread_waiter(), start_hot().
#pragma once

namespace tendril::detail {

class guest;
class thread_waiter;
struct worker_thread;

extern constinit thread_local worker_thread* tls_thread
    __attribute__((tls_model("initial-exec")));  ///< worker_thread.hpp
extern constinit thread_local guest* tls_guests
    __attribute__((tls_model("initial-exec")));  ///< guest.hpp: a list; the last used is the first
extern constinit thread_local thread_waiter* tls_waiter
    __attribute__((tls_model("initial-exec")));  ///< thread_waiter.hpp

}  // namespace tendril::detail
