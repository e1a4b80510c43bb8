// SPDX-License-Identifier: Apache-2.0
//
// What interception knows of a number besides the table of descriptors (io/descriptor.hpp): what kind of file it is,
// and what the program has set of it: O_NONBLOCK, SO_RCVTIMEO, SO_SNDTIMEO.
//
// The program's flags are never changed to make a call return, so nothing of them need be hidden; they are
// only looked at. What was seen is kept with the descriptor's generation and with the *epoch*: a counter for
// the whole process which every change of any file's flags moves on (fcntl, ioctl, setsockopt: dup'ed numbers
// share flags, so that the number changed need not be the number used). Facts of another generation or
// another epoch are looked up again. What another process changes of a shared file is not noticed before.
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

/// Flags of some file have been changed, or are about to be.
void flags_change() noexcept;

}  // namespace tendril::detail
