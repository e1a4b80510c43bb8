// SPDX-License-Identifier: Apache-2.0
//
// Waiting for children, and system(). What there is already is taken at once. The end of one child is waited for by a
// descriptor of its process, which becomes readable then. For everything else the call is made on a thread of its
// own, because which child ends next may depend on another fiber: any child, one of a group, children that stop or go
// on, of which no descriptor tells.
//
// A process that has ended may not be there for its parent yet: while another traces it, say. So if there
// is still nothing after that, and if there is no descriptor to be had, it is the thread, too.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/owned_number.hpp"
#include "intercept/owned_text.hpp"
#include "intercept/polling.hpp"

namespace tendril::detail {
namespace {

[[gnu::noinline]] int open_process(pid_t child) noexcept {
  return told(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
}

[[gnu::noinline]] bool is_nonblocking(int fd) noexcept {
  return (real().fcntl(fd, F_GETFL, 0) & O_NONBLOCK) != 0;
}

/// Parks until the child has ended, or nothing better can be done than to ask for it. False: the program has ended the
/// wait, errno says why; else errno is as before.
bool wait_for_end(symbol what, pid_t child) {
  const int before = errno_now();
  const owned_number process(open_process(child));
  const long n = process.number() >= 0
                     ? wait_for_one(process.number(), POLLIN, no_deadline, name_of(what),
                                    interruptible::unless_restarted)
                     : 0;
  return finish(n, before) >= 0;
}
bool wait_for_end_of(int process) {
  const int before = errno_now();
  const long n = wait_for_one(process, POLLIN, no_deadline, name_of(symbol::waitid),
                              interruptible::unless_restarted);
  return finish(n, before) >= 0;
}

pid_t wait_for(symbol what, pid_t child, int* status, int options, rusage* usage) {
  pid_t now = real().wait4(child, status, options | WNOHANG, usage);
  if (now != 0) return now;
  if (child > 0 && (options & (WUNTRACED | WCONTINUED)) == 0) {
    if (!wait_for_end(what, child)) return -1;
    now = real().wait4(child, status, options | WNOHANG, usage);
    if (now != 0) return now;
  }
  // __WNOTHREAD: children of this thread alone.
  if ((options & __WNOTHREAD) != 0) return real().wait4(child, status, options, usage);
  struct answer {
    pid_t child;
    int status;
    rusage usage;
  };
  const answer a = on_thread(what, interruptible::unless_restarted, [child, options] {
    answer found{0, 0, {}};
    found.child = real().wait4(child, &found.status, options, &found.usage);
    return found;
  });
  if (a.child > 0) {
    if (status != nullptr) *status = a.status;
    if (usage != nullptr) *usage = a.usage;
  }
  return a.child;
}

/// Waitid(2) without waiting; false: no such child has changed.
bool look_for(idtype_t kind, id_t id, siginfo_t* about, int options, int& result) noexcept {
  siginfo_t now{};
  result = real().waitid(kind, id, &now, options | WNOHANG);
  if (result == 0 && now.si_pid == 0) return false;
  if (result == 0 && about != nullptr) *about = now;
  return true;
}

[[gnu::noinline]] sigset_t mask_now() noexcept {
  sigset_t mask;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return mask;
}

[[gnu::noinline]] int out_of_memory() noexcept {
  errno = ENOMEM;
  return -1;
}

}  // namespace

namespace calls {

pid_t wait(int* status) { return wait_for(symbol::wait, -1, status, 0, nullptr); }
pid_t waitpid(pid_t child, int* status, int options) {
  return wait_for(symbol::waitpid, child, status, options, nullptr);
}
pid_t wait3(int* status, int options, rusage* usage) {
  return wait_for(symbol::wait3, -1, status, options, usage);
}
pid_t wait4(pid_t child, int* status, int options, rusage* usage) {
  return wait_for(symbol::wait4, child, status, options, usage);
}

int waitid(idtype_t kind, id_t id, siginfo_t* about, int options) {
  int result = 0;
  if (look_for(kind, id, about, options, result)) return result;
  if ((options & (WEXITED | WSTOPPED | WCONTINUED)) == WEXITED) {
    bool goes_on = true;
    if (kind == P_PID) goes_on = wait_for_end(symbol::waitid, static_cast<pid_t>(id));
    // A non-blocking one: the call says EAGAIN.
    if (kind == P_PIDFD && !is_nonblocking(static_cast<int>(id)))
      goes_on = wait_for_end_of(static_cast<int>(id));
    if (!goes_on) return -1;
    if (look_for(kind, id, about, options, result)) return result;
  }
  if ((options & __WNOTHREAD) != 0) return real().waitid(kind, id, about, options);
  struct answer {
    int result;
    siginfo_t about;
  };
  const answer a = on_thread(symbol::waitid, interruptible::unless_restarted, [kind, id, options] {
    answer found{0, {}};
    found.result = real().waitid(kind, id, &found.about, options);
    return found;
  });
  if (a.result == 0 && about != nullptr) *about = a.about;
  return a.result;
}

int system(const char* command) {
  owned_text text = copy_of(command);
  if (text == nullptr) return out_of_memory();
  // The child gets the caller's mask, not that of a thread that takes no signals.
  return on_thread(symbol::system, [text = std::move(text), mask = mask_now()] {
    sigset_t mine;
    ::pthread_sigmask(SIG_SETMASK, &mask, &mine);
    const int status = real().system(text.get());
    const int error = errno;
    ::pthread_sigmask(SIG_SETMASK, &mine, nullptr);
    errno = error;
    return status;
  });
}

}  // namespace calls
}  // namespace tendril::detail
