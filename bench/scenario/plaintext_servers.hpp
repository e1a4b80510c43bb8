// SPDX-License-Identifier: Apache-2.0
//
// The servers of E7. Each runs until it is killed, calls `ready` with its port once it accepts, and
// differs from the others in its I/O only: the protocol is bench/support/plaintext.hpp in all of them.
// All set TCP_NODELAY, all read into a 4 KiB buffer per connection, all write one batch of responses
// with one system call.
#pragma once

#include "bench/support/role.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bench {

using port_callback = std::function<void(std::uint16_t)>;

/// Raw libuv streams and callbacks: the reference.
void serve_callbacks(std::uint16_t port, const port_callback& ready);

/// Level-triggered epoll on one thread, without any library: what the machine can do.
void serve_epoll(std::uint16_t port, const port_callback& ready);

/// One thread per connection, blocking calls.
void serve_threads(std::uint16_t port, const port_callback& ready);

/// One Tendril fiber per connection, one worker. `stack` as in the names of variants: "reserved".
void serve_fibers(std::uint16_t port, const port_callback& ready, const std::string& stack);

/// One coroutine per connection, resumed from the callbacks of a libuv loop.
void serve_task(std::uint16_t port, const port_callback& ready);
void serve_async1(std::uint16_t port, const port_callback& ready);

/// The arguments of the role serve-plaintext for a variant: "fiber/reserved" is implementation and stack,
/// "callbacks#2" a second instance of the same.
arguments plaintext_arguments(const std::string& variant);

}  // namespace bench
