// SPDX-License-Identifier: Apache-2.0
//
// What interception knows of a number besides the table of descriptors (io/descriptor.hpp): what kind of file it is,
// and what the program has set of it: O_NONBLOCK, SO_RCVTIMEO, SO_SNDTIMEO.
//
// The program's flags are never changed to make a call return, so nothing of them need be hidden; they are
// only looked at. What was seen is kept with the descriptor's generation, and forgotten when the program changes
// something of it (fcntl, ioctl, setsockopt). Numbers that were dup'ed share flags, so that the number changed
// need not be the number used: from the first dup on every change makes everything forgotten, by an
// epoch that is kept with the facts. What another process changes of a shared file is not noticed.
//
// Numbers are adopted into the table when they are first used on a fiber, not when they are opened: so it is
// all the same who opened them, and when.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "io/descriptor.hpp"

namespace tendril::detail {

enum class file_class : std::uint8_t {
  socket,  ///< MSG_DONTWAIT
  nowait,  ///< RWF_NOWAIT: pipes, eventfds and more
  polled,  ///< neither: poll(2) first, and then the call that could block if another process is quicker
  unparked,  ///< regular files, directories: calls do not wait for others, readiness says nothing
};

/// One number in use by an intercepted call.
struct file_use {
  descriptor* entry;
  std::uint32_t generation;
  file_class what;
  bool nonblocking;  ///< the program has set O_NONBLOCK
};

/// What is known of an open number, found out if need be. 0, or an errno: EBADF; anything else: the number
/// cannot be managed, and the plain call is all there is.
int look_at_file(int fd, file_use& use) noexcept;

/// look_at_file() for the common case: false, find out.
bool recall_file(int fd, file_use& use) noexcept;

/// Found to be of another class than was thought.
void reclassify(const file_use& use, file_class what) noexcept;

/// SO_RCVTIMEO or SO_SNDTIMEO; zero: none.
std::chrono::nanoseconds timeout_of(const file_use& use, direction way) noexcept;

/// The program has changed flags of the number's file.
void flags_changed(int fd) noexcept;
/// From now on a file may have several numbers.
void number_doubled() noexcept;

}  // namespace tendril::detail
