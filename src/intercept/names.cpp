// SPDX-License-Identifier: Apache-2.0
//
// Names: hosts, users, groups. Where libc asks a server it is another library (a name service module) or sockets of
// libc's own, which no front sees: so the whole call is made on another thread.
//
// Host addresses that are numbers are answered in place: client libraries are given those more often than not.
//
// The resolver's state, _res, belongs to the thread. A program that has initialised its thread's has likely
// changed something in it: res_query() and its kin then use a copy. Services and protocols are not here: their
// modules read local files.
#include <arpa/inet.h>
#include <grp.h>
#include <netdb.h>
#include <pwd.h>
#include <resolv.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/owned_text.hpp"

namespace tendril::detail {
namespace {

bool is_number(const char* host) noexcept {
  in6_addr any;
  return ::inet_pton(AF_INET, host, &any) == 1 || ::inet_pton(AF_INET6, host, &any) == 1;
}

[[gnu::noinline]] void no_memory_for_resolver() noexcept {
  h_errno = NETDB_INTERNAL;
  errno = ENOMEM;
}

// ---- the state of the caller's resolver

/// What the calling thread has set; nothing where it has not initialised it.
struct resolver_settings {
  bool any = false;
  struct __res_state from {};
};

[[gnu::noinline]] void look_at_resolver(resolver_settings& to) noexcept {
  const struct __res_state& mine = *__res_state();
  to.any = (mine.options & RES_INIT) != 0;
  if (to.any) to.from = mine;
}

/// A state that is set as the caller's is; of the thread that makes the call.
class borrowed_resolver {
 public:
  explicit borrowed_resolver(const resolver_settings& settings) noexcept {
    ok_ = res_ninit(&state_) == 0;
    if (!ok_ || !settings.any) return;
    const struct __res_state& s = settings.from;
    state_.options = s.options;
    state_.retrans = s.retrans;
    state_.retry = s.retry;
    state_.ndots = s.ndots;
    state_.nscount = s.nscount;
    std::memcpy(state_.nsaddr_list, s.nsaddr_list, sizeof state_.nsaddr_list);
    std::memcpy(state_.defdname, s.defdname, sizeof state_.defdname);
    std::memcpy(state_.dnsrch, s.dnsrch, sizeof state_.dnsrch);
    // The search list points into the domain's name.
    for (char*& name : state_.dnsrch)
      if (name != nullptr) name = state_.defdname + (name - s.defdname);
  }
  ~borrowed_resolver() {
    if (ok_) res_nclose(&state_);
  }
  borrowed_resolver(const borrowed_resolver&) = delete;
  borrowed_resolver& operator=(const borrowed_resolver&) = delete;

  template <class F>
  int run(F f) noexcept {
    return ok_ ? f(&state_) : -1;
  }

