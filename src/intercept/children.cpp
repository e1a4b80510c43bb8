// SPDX-License-Identifier: Apache-2.0
//
// Waiting for any child, and system(). What there is already is taken at once; else the call is made on a thread
// of its own: which child ends next may depend on another fiber.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cerrno>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/owned_text.hpp"

namespace tendril::detail {
namespace {

pid_t wait_for(symbol what, pid_t child, int* status, int options, rusage* usage) {
  const pid_t now = real().wait4(child, status, options | WNOHANG, usage);
  // __WNOTHREAD: children of this thread alone.
  if (now != 0) return now;
  if ((options & __WNOTHREAD) != 0) return real().wait4(child, status, options, usage);
  struct answer {
    pid_t child;
    int status;
    rusage usage;
  };
  const answer a = on_thread(what, [child, options] {
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
pid_t wait3(int* status, int options, rusage* usage) {
  return wait_for(symbol::wait3, -1, status, options, usage);
}
pid_t wait4(pid_t child, int* status, int options, rusage* usage) {
  return wait_for(symbol::wait4, child, status, options, usage);
}

int waitid(idtype_t kind, id_t id, siginfo_t* about, int options) {
  siginfo_t now{};
  const int tried = real().waitid(kind, id, &now, options | WNOHANG);
  if (tried != 0) return tried;
  if (now.si_pid != 0) {
    if (about != nullptr) *about = now;
    return 0;
  }
  if ((options & __WNOTHREAD) != 0) return real().waitid(kind, id, about, options);
  struct answer {
    int result;
    siginfo_t about;
  };
  const answer a = on_thread(symbol::waitid, [kind, id, options] {
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
