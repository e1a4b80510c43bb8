// SPDX-License-Identifier: Apache-2.0
//
// A message that carries a descriptor to the other end of a Unix socket.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstring>

namespace tendril::test {

class descriptor_message {
 public:
  /// The parts stay the caller's.
  descriptor_message(int fd, iovec* parts, std::size_t count) {
    message_.msg_iov = parts;
    message_.msg_iovlen = count;
    message_.msg_control = control_;
    message_.msg_controllen = sizeof control_;
    cmsghdr* const header = CMSG_FIRSTHDR(&message_);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  descriptor_message(const descriptor_message&) = delete;
  descriptor_message& operator=(const descriptor_message&) = delete;

  const msghdr* get() const noexcept { return &message_; }

 private:
  alignas(cmsghdr) char control_[CMSG_SPACE(sizeof(int))] = {};
  msghdr message_{};
};

}  // namespace tendril::test