 private:
  struct __res_state state_ {};
  bool ok_ = false;
};

template <class F>
int with_resolver(symbol what, F f) {
  auto* const settings = new (std::nothrow) resolver_settings;
  if (settings == nullptr) return no_memory_for_resolver(), -1;
  look_at_resolver(*settings);
  return on_thread(what, keep_slot{}, [f, s = std::unique_ptr<resolver_settings>(settings)] {
    return borrowed_resolver(*s).run(f);
  });
}

}  // namespace

namespace calls {

int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** list) {
  if (node == nullptr || (hints != nullptr && (hints->ai_flags & AI_NUMERICHOST) != 0) ||
      is_number(node))
    return real().getaddrinfo(node, service, hints, list);
  struct answer {
    int error = 0;
    addrinfo* list = nullptr;
  };
  owned_text n = copy_of(node);
  owned_text s = copy_of(service);
  if (n == nullptr || (service != nullptr && s == nullptr)) return EAI_MEMORY;
  const addrinfo h = hints != nullptr ? *hints : addrinfo{};
  const answer a = on_thread(
      symbol::getaddrinfo, [n = std::move(n), s = std::move(s), h, hinted = hints != nullptr] {
        answer found;
        found.error = real().getaddrinfo(n.get(), s.get(), hinted ? &h : nullptr, &found.list);
        return found;
      });
  if (a.error == 0) *list = a.list;
  return a.error;
}

int getnameinfo(const sockaddr* address, socklen_t length, char* host, socklen_t host_bytes,
                char* service, socklen_t service_bytes, int flags) {
  const auto call = [=] {
    return real().getnameinfo(address, length, host, host_bytes, service, service_bytes, flags);
  };
  if (host == nullptr || host_bytes == 0 || (flags & NI_NUMERICHOST) != 0) return call();
  return on_thread(symbol::getnameinfo, keep_slot{}, call);
}

// The results of these are libc's, one for the process.

hostent* gethostbyname(const char* name) {
  if (is_number(name)) return real().gethostbyname(name);
  owned_text n = copy_of(name);
  if (n == nullptr) return no_memory_for_resolver(), nullptr;
  return on_thread(symbol::gethostbyname,
                   [n = std::move(n)] { return real().gethostbyname(n.get()); });
}

hostent* gethostbyname2(const char* name, int family) {
  if (is_number(name)) return real().gethostbyname2(name, family);
  owned_text n = copy_of(name);
  if (n == nullptr) return no_memory_for_resolver(), nullptr;
  return on_thread(symbol::gethostbyname2,
                   [n = std::move(n), family] { return real().gethostbyname2(n.get(), family); });
}

hostent* gethostbyaddr(const void* address, socklen_t length, int family) {
  if (length > sizeof(in6_addr)) return real().gethostbyaddr(address, length, family);
  owned_text a = copy_of(address, length);
  if (a == nullptr) return no_memory_for_resolver(), nullptr;
  return on_thread(symbol::gethostbyaddr, [a = std::move(a), length, family] {
    return real().gethostbyaddr(a.get(), length, family);
  });
}

// Their results point into the caller's buffer.

int gethostbyname_r(const char* name, hostent* to, char* buffer, std::size_t bytes,
                    hostent** result, int* resolver_error) {
  const auto call = [=] {
    return real().gethostbyname_r(name, to, buffer, bytes, result, resolver_error);
  };
  return is_number(name) ? call() : on_thread(symbol::gethostbyname_r, keep_slot{}, call);
}

int gethostbyname2_r(const char* name, int family, hostent* to, char* buffer, std::size_t bytes,
                     hostent** result, int* resolver_error) {
  const auto call = [=] {
    return real().gethostbyname2_r(name, family, to, buffer, bytes, result, resolver_error);
  };
  return is_number(name) ? call() : on_thread(symbol::gethostbyname2_r, keep_slot{}, call);
}

int gethostbyaddr_r(const void* address, socklen_t length, int family, hostent* to, char* buffer,
                    std::size_t bytes, hostent** result, int* resolver_error) {
  return on_thread(symbol::gethostbyaddr_r, keep_slot{}, [=] {
    return real().gethostbyaddr_r(address, length, family, to, buffer, bytes, result,
                                  resolver_error);
  });
}

// ---- users and groups

passwd* getpwnam(const char* name) {
  return on_thread(symbol::getpwnam, keep_slot{}, [=] { return real().getpwnam(name); });
}
passwd* getpwuid(uid_t user) {
  return on_thread(symbol::getpwuid, [=] { return real().getpwuid(user); });
}
passwd* getpwent() {
  return on_thread(symbol::getpwent, [] { return real().getpwent(); });
}
group* getgrent() {
  return on_thread(symbol::getgrent, [] { return real().getgrent(); });
}
group* getgrnam(const char* name) {
  return on_thread(symbol::getgrnam, keep_slot{}, [=] { return real().getgrnam(name); });
}
group* getgrgid(gid_t id) {
  return on_thread(symbol::getgrgid, [=] { return real().getgrgid(id); });
}

// ---- the resolver itself

int res_query(const char* name, int kind, int type, unsigned char* answer, int bytes) {
  return with_resolver(symbol::res_query, [=](struct __res_state* state) {
    return real().res_nquery(state, name, kind, type, answer, bytes);
  });
}
int res_search(const char* name, int kind, int type, unsigned char* answer, int bytes) {
  return with_resolver(symbol::res_search, [=](struct __res_state* state) {
    return real().res_nsearch(state, name, kind, type, answer, bytes);
  });
}
int res_querydomain(const char* name, const char* domain, int kind, int type, unsigned char* answer,
                    int bytes) {
  return with_resolver(symbol::res_querydomain, [=](struct __res_state* state) {
    return real().res_nquerydomain(state, name, domain, kind, type, answer, bytes);
  });
}
int res_send(const unsigned char* message, int length, unsigned char* answer, int bytes) {
  return with_resolver(symbol::res_send, [=](struct __res_state* state) {
    return real().res_nsend(state, message, length, answer, bytes);
  });
}

}  // namespace calls
}  // namespace tendril::detail
